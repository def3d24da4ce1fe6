/* SPDX-License-Identifier: Apache-2.0
 *
 * Values of settings: numbers with units. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/conf.h"
#include "common/base/err.h"
#include "common/base/units.h"

/* Digits only: strtoull alone would take signs and blanks. */
static int digits_parse(const char *text, uint64_t *ret, const char **ret_rest)
{
    char *rest;

    if (text[0] < '0' || text[0] > '9')
        return err_set(ERR_INVAL, "'%.40s' is not a number", text);
    errno = 0;
    *ret = strtoull(text, &rest, 10);
    if (errno != 0)
        return err_set(ERR_INVAL, "'%.40s' is too large", text);
    *ret_rest = rest;
    return 0;
}

int conf_u64_parse(const char *text, uint64_t *ret)
{
    const char *rest = "";
    uint64_t value = 0;
    int rc = digits_parse(text, &value, &rest);

    if (rc < 0)
        return rc;
    if (*rest != '\0')
        return err_set(ERR_INVAL, "'%.40s' is not a number", text);
    *ret = value;
    return 0;
}

int conf_size_parse(const char *text, uint64_t *ret_bytes)
{
    static const char letters[] = "KMGT";
    const char *rest = "", *letter;
    uint64_t value = 0, bytes;
    unsigned shift = 0;
    int rc = digits_parse(text, &value, &rest);

    if (rc < 0)
        return rc;
    if (*rest != '\0' && (letter = strchr(letters, *rest & ~0x20)) != NULL && *letter != '\0') {
        shift = 10 * ((unsigned)(letter - letters) + 1);
        rest++;
        if (rest[0] == 'i' && rest[1] == 'B')
            rest++;
    }
    if (*rest == 'B')
        rest++;
    if (*rest != '\0')
        return err_set(ERR_INVAL, "'%.40s' is not a size (examples: 512, 256K, 4G)", text);
    bytes = value << shift;
    if (bytes >> shift != value)
        return err_set(ERR_INVAL, "'%.40s' is too large", text);
    *ret_bytes = bytes;
    return 0;
}

int conf_span_parse(const char *text, nsec_t *ret_span)
{
    static const struct {
        const char *unit;
        nsec_t ns;
    } units[] = {
        {"ns", 1},           {"us", NSEC_PER_USEC},    {"ms", NSEC_PER_MSEC},
        {"s", NSEC_PER_SEC}, {"m", 60 * NSEC_PER_SEC}, {"h", 3600 * NSEC_PER_SEC},
    };
    const char *rest = "";
    uint64_t value = 0;
    int rc = digits_parse(text, &value, &rest);

    if (rc < 0)
        return rc;
    if (value == 0 && *rest == '\0') {
        *ret_span = 0;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (strcmp(rest, units[i].unit) != 0)
            continue;
        if (value > (uint64_t)(INT64_MAX / units[i].ns))
            return err_set(ERR_INVAL, "'%.40s' is too large", text);
        *ret_span = (nsec_t)value * units[i].ns;
        return 0;
    }
    return err_set(ERR_INVAL, "'%.40s' is not a span of time (examples: 100ms, 30s, 5m)", text);
}

void conf_size_format(uint64_t bytes, char *dst, size_t room)
{
    static const char *const letters[] = {"", "K", "M", "G", "T"};
    size_t i = 0;

    while (bytes != 0 && bytes % KIB == 0 && i + 1 < ARRAY_SIZE(letters)) {
        bytes /= KIB;
        i++;
    }
    (void)snprintf(dst, room, "%" PRIu64 "%s", bytes, letters[i]);
}
