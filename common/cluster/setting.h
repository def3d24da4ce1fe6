/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings of the whole cluster, which are changed while it runs (`zbs-cli setting`). They are
 * kept in the replicated state of the meta servers and reach access servers with their renewals.
 * Here: which there are, their units, defaults and ranges. */
#ifndef ZBS_CLUSTER_SETTING_H
#define ZBS_CLUSTER_SETTING_H

#include <stdbool.h>
#include "common/base/attr.h"

enum setting {
    SETTING_BALANCE_EXTENTS,
    SETTING_BALANCE_THRESHOLD,
    SETTING_GC_DELAY,
    SETTING_ISCSI_REDIRECT,
    SETTING_ISCSI_RETURN,
    SETTING_RECOVERY_EXTENTS,
    SETTING_RECOVERY_GRACE,
    SETTING_RECOVERY_RATE,
    SETTING_SPACE_WARN,
    SETTINGS
};

enum setting_unit { UNIT_COUNT, UNIT_PERCENT, UNIT_SECONDS, UNIT_BYTES_PER_SECOND };

struct setting_def {
    const char *name;
    enum setting_unit unit;
    uint64_t def, min, max;
    const char *help;
};

/* In the order of their names, which is the order of enum setting. */
extern const struct setting_def setting_defs[SETTINGS];

/* -1: there is none of this name. */
int setting_find(const char *name);
/* Checks the range; ERR_INVAL with what is allowed. */
int setting_check(const struct setting_def *d, uint64_t value) MUST_CHECK;
/* "10m", "90" (seconds), "256M", "1G/s", "10%", "8", "default": to the unit of the setting, and in
 * its range. ERR_INVAL with what is allowed. */
int setting_parse(const struct setting_def *d, const char *text, uint64_t *ret) MUST_CHECK;
/* "10m", "256 MiB/s", "10%", "8" */
void setting_format(const struct setting_def *d, uint64_t value, char dst[32]);

#endif
