/* Included at the top of llama.cpp's KV cache (see llama.cmake).
 *
 * All sequences share one pool of cells. llama.cpp gives a step's tokens the
 * next free cells: with N streams those of one stream lie N apart, each in a
 * page of its own, and many of them compete for the same lines of the caches.
 * Here the cells of a sequence lie beside each other.
 */
#ifndef LLM_API_PLACING_H
#define LLM_API_PLACING_H

#include <cstdint>
#include <unordered_map>
#include <vector>

/* Cells that a sequence gets together, where so many are free. Attention of
 * prompts takes as many at a time, so that most that it takes are of one. */
constexpr uint32_t llm_api_block = 64;

/* Finds a cell for each of `tokens` tokens in a pool of `size` cells: the one
 * behind the last of its sequence; if that is not free, the beginning of the
 * next block that is, or else of the first one; without such a block, the first
 * free cell. Blocks begin at multiples of their size, so that a sequence finds
 * the rest of its block free. Low blocks come first, so that attention has few
 * cells to look at, but those behind the sequence before them: attention adds
 * cells up in their order, and a text's order is then that of its tokens,
 * wherever they lie, so that it rounds alike.
 *
 * `is_free(cell)`: whether a cell can be taken. `sequence(token)`: whose token
 * it is. `last(sequence)`: the cell of the highest position of a sequence, or
 * -1. Returns distinct cells in the order of the tokens; none if fewer are
 * free than there are tokens. */
template <class IsFree, class Sequence, class Last>
std::vector<uint32_t> llm_api_place(uint32_t size, uint32_t tokens, IsFree is_free, Sequence sequence, Last last) {
    std::vector<uint32_t> places;
    std::vector<bool> taken(size);
    std::unordered_map<int32_t, int64_t> ends; /* the last cell of each sequence, or -1 */
    uint32_t low = 0, cell = 0; /* before these, no block and no cell is free */

    const auto can_take = [&](int64_t at) {
        return at < size && !taken[at] && is_free(static_cast<uint32_t>(at));
    };
    /* The first free block from `from` on, or the size of the pool. */
    const auto find_block = [&](int64_t from) {
        int64_t block = (from + llm_api_block - 1) / llm_api_block * llm_api_block;
        uint32_t free = 0;
        while (free < llm_api_block && block + free < size) {
            if (can_take(block + free)) {
                ++free;
            } else {
                block += llm_api_block;
                free = 0;
            }
        }
        return free == llm_api_block ? block : static_cast<int64_t>(size);
    };

    places.reserve(tokens);
    for (uint32_t token = 0; token < tokens; ++token) {
        const int32_t owner = sequence(token);
        const auto found = ends.find(owner);
        const int64_t next = 1 + (found == ends.end() ? last(owner) : found->second);
        int64_t place = next;
        if (next == 0 || !can_take(next)) {
            place = next == 0 || low >= size ? size : find_block(next);
            if (place == size) {
                place = low = find_block(low);
            }
            if (place == size) {
                while (cell < size && !can_take(cell)) {
                    ++cell;
                }
                place = cell;
            }
        }
        if (place == size) {
            return {};
        }
        taken[place] = true;
        ends[owner] = place;
        places.push_back(static_cast<uint32_t>(place));
    }
    return places;
}

#endif
