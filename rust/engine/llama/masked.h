/* Included at the top of ggml's operations (see llama.cmake).
 *
 * All sequences share one pool of cells, so most cells that attention looks at
 * belong to others and are masked. ggml looks at each of them, for each row and
 * head; these functions pass over them, by 32 and by 4. What is computed stays
 * the same, to the bit.
 */
#ifndef LLM_API_MASKED_H
#define LLM_API_MASKED_H

#include <cstddef>
#include <cstdint>
#include <cstring>

/* The first cell from `cell` on that is not masked, or `end`. `mask` has a
 * half-precision number for each cell, or is null: nothing is masked. */
static inline int64_t llm_api_next_seen(const uint16_t * mask, int64_t cell, int64_t end) {
    constexpr uint16_t masked = 0xFC00; /* minus infinity */
    if (mask == nullptr) {
        return cell;
    }
    if (cell < end && mask[cell] != masked) {
        return cell;
    }
    for (; cell + 32 <= end; cell += 32) {
        uint16_t seen = 0;
        for (int i = 0; i < 32; ++i) {
            seen |= mask[cell + i] ^ masked;
        }
        if (seen != 0) {
            break;
        }
    }
#if defined(__GNUC__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; cell + 4 <= end; cell += 4) {
        uint64_t four;
        std::memcpy(&four, mask + cell, sizeof four);
        four ^= masked * UINT64_C(0x0001000100010001);
        if (four != 0) {
            return cell + __builtin_ctzll(four) / 16;
        }
    }
#endif
    while (cell < end && mask[cell] == masked) {
        ++cell;
    }
    return cell;
}

/* Whether no row of a tile sees any cell of it. `rows` begin `stride` bytes
 * after each other. */
static inline bool llm_api_all_masked(const void * mask, size_t stride, int rows, int64_t cell, int64_t cells) {
    for (int row = 0; row < rows; ++row) {
        const auto * line = reinterpret_cast<const uint16_t *>(static_cast<const char *>(mask) + row * stride);
        if (llm_api_next_seen(line, cell, cell + cells) != cell + cells) {
            return false;
        }
    }
    return true;
}

#endif
