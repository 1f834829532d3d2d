"""Where tokens find their cells in llama.cpp's cache (`placing.h`), by random pools and rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support.cpp import run_cpp

# Sequences of a pool grow by steps, lose their ends, share their beginnings and go. Each step finds
# as many cells as tokens, free and distinct and where a plain search for one token after the other
# finds them; or none, and then too few are free.
PROGRAM = r"""
#include "placing.h"
#include <algorithm>
#include <cstdio>
#include <random>
#include <set>

static const uint32_t sequences = 12;
static std::mt19937 random_number(7);

static uint32_t below(uint32_t bound) {
    return random_number() % bound;
}

struct Pool {
    std::vector<std::set<int32_t>> owners;
    std::vector<std::vector<uint32_t>> texts = std::vector<std::vector<uint32_t>>(sequences);

    explicit Pool(uint32_t size) : owners(size) {}

    int64_t last(int32_t sequence) const {
        return texts[sequence].empty() ? -1 : (int64_t) texts[sequence].back();
    }
    void cut(int32_t sequence, size_t length) {
        auto & text = texts[sequence];
        for (; text.size() > length; text.pop_back()) {
            owners[text.back()].erase(sequence);
        }
    }
    void share(int32_t from, int32_t to, size_t length) {
        cut(to, 0);
        texts[to].assign(texts[from].begin(), texts[from].begin() + length);
        for (const uint32_t cell : texts[to]) {
            owners[cell].insert(to);
        }
    }
    std::vector<uint32_t> place(const std::vector<int32_t> & tokens) const {
        return llm_api_place(
            owners.size(), tokens.size(), [&](uint32_t cell) { return owners.at(cell).empty(); },
            [&](uint32_t token) { return tokens.at(token); },
            [&](int32_t sequence) { return last(sequence); });
    }
    bool are_free(size_t begin, size_t count) const {
        if (begin + count > owners.size()) {
            return false;
        }
        const auto from = owners.begin() + begin;
        return std::all_of(from, from + count, [](auto & cell) { return cell.empty(); });
    }
    /* Where the next token of a sequence belongs, or the size of the pool. */
    size_t expected(int32_t sequence) const {
        const int64_t end = last(sequence);
        if (end >= 0 && are_free(end + 1, 1)) {
            return end + 1;
        }
        for (const size_t behind : {(size_t) (end + 1), (size_t) 0}) {
            for (size_t block = 0; block < owners.size(); block += llm_api_block) {
                if (block >= behind && are_free(block, llm_api_block)) {
                    return block;
                }
            }
        }
        size_t cell = 0;
        while (cell < owners.size() && !are_free(cell, 1)) {
            ++cell;
        }
        return cell;
    }
    /* 0, or what is wrong with where the tokens of a step come to lie. */
    int step(const std::vector<int32_t> & tokens) {
        size_t free = 0;
        for (const auto & cell : owners) {
            free += cell.empty();
        }
        const auto places = place(tokens);
        if (places.size() != (free < tokens.size() ? 0 : tokens.size())) {
            return 1;
        }
        for (size_t token = 0; token < places.size(); ++token) {
            const uint32_t cell = places[token];
            if (cell >= owners.size() || !owners[cell].empty()) {
                return 2;
            }
            if (cell != expected(tokens[token])) {
                return 3;
            }
            owners[cell].insert(tokens[token]);
            texts[tokens[token]].push_back(cell);
        }
        return 0;
    }
};

int main() {
    long placed = 0, refused = 0;
    for (int round = 0; round < 300; ++round) {
        Pool pool(1 + below(700));
        for (int turn = 0; turn < 150; ++turn) {
            const int32_t some = below(sequences), other = below(sequences);
            const size_t length = pool.texts[some].size();
            const uint32_t what = below(6);
            if (what == 0) {
                pool.cut(some, 0);
            } else if (what == 1) {
                pool.cut(some, length * 3 / 4);
            } else if (what == 2 && some != other) {
                pool.share(some, other, length / 2);
            }
            std::vector<int32_t> tokens;
            for (uint32_t sequence = 0; sequence < sequences; ++sequence) {
                tokens.insert(tokens.end(), below(8) == 0 ? below(90) : below(2), sequence);
            }
            if (below(4) == 0) {
                std::shuffle(tokens.begin(), tokens.end(), random_number);
            }
            const int wrong = pool.step(tokens);
            if (wrong != 0) {
                std::printf("round %d, turn %d: %d\n", round, turn, wrong);
                return wrong;
            }
            (pool.place(tokens).empty() ? refused : placed) += tokens.size();
        }
    }

    /* Streams that grow together from an empty pool keep to themselves. */
    Pool pool(sequences * 2 * llm_api_block);
    std::vector<int32_t> all(sequences);
    for (uint32_t sequence = 0; sequence < sequences; ++sequence) {
        all[sequence] = sequence;
    }
    for (uint32_t token = 0; token < 2 * llm_api_block; ++token) {
        if (pool.step(all) != 0) {
            return 4;
        }
    }
    for (const auto & text : pool.texts) {
        for (size_t at = 0; at < text.size(); ++at) {
            if (text[at] != text[at / llm_api_block * llm_api_block] + at % llm_api_block) {
                return 5;
            }
        }
    }
    std::printf("%ld %ld\n", placed, refused);
    return 0;
}
"""


@pytest.mark.parametrize("flags", [["-O1", "-fsanitize=undefined"], ["-O2"]])
def test_free_distinct_and_beside_each_other(tmp_path: Path, flags: list[str]) -> None:
    placed, refused = map(int, run_cpp(PROGRAM, tmp_path, flags).split())
    assert min(placed, refused) > 10_000
