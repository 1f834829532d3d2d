"""Masked cells that llama.cpp's attention passes over, beside a plain loop (`masked.h`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support.cpp import run_cpp

# Masks from all masked to none, in runs and scattered, from every offset; the cell after the end
# is seen or masked, so that a function which reads on finds it or goes past it.
PROGRAM = r"""
#include "masked.h"
#include <cstdio>
#include <random>
#include <vector>

static int64_t plain(const std::vector<uint16_t> & mask, int64_t cell, int64_t end) {
    while (cell < end && mask[cell] == 0xFC00) {
        ++cell;
    }
    return cell;
}

int main() {
    std::mt19937 random(7);
    const uint16_t seen[] = {0x0000, 0x8000, 0x3C00, 0xBC00, 0x7C00, 0xFBFF, 0xFC01, 0xFFFF};
    long compared = 0;
    for (int round = 0; round < 3000; ++round) {
        const int64_t size = random() % 150;
        const unsigned rarity = 1 + random() % 60, run = 1 + random() % 50;
        std::vector<uint16_t> mask(size + 1, 0xFC00);
        for (int64_t i = 0; i < size; ++i) {
            if (random() % rarity == 0) {
                for (unsigned k = 0; k < run && i < size; ++k, ++i) {
                    mask[i] = seen[random() % 8];
                }
            }
        }
        for (int64_t end = size; end >= 0 && end > size - 40; --end) {
            const uint16_t kept = mask[end];
            mask[end] = random() % 2 ? 0x3C00 : 0xFC00;
            for (int64_t cell = 0; cell <= end; ++cell, ++compared) {
                const int64_t next = plain(mask, cell, end);
                if (llm_api_next_seen(mask.data(), cell, end) != next) {
                    std::printf("from %lld to %lld\n", (long long) cell, (long long) end);
                    return 1;
                }
                const bool all = llm_api_all_masked(mask.data() + cell, 0, 2, 0, end - cell);
                if (all != (next == end)) {
                    return 2;
                }
            }
            mask[end] = kept;
        }
    }
    const uint16_t rows[] = {0xFC00, 0xFC00, 0, 0xFC00, 0xFC00, 0, 0xFC00, 0, 0};
    if (!llm_api_all_masked(rows, 6, 2, 0, 2) || llm_api_all_masked(rows, 6, 3, 0, 2)) {
        return 3;
    }
    if (llm_api_next_seen(nullptr, 5, 9) != 5) {
        return 4;
    }
    std::printf("%ld\n", compared);
    return 0;
}
"""


@pytest.mark.parametrize(
    "flags", [["-O0", "-fsanitize=undefined"], ["-O3"], ["-O3", "-march=native"]]
)
def test_as_a_plain_loop(tmp_path: Path, flags: list[str]) -> None:
    assert int(run_cpp(PROGRAM, tmp_path, flags)) > 1_000_000
