/* SPDX-License-Identifier: Apache-2.0
 *
 * Is the history of one register linearizable? By search, for any operations: values may repeat
 * (zeroes), comparisons may depend on them, and outcomes may be unknown. It walks through the calls
 * and returns in their order and keeps every state that the register may be in: its value, and
 * which of the open operations have taken effect. A return removes the states in which that
 * operation has not; when none is left, the history is impossible. */
#ifndef ZBS_TESTS_SIM_SEARCH_H
#define ZBS_TESTS_SIM_SEARCH_H

#include <stdint.h>

#define SEARCH_NEVER UINT64_MAX

enum search_kind {
    SEARCH_READ,  /* saw `value` */
    SEARCH_WRITE, /* of `value` */
    SEARCH_SWAP,  /* saw `old`, then wrote `value` */
    SEARCH_AGAIN, /* wrote `value`, perhaps several times, until it returned */
};

struct search_op {
    enum search_kind kind;
    uint64_t old, value;
    uint64_t call,
        ret; /* ret SEARCH_NEVER: from call on it may take effect at any time, or never */
};

/* The index of the operation whose return is impossible (its text in `why`), -1 if there is none,
 * -2 if it is not decided: too many operations are open at once. The register begins with 0. */
int64_t search_check(const struct search_op *ops, uint64_t count, char *why, uint32_t room);

#endif
