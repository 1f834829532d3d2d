"""Memory that ggml allocates (`pages.h`): as aligned as it asks for, and in huge pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support.cpp import run_cpp

_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")

PROGRAM = r"""
#include "pages.h"
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

static const size_t huge = 2 << 20;

/* KiB of this process that lie in huge pages. */
static long huge_pages() {
    std::ifstream told("/proc/self/smaps_rollup");
    for (std::string line; std::getline(told, line);) {
        long count;
        if (std::sscanf(line.c_str(), "AnonHugePages: %ld", &count) == 1) {
            return count;
        }
    }
    return 0;
}

int main() {
    const size_t sizes[] = {1, 64, 4097, huge - 1, huge, huge + 1, 8 * huge - 1};
    for (const size_t size : sizes) {
        const size_t alignment = size < huge ? 64 : huge;
        void * memory = nullptr;
        const int failure = llm_api_memalign(&memory, 64, size);
        const bool aligned = reinterpret_cast<uintptr_t>(memory) % alignment == 0;
        std::memset(memory, 1, size);
        if (failure != 0 || !aligned) {
            std::printf("%zu bytes: %d, %p\n", size, failure, memory);
            return 1;
        }
    }
    void * none = nullptr;
    if (llm_api_memalign(&none, 64, SIZE_MAX / 2) == 0) {
        std::printf("more than there is\n");
        return 1;
    }
    std::printf("%ld", huge_pages() / 2048);
}
"""


def test_large_memory_lies_in_huge_pages(tmp_path: Path) -> None:
    told = run_cpp(PROGRAM, tmp_path, ["-O1"])
    if not _ENABLED.exists() or "[never]" in _ENABLED.read_text():
        pytest.skip("this system has no huge pages")
    # One, one and seven; the system may have none left.
    assert 1 <= int(told) <= 9
