/* Included at the top of ggml.c (see llama.cmake).
 *
 * Caches and results are read and written from end to end for each token. In
 * pages of 4 KiB every few hundred floats need another address translation, and
 * a new page is a fault; in huge pages of 2 MiB both are rare.
 */
#ifndef LLM_API_PAGES_H
#define LLM_API_PAGES_H

#include <stdlib.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

/* posix_memalign, in huge pages where the system has them and `size` fills one.
 * What is left behind the last whole one stays in small pages. */
static inline int llm_api_memalign(void ** memory, size_t alignment, size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const size_t huge = (size_t) 2 << 20;
    if (size >= huge) {
        const int failure = posix_memalign(memory, huge, size);
        if (failure == 0) {
            /* Only advice: it may be refused. */
            (void) madvise(*memory, size / huge * huge, MADV_HUGEPAGE);
        }
        return failure;
    }
#endif
    return posix_memalign(memory, alignment, size);
}

#endif
