/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings of the whole cluster: see setting.h. */
#include "common/cluster/setting.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "common/base/err.h"
#include "common/base/units.h"

#define MINUTE 60u
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

const struct setting_def setting_defs[SETTINGS] = {
    [SETTING_BALANCE_EXTENTS] = {"balance.extents", UNIT_COUNT, 4, 0, 256,
                                 "replicas moved at once to even out disk use; 0: none"},
    [SETTING_BALANCE_THRESHOLD] = {"balance.threshold", UNIT_PERCENT, 10, 1, 100,
                                   "difference of disk use between chunk servers that is evened "
                                   "out"},
    [SETTING_GC_DELAY] = {"gc.delay", UNIT_SECONDS, HOUR, 1, 30 * DAY,
                          "how long a replica has to be unknown before it is deleted"},
    [SETTING_ISCSI_REDIRECT] = {"iscsi.redirect", UNIT_COUNT, 0, 0, 1,
                                "1: initiators are sent to the access server of their own host"},
    [SETTING_ISCSI_RETURN] = {"iscsi.return", UNIT_SECONDS, 30, 0, DAY,
                              "with iscsi.redirect: how long an initiator's own access server has "
                              "to be there again before its sessions elsewhere are asked to move "
                              "to it; 0s: never"},
    [SETTING_RECOVERY_EXTENTS] = {"recovery.extents", UNIT_COUNT, 8, 1, 64,
                                  "extents that an access server copies at once"},
    [SETTING_RECOVERY_GRACE] = {"recovery.grace", UNIT_SECONDS, 10 * MINUTE, 1, 30 * DAY,
                                "how long a chunk server may be away before its replicas are made "
                                "elsewhere"},
    [SETTING_RECOVERY_RATE] = {"recovery.rate", UNIT_BYTES_PER_SECOND, 512 * MIB, MIB, 1024 * GIB,
                               "what an access server copies at most; less while clients would "
                               "wait"},
    [SETTING_SPACE_WARN] = {"space.warn", UNIT_PERCENT, 20, 0, 90,
                            "initiators are warned when no more of the disks is free; 0%: never"},
};

static const struct suffix {
    enum setting_unit unit;
    const char *text;
    uint64_t factor;
} suffixes[] = {
    {UNIT_SECONDS, "s", 1},
    {UNIT_SECONDS, "m", MINUTE},
    {UNIT_SECONDS, "h", HOUR},
    {UNIT_SECONDS, "d", DAY},
    {UNIT_PERCENT, "%", 1},
    {UNIT_BYTES_PER_SECOND, "k", KIB},
    {UNIT_BYTES_PER_SECOND, "m", MIB},
    {UNIT_BYTES_PER_SECOND, "g", GIB},
    {UNIT_BYTES_PER_SECOND, "t", 1024 * GIB},
};

int setting_find(const char *name)
{
    for (int i = 0; i < SETTINGS; i++)
        if (strcmp(setting_defs[i].name, name) == 0)
            return i;
    return -1;
}

/* Of bytes a second: "256M", "256MiB", "256 MiB/s" are the same. */
static uint64_t suffix_factor(enum setting_unit unit, const char *text)
{
    static const char *const tails[] = {"", "/s", "b", "b/s", "ib", "ib/s"};
    size_t n_tails = unit == UNIT_BYTES_PER_SECOND ? ARRAY_SIZE(tails) : 1;

    while (*text == ' ')
        text++;
    if (*text == 0)
        return 1;
    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
        for (size_t k = 0; k < n_tails; k++) {
            char whole[16];

            snprintf(whole, sizeof(whole), "%s%s", suffixes[i].text, tails[k]);
            if (suffixes[i].unit == unit && strcasecmp(whole, text) == 0)
                return suffixes[i].factor;
        }
    return 0;
}

int setting_check(const struct setting_def *d, uint64_t value)
{
    char min[32], max[32];

    if (value >= d->min && value <= d->max)
        return 0;
    setting_format(d, d->min, min);
    setting_format(d, d->max, max);
    return err_set(ERR_INVAL, "%s is allowed from %s to %s", d->name, min, max);
}

int setting_parse(const struct setting_def *d, const char *text, uint64_t *ret)
{
    uint64_t value = 0, factor;
    const char *p = text;

    if (strcmp(text, "default") == 0) {
        *ret = d->def;
        return 0;
    }
    while (isdigit((unsigned char)*p) && value < UINT64_MAX / 16)
        value = value * 10 + (uint64_t)(*p++ - '0');
    factor = suffix_factor(d->unit, p);
    if (p == text || factor == 0 || value > UINT64_MAX / factor) {
        char example[32];

        setting_format(d, d->def, example);
        return err_set(ERR_INVAL, "'%s' is no value of %s: its default is %s", text, d->name,
                       example);
    }
    *ret = value * factor;
    return setting_check(d, *ret);
}

void setting_format(const struct setting_def *d, uint64_t value, char dst[32])
{
    const struct suffix *best = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
        if (suffixes[i].unit == d->unit && value % suffixes[i].factor == 0 &&
            value >= suffixes[i].factor)
            best = &suffixes[i];
    if (d->unit == UNIT_BYTES_PER_SECOND && best)
        snprintf(dst, 32, "%" PRIu64 " %ciB/s", value / best->factor,
                 best->factor == KIB ? 'K' : toupper((unsigned char)best->text[0]));
    else if (d->unit == UNIT_BYTES_PER_SECOND)
        snprintf(dst, 32, "%" PRIu64 " B/s", value);
    else if (best)
        snprintf(dst, 32, "%" PRIu64 "%s", value / best->factor, best->text);
    else
        snprintf(dst, 32, "%" PRIu64 "%s", value,
                 d->unit == UNIT_SECONDS   ? "s"
                 : d->unit == UNIT_PERCENT ? "%"
                                           : "");
}
