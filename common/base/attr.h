/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiler attributes and the few macros that every file uses. */
#ifndef ZBS_BASE_ATTR_H
#define ZBS_BASE_ATTR_H

#include <stddef.h>
#include <stdint.h>

#define MUST_CHECK       __attribute__((warn_unused_result))
#define NORETURN         __attribute__((noreturn))
#define NOINLINE         __attribute__((noinline))
#define UNUSED           __attribute__((unused))
#define PRINTF_FMT(a, b) __attribute__((format(printf, a, b)))
#define PACKED           __attribute__((packed))
#define NO_ASAN          __attribute__((no_sanitize("address"))) /* reads what it guards */
#define LIKELY(x)        __builtin_expect(!!(x), 1)
#define UNLIKELY(x)      __builtin_expect(!!(x), 0)

/* Marks a function that may suspend the calling coroutine: everything read from shared state
 * before the call is stale after it. A function without the mark never suspends. */
#define co_fn

#define ARRAY_SIZE(a)              (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, m) ((type *)((char *)(ptr)-offsetof(type, m)))
#define MIN(a, b)                  ((a) < (b) ? (a) : (b))
#define MAX(a, b)                  ((a) > (b) ? (a) : (b))
#define ROUND_UP(x, to)            (((x) + (to)-1) / (to) * (to))
#define ROUND_DOWN(x, to)          ((x) / (to) * (to))
#define DIV_UP(x, by)              (((x) + (by)-1) / (by))

/* Nanoseconds: a point on the runtime's monotonic clock, or a span. */
typedef int64_t nsec_t;
#define NSEC_PER_USEC ((nsec_t)1000)
#define NSEC_PER_MSEC ((nsec_t)1000000)
#define NSEC_PER_SEC  ((nsec_t)1000000000)
#define NSEC_NEVER    INT64_MAX /* no deadline */

#endif
