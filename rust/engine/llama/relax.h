/* Included before every C source of llama.cpp (see llama.cmake).
 *
 * ggml's threads wait for each other in loops around _mm_pause that never give
 * the core away. On a core that is shared, the thread that is waited for may
 * need that very core, and a step takes a time slice instead of microseconds.
 * Here every so many pauses become a sched_yield, which costs a fraction of a
 * microsecond when nobody else wants the core.
 */
#ifndef LLM_API_RELAX_H
#define LLM_API_RELAX_H

#if defined(__x86_64__) && defined(__linux__) && !defined(__cplusplus)
#include <immintrin.h>

/* Not <sched.h>: a source may still set feature macros that change it. */
extern int sched_yield(void);

static inline void llm_api_relax(void) {
    static _Thread_local unsigned pauses;
    if (++pauses % 128 == 0) {
        sched_yield();
    } else {
        _mm_pause();
    }
}

#define _mm_pause llm_api_relax
#endif

#endif
