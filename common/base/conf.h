/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings: an INI text read into a struct by a table. An error names the file and line, the key
 * and what is allowed; unknown sections and keys, repeated keys and overlong lines are errors.
 *
 *     static const struct conf_key keys[] = {
 *         {"journal", "size", CONF_SIZE, offsetof(struct conf, journal_bytes), "4G",
 *          256 * MIB, 64 * GIB, "journal of one worker"},
 *     };
 *
 * Sizes take K, M, G, T (powers of 1024, an optional "B" or "iB" behind), spans take ns, us, ms,
 * s, m, h and need one of them unless they are 0; booleans are yes/no, true/false, on/off, 1/0. */
#ifndef ZBS_BASE_CONF_H
#define ZBS_BASE_CONF_H

#include <stdbool.h>
#include "common/base/attr.h"

enum conf_type {
    CONF_BOOL,   /* bool */
    CONF_U32,    /* uint32_t */
    CONF_U64,    /* uint64_t */
    CONF_SIZE,   /* uint64_t, bytes */
    CONF_SPAN,   /* nsec_t */
    CONF_STRING, /* char *, mem_ memory, never NULL; min and max bound its length (max 0: 255) */
    CONF_CHOICE, /* uint32_t, index in choices */
};

struct conf_key {
    const char *section, *key;
    enum conf_type type;
    size_t offset;              /* of the field in the settings' struct */
    const char *otherwise;      /* default, as text; NULL: the key is required */
    uint64_t min, max;          /* allowed values, both included; max 0: no upper bound */
    const char *help;           /* one line, for the sample file */
    const char *const *choices; /* CONF_CHOICE: NULL-terminated */
};

/* Fills *settings (which must be zeroed) from the text. file: for messages. On failure, ERR_INVAL
 * with a text; then nothing is left allocated in *settings. Does not suspend. */
int conf_parse(const char *file, const char *text, size_t len, const struct conf_key *keys,
               size_t key_count, void *settings) MUST_CHECK;

/* Frees the strings in *settings. */
void conf_free(const struct conf_key *keys, size_t key_count, void *settings);

/* Parsers of single values, for command lines: 0 or ERR_INVAL with a text. */
int conf_size_parse(const char *text, uint64_t *ret_bytes) MUST_CHECK;
int conf_span_parse(const char *text, nsec_t *ret_span) MUST_CHECK;
int conf_u64_parse(const char *text, uint64_t *ret) MUST_CHECK;

/* "256K", "4G", "1536": the shortest exact form that conf_size_parse reads back. */
void conf_size_format(uint64_t bytes, char *dst, size_t room);

#endif
