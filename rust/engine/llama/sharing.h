/* Included at the top of ggml-cpu.c (see llama.cmake).
 *
 * How the threads share a matrix product. ggml cuts the weights into pieces of
 * 16 rows, 64 if there is one row to multiply them with, and threads take one
 * piece after the other. Each is a number that cores have to agree on and a new
 * place in memory to read from, which took a fourth of the time of one stream.
 * Here pieces are as long as they may be.
 */
#ifndef LLM_API_SHARING_H
#define LLM_API_SHARING_H

#include <stdint.h>

/* Rows of the weights, and of what they are multiplied with. */
struct llm_api_piece {
    int64_t weights_begin, weights_end;
    int64_t inputs_begin, inputs_end;
};

/* A multiple of the rows that ggml takes together, and of a line of the caches,
 * to which only one thread is to write. */
static inline int64_t llm_api_rows(int64_t count) {
    return count < 16 ? 16 : count / 16 * 16;
}

/* Whether there are enough rows for each thread; else ggml shares them equally. */
static inline int llm_api_shares(int64_t weights, int64_t threads) {
    return weights >= 64 * threads;
}

/* Piece number `index` of a product of `weights` rows with `inputs` rows, shared
 * by `threads`. All pieces together have each pair of rows once. It begins at
 * the end of the weights or behind if there is no such piece.
 *
 * With one input, each thread begins with three quarters of an equal share, and
 * who is done first takes more of what is left. With more there is more to
 * compute in a row, and an eighth of a share is what threads may wait for. */
static inline struct llm_api_piece llm_api_piece_at(int64_t index, int64_t weights, int64_t inputs, int64_t threads) {
    struct llm_api_piece piece = { weights, weights, 0, inputs };
    if (inputs == 1) {
        const int64_t first = llm_api_rows(weights * 3 / (4 * threads));
        const int64_t left = weights - threads * first;
        const int64_t later = llm_api_rows((left + threads - 1) / threads + 15);
        piece.weights_begin = index < threads ? index * first : threads * first + (index - threads) * later;
        piece.weights_end = piece.weights_begin + (index < threads ? first : later);
    } else {
        const int64_t together = 64;
        const int64_t rows = llm_api_rows(weights / (8 * threads));
        const int64_t pieces = (weights + rows - 1) / rows;
        piece.inputs_begin = index / pieces * together;
        piece.inputs_end = piece.inputs_begin + together < inputs ? piece.inputs_begin + together : inputs;
        if (piece.inputs_begin < inputs) {
            piece.weights_begin = index % pieces * rows;
            piece.weights_end = piece.weights_begin + rows;
        }
    }
    if (piece.weights_end > weights) {
        piece.weights_end = weights;
    }
    return piece;
}

#endif
