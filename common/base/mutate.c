/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of the mutations, and the one that is active in builds that have them. */
#include "common/base/mutate.h"

#include <string.h>

#ifdef ZBS_MUTATE
enum mutation mutation_active;
#endif

static const char *const names[MUT_COUNT] = {
    [MUT_NONE] = "none",
    [MUT_LEASE_NEVER_EXPIRES] = "lease_never_expires",
    [MUT_NO_EPOCH_CHECK] = "no_epoch_check",
    [MUT_NO_EQUALISE] = "no_equalise",
    [MUT_ACK_EARLY] = "ack_early",
    [MUT_SKIP_MISSING_START] = "skip_missing_start",
    [MUT_CLEAR_WITHOUT_COPY] = "clear_without_copy",
    [MUT_NO_TERM_CHECK] = "no_term_check",
};

const char *mutation_name(enum mutation m)
{
    return m < MUT_COUNT ? names[m] : "?";
}

enum mutation mutation_by_name(const char *name)
{
    for (int m = 0; m < MUT_COUNT; m++)
        if (strcmp(names[m], name) == 0)
            return (enum mutation)m;
    return MUT_NONE;
}
