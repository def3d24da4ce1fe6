/* SPDX-License-Identifier: Apache-2.0
 *
 * What AddressSanitizer, ThreadSanitizer and valgrind must be told about stacks and switches.
 * Everything is empty in ordinary builds. Private to common/co. */
#ifndef ZBS_CO_SAN_H
#define ZBS_CO_SAN_H

#include "common/base/attr.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define CO_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#else
#define CO_ASAN 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define CO_TSAN 1
#include <sanitizer/tsan_interface.h>
#else
#define CO_TSAN 0
#endif
#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#define CO_VALGRIND    1
#define CO_ON_VALGRIND RUNNING_ON_VALGRIND
#endif
#endif
#ifndef CO_VALGRIND
#define CO_VALGRIND    0
#define CO_ON_VALGRIND 0
#endif

/* The sanitizers' view of one stack: a coroutine's or that of the thread that runs the loop. */
struct co_san {
    const void *bottom; /* lowest address; a loop learns its thread's at the first switch */
    size_t bytes;
    void *fake_stack; /* ASan, while switched away */
    void *fiber;      /* TSan */
    unsigned valgrind_id;
};

/* Before leaving `from` for `to`. */
static inline __attribute__((always_inline)) void co_san_leave(struct co_san *from,
                                                               struct co_san *to)
{
    (void)from, (void)to;
#if CO_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->bottom, to->bytes);
#endif
#if CO_TSAN
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
}

/* First thing after arriving on `self`; from: whose stack was left (to learn a thread's bounds),
 * or NULL. */
static inline __attribute__((always_inline)) void co_san_arrive(struct co_san *self,
                                                                struct co_san *from)
{
    (void)self, (void)from;
#if CO_ASAN
    __sanitizer_finish_switch_fiber(self->fake_stack, from != NULL ? &from->bottom : NULL,
                                    from != NULL ? &from->bytes : NULL);
    self->fake_stack = NULL;
#endif
}

/* A loop starts to run on the calling thread's own stack. */
static inline void co_san_thread(struct co_san *s)
{
    (void)s;
#if CO_TSAN
    s->fiber = __tsan_get_current_fiber();
#endif
}

static inline void co_san_stack_new(struct co_san *s, void *bottom, size_t bytes)
{
    s->bottom = bottom;
    s->bytes = bytes;
#if CO_ASAN
    __lsan_register_root_region(bottom, bytes);
#endif
#if CO_TSAN
    s->fiber = __tsan_create_fiber(0);
#endif
#if CO_VALGRIND
    s->valgrind_id = VALGRIND_STACK_REGISTER(bottom, (char *)bottom + bytes);
#endif
}

/* The frames on a stack were abandoned: it may be entered afresh. */
static inline void co_san_stack_reset(struct co_san *s)
{
    (void)s;
#if CO_ASAN
    if (s->fake_stack != NULL) {
        /* Only its owner can release a fake stack: pretend to be it for a moment. */
        void *mine = NULL;
        const void *bottom = NULL;
        size_t bytes = 0;

        __sanitizer_start_switch_fiber(&mine, s->bottom, s->bytes);
        __sanitizer_finish_switch_fiber(s->fake_stack, &bottom, &bytes);
        __sanitizer_start_switch_fiber(NULL, bottom, bytes);
        __sanitizer_finish_switch_fiber(mine, NULL, NULL);
        s->fake_stack = NULL;
    }
    __asan_unpoison_memory_region(s->bottom, s->bytes);
#endif
#if CO_TSAN
    __tsan_destroy_fiber(s->fiber);
    s->fiber = __tsan_create_fiber(0);
#endif
}

static inline void co_san_stack_free(struct co_san *s)
{
    (void)s;
#if CO_ASAN
    co_san_stack_reset(s);
    __lsan_unregister_root_region(s->bottom, s->bytes);
#endif
#if CO_TSAN
    __tsan_destroy_fiber(s->fiber);
#endif
#if CO_VALGRIND
    VALGRIND_STACK_DEREGISTER(s->valgrind_id);
#endif
}

#endif
