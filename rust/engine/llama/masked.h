/* Included at the top of ggml's operations (see llama.cmake).
 *
 * All sequences share one pool of cells, so most cells that attention looks at
 * belong to others and are masked. ggml looks at each of them, for each row and
 * head; these functions pass over them, many at a time. What is computed stays
 * the same, to the bit.
 */
#ifndef LLM_API_MASKED_H
#define LLM_API_MASKED_H

#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

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
#if defined(__GNUC__) && defined(__AVX512BW__)
    for (; cell + 32 <= end; cell += 32) {
        const __m512i cells = _mm512_loadu_si512(mask + cell);
        const uint32_t seen = _mm512_cmpneq_epi16_mask(cells, _mm512_set1_epi16((short) masked));
        if (seen != 0) {
            return cell + __builtin_ctz(seen);
        }
    }
#elif defined(__GNUC__) && defined(__AVX2__)
    for (; cell + 16 <= end; cell += 16) {
        const __m256i cells = _mm256_loadu_si256((const __m256i *) (mask + cell));
        const __m256i hidden = _mm256_cmpeq_epi16(cells, _mm256_set1_epi16((short) masked));
        const uint32_t seen = ~_mm256_movemask_epi8(hidden);
        if (seen != 0) {
            return cell + __builtin_ctz(seen) / 2;
        }
    }
#endif
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
