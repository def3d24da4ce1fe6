/* SPDX-License-Identifier: Apache-2.0
 *
 * Limits of volumes and pools, as options and as output. */
#ifndef ZBS_TOOLS_CLI_LIMITS_H
#define ZBS_TOOLS_CLI_LIMITS_H

#include "tools/cli/cli.h"

#define LIMIT_OPTIONS                                                                              \
    {"iops", "N", "I/Os per second of front ends; 0: no limit"},                                   \
        {"iops-burst", "N", "I/Os at once after a pause"},                                         \
        {"bandwidth", "SIZE", "bytes per second; 0: no limit"},                                    \
    {                                                                                              \
        "bandwidth-burst", "SIZE", "bytes at once after a pause"                                   \
    }
#define LIMIT_COLUMNS                                                                              \
    {"iops", "iops limit", CLI_TEXT}, {"iops_burst", "iops burst", CLI_TEXT},                      \
        {"bandwidth", "bandwidth limit", CLI_SIZE},                                                \
    {                                                                                              \
        "bandwidth_burst", "bandwidth burst", CLI_SIZE                                             \
    }

/* What the options ask for; what is not named stays. */
struct limits_change {
    Zbs__Meta__LimitsChange msg;
    Zbs__Meta__Value values[4];
};
/* Prints and returns false if an option is wrong. */
bool limits_options(struct cli *c, struct limits_change *ret);
/* Adds the columns' fields; NULL: no limits. */
void limits_json(json_t *to, const Zbs__Meta__Limits *l);

#endif
