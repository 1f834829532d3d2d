"""How threads share a matrix product of llama.cpp's (`sharing.h`), by random sizes."""

from __future__ import annotations

from pathlib import Path

from .support.cpp import run_cpp

# Whatever order threads take the pieces in, each pair of rows is computed once; pieces begin at
# multiples of 16 rows, so that no two threads write to one line of a cache, and are two for each
# thread at most.
PROGRAM = r"""
#include "sharing.h"
#include <cstdio>
#include <random>
#include <vector>

static std::mt19937 random_number(11);

static int64_t below(int64_t bound) {
    return random_number() % bound;
}

static bool is_whole(int64_t weights, int64_t inputs, int64_t threads) {
    std::vector<int> times(weights * inputs);
    int64_t pieces = 0;
    for (;; ++pieces) {
        const llm_api_piece piece = llm_api_piece_at(pieces, weights, inputs, threads);
        if (piece.weights_begin >= weights) {
            break;
        }
        if (piece.weights_end > weights || piece.inputs_end > inputs) {
            return false;
        }
        if (piece.weights_begin % 16 != 0) {
            return false;
        }
        for (int64_t row = piece.weights_begin; row < piece.weights_end; ++row) {
            for (int64_t input = piece.inputs_begin; input < piece.inputs_end; ++input) {
                ++times[row * inputs + input];
            }
        }
    }
    for (const int each : times) {
        if (each != 1) {
            return false;
        }
    }
    return true;
}

/* With one input: what a thread takes where all are as fast, and how often. */
static bool is_fair(int64_t weights, int64_t threads) {
    const llm_api_piece first = llm_api_piece_at(0, weights, 1, threads);
    const llm_api_piece later = llm_api_piece_at(threads, weights, 1, threads);
    const int64_t share = first.weights_end + later.weights_end - later.weights_begin;
    const llm_api_piece last = llm_api_piece_at(2 * threads, weights, 1, threads);
    return share <= weights / threads + 16 && last.weights_begin >= weights;
}

int main() {
    for (int turn = 0; turn < 20000; ++turn) {
        const int64_t weights = 1 + below(turn % 50 == 0 ? 20000 : 700);
        const int64_t inputs = turn % 3 == 0 ? 1 : 1 + below(turn % 50 == 1 ? 300 : 70);
        const int64_t threads = 1 + below(turn % 5 == 0 ? 100 : 16);
        const bool fair = !llm_api_shares(weights, threads) || is_fair(weights, threads);
        if (!fair || !is_whole(weights, inputs, threads)) {
            std::printf("%ld rows, %ld inputs, %ld threads",
                (long) weights, (long) inputs, (long) threads);
            return 1;
        }
    }
    /* Nobody asked for any logits. */
    const llm_api_piece none = llm_api_piece_at(0, 64, 0, 2);
    return none.weights_begin >= 64 ? 0 : 1;
}
"""


def test_each_pair_of_rows_is_in_one_piece(tmp_path: Path) -> None:
    run_cpp(PROGRAM, tmp_path, ["-O1", "-fsanitize=undefined"])
