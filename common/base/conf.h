/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings: an INI text read into a struct by a table. An error names the file and line, the key
 * and what is allowed; unknown sections and keys, repeated keys and overlong lines are errors.
 *
 *     static const struct conf_key keys[] = {
 *         {.section = "journal", .key = "size", .type = CONF_SIZE, .otherwise = "4G",
 *          .offset = offsetof(struct conf, journal_bytes), .min = 256 * MIB, .max = 64 * GIB,
 *          .help = "journal of one worker"},
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
    CONF_CHOICE, /* uint32_t, index in choices */
    /* The rest: char *, mem_ memory, never NULL; min and max bound its length in bytes (max 0: a
     * default of the type), so min 0 allows it to be empty. */
    CONF_STRING,
    CONF_NAME,           /* as name.h has it */
    CONF_PATH,           /* absolute, without "." and ".." and never "/"; slashes are tidied up */
    CONF_PATH_LIST,      /* separated by commas or blanks, each once; read as "a,b" */
    CONF_ADDRESS,        /* numeric address and port that others can connect to (addr.h) */
    CONF_ADDRESS_LISTEN, /* nobody is told it, so it may be 0.0.0.0 or ::, too */
    CONF_ADDRESS_UNIX,   /* unix:/path */
    CONF_ADDRESS_LIST,   /* numeric, with a port, each once; read as "a,b" */
};

struct conf_key {
    const char *section, *key;
    enum conf_type type;
    size_t offset;              /* of the field in the settings' struct */
    const char *otherwise;      /* default, as text; NULL: the key is required */
    uint64_t min, max;          /* allowed values, both included; max 0: no upper bound */
    const char *help;           /* what it is for; a sentence or two */
    const char *const *choices; /* CONF_CHOICE: NULL-terminated */
    const char *example;        /* a value for the sample file and for messages; NULL: none */
    bool usual;                 /* most files set it: not commented out in the sample */
};

/* Fills *settings (which must be zeroed) from the text. file: for messages. On failure, ERR_INVAL
 * with a text; then nothing is left allocated in *settings. Does not suspend. */
int conf_parse(const char *file, const char *text, size_t len, const struct conf_key *keys,
               size_t key_count, void *settings) MUST_CHECK;

/* Frees the strings in *settings. */
void conf_free(const struct conf_key *keys, size_t key_count, void *settings);

/* True if the field is a char *. */
bool conf_is_text(enum conf_type type);

/* A configuration file that documents every setting: required ones with their example, the others
 * commented out with their default. intro: lines for its top, as a paragraph. mem_free it. */
char *conf_sample(const char *intro, const struct conf_key *keys, size_t key_count);

/* The same, short, for --help. */
char *conf_help(const struct conf_key *keys, size_t key_count);

/* Parsers of single values, for command lines: 0 or ERR_INVAL with a text. */
int conf_size_parse(const char *text, uint64_t *ret_bytes) MUST_CHECK;
int conf_span_parse(const char *text, nsec_t *ret_span) MUST_CHECK;
int conf_u64_parse(const char *text, uint64_t *ret) MUST_CHECK;

/* "256K", "4G", "1536": the shortest exact form that conf_size_parse reads back. */
void conf_size_format(uint64_t bytes, char *dst, size_t room);

#endif
