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
    [MUT_NO_TAIL_CHECK] = "no_tail_check",
    [MUT_NO_OPEN_MISSING] = "no_open_missing",
    [MUT_NO_RANGE_LOCK] = "no_range_lock",
    [MUT_ANY_SET_NUMBER] = "any_set_number",
    [MUT_LEAD_AT_ONCE] = "lead_at_once",
    [MUT_EXPIRE_EARLY] = "expire_early",
    [MUT_JOURNAL_VOLATILE] = "journal_volatile",
    [MUT_NO_CHECKSUM] = "no_checksum",
    [MUT_READ_UNVOUCHED] = "read_unvouched",
    [MUT_WRITE_SHARED] = "write_shared",
    [MUT_HOLD_NO_DRAIN] = "hold_no_drain",
    [MUT_NO_DRIFT_MARGIN] = "no_drift_margin",
    [MUT_NO_AUTHORITY] = "no_authority",
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
