/* SPDX-License-Identifier: Apache-2.0
 *
 * Assertions guard invariants and stay on in production: a broken invariant stops the process
 * before it can do harm (the cluster survives the loss of any one process). Bad input is never
 * asserted on; it is an error. */
#ifndef ZBS_BASE_ASSERT_H
#define ZBS_BASE_ASSERT_H

#include "common/base/attr.h"

/* Logs the expression, place, coroutine and the recent trace records, then aborts. */
NORETURN void assert_fail(const char *expr, const char *file, int line, const char *fmt, ...)
    PRINTF_FMT(4, 5);

#define ASSERT(expr) (LIKELY(expr) ? (void)0 : assert_fail(#expr, __FILE__, __LINE__, " "))
/* With a formatted explanation. */
#define ASSERTF(expr, ...)                                                                         \
    (LIKELY(expr) ? (void)0 : assert_fail(#expr, __FILE__, __LINE__, __VA_ARGS__))

#endif
