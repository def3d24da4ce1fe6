/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings from INI text. The library splits lines; this file counts them, finds the key in the
 * table, parses the value and checks its range. The first error is kept. */
#include <ini.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/conf_text.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#define LINE_BYTES_MAX 8192

struct parser {
    const char *file;
    const char *at, *end;
    uint32_t line;
    const struct conf_key *keys;
    size_t key_count;
    uint32_t *lines; /* of each key: where it was set, 0: not yet */
    uint8_t *settings;
    int rc;
};

static bool bounded_above(const struct conf_key *k)
{
    return k->max != 0;
}

/* "(256M to 64G)" with the unit that the key takes. */
static void range_describe(const struct conf_key *k, char *dst, size_t room)
{
    char low[48], high[48];

    if (k->type == CONF_SIZE) {
        conf_size_format(k->min, low, sizeof(low));
        conf_size_format(k->max, high, sizeof(high));
    } else {
        bool span = k->type == CONF_SPAN;

        (void)snprintf(low, sizeof(low), "%" PRIu64 "%s", span ? k->min / 1000000 : k->min,
                       span ? "ms" : "");
        (void)snprintf(high, sizeof(high), "%" PRIu64 "%s", span ? k->max / 1000000 : k->max,
                       span ? "ms" : "");
    }
    if (bounded_above(k))
        (void)snprintf(dst, room, "%s to %s", low, high);
    else
        (void)snprintf(dst, room, "at least %s", low);
}

static int range_check(const struct conf_key *k, uint64_t value, const char *text)
{
    char range[128];

    if (value >= k->min && (!bounded_above(k) || value <= k->max))
        return 0;
    range_describe(k, range, sizeof(range));
    return err_set(ERR_INVAL, "%.40s is out of range (allowed: %s)", text, range);
}

static int bool_parse(const char *text, bool *ret)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (strcmp(text, words[i]) == 0) {
            *ret = i % 2 == 1;
            return 0;
        }
    }
    return err_set(ERR_INVAL, "'%.40s' is neither yes nor no", text);
}

static int choice_parse(const struct conf_key *k, const char *text, uint32_t *ret)
{
    char allowed[160] = "";

    for (uint32_t i = 0; k->choices[i] != NULL; i++) {
        size_t len = strlen(allowed);

        if (strcmp(text, k->choices[i]) == 0) {
            *ret = i;
            return 0;
        }
        (void)snprintf(allowed + len, sizeof(allowed) - len, "%s%s", i > 0 ? ", " : "",
                       k->choices[i]);
    }
    return err_set(ERR_INVAL, "'%.40s' is not one of: %s", text, allowed);
}

static int number_parse(const struct conf_key *k, const char *text, uint64_t *ret)
{
    nsec_t span = 0;
    int rc;

    switch (k->type) {
    case CONF_SIZE:
        rc = conf_size_parse(text, ret);
        break;
    case CONF_SPAN:
        rc = conf_span_parse(text, &span);
        *ret = (uint64_t)span;
        break;
    default:
        rc = conf_u64_parse(text, ret);
        break;
    }
    if (rc == 0 && k->type == CONF_U32 && *ret > UINT32_MAX)
        rc = err_set(ERR_INVAL, "'%.40s' is too large", text);
    return rc < 0 ? rc : range_check(k, *ret, text);
}

static int value_set(const struct conf_key *k, const char *text, uint8_t *settings)
{
    void *field = settings + k->offset;
    uint64_t number = 0;
    int rc;

    switch (k->type) {
    case CONF_BOOL:
        return bool_parse(text, field);
    case CONF_CHOICE:
        return choice_parse(k, text, field);
    default:
        break;
    }
    if (conf_is_text(k->type))
        return conf_text_set(k, text, field);
    rc = number_parse(k, text, &number);
    if (rc < 0)
        return rc;
    if (k->type == CONF_U32)
        *(uint32_t *)field = (uint32_t)number;
    else if (k->type == CONF_SPAN)
        *(nsec_t *)field = (nsec_t)number;
    else
        *(uint64_t *)field = number;
    return 0;
}

static int handle(void *user, const char *section, const char *name, const char *value)
{
    struct parser *p = user;
    bool section_known = false;

    if (p->rc < 0)
        return 0;
    for (size_t i = 0; i < p->key_count; i++) {
        const struct conf_key *k = &p->keys[i];

        if (strcmp(k->section, section) != 0)
            continue;
        section_known = true;
        if (strcmp(k->key, name) != 0)
            continue;
        if (p->lines[i] != 0) {
            p->rc = err_set(ERR_INVAL, "%s:%u: [%s] %s was set in line %u already", p->file,
                            p->line, section, name, p->lines[i]);
            return 0;
        }
        p->lines[i] = p->line;
        p->rc = value_set(k, value, p->settings);
        if (p->rc < 0)
            (void)err_prefix(p->rc, "%s:%u: [%s] %s", p->file, p->line, section, name);
        return p->rc == 0;
    }
    if (section_known)
        p->rc =
            err_set(ERR_INVAL, "%s:%u: unknown key [%s] %.60s", p->file, p->line, section, name);
    else
        p->rc = err_set(ERR_INVAL, "%s:%u: unknown section [%.60s]", p->file, p->line, section);
    return 0;
}

/* Hands the library one line at a time, as fgets would. */
static char *read_line(char *dst, int room, void *user)
{
    struct parser *p = user;
    const char *newline;
    size_t len;

    if (p->rc < 0 || p->at == p->end)
        return NULL;
    p->line++;
    newline = memchr(p->at, '\n', (size_t)(p->end - p->at));
    len = (size_t)((newline != NULL ? newline + 1 : p->end) - p->at);
    if (len >= (size_t)room) {
        p->rc = err_set(ERR_INVAL, "%s:%u: the line is longer than %d bytes", p->file, p->line,
                        room - 2);
        return NULL;
    }
    if (memchr(p->at, '\0', len) != NULL) {
        p->rc = err_set(ERR_INVAL, "%s:%u: the line contains a NUL byte", p->file, p->line);
        return NULL;
    }
    memcpy(dst, p->at, len);
    dst[len] = '\0';
    p->at += len;
    return dst;
}

static int parse_text(struct parser *p)
{
    int line;

    ini_allow_multiline = false; /* an indented line would repeat the key before it */
    ini_allow_inline_comments = true;
    ini_use_stack = false; /* a line may be longer than a coroutine wants on its stack */
    ini_max_line = ini_initial_alloc = LINE_BYTES_MAX;
    ini_stop_on_first_error = true;
    line = ini_parse_stream(read_line, p, handle, p);
    if (p->rc == 0 && line != 0)
        p->rc = err_set(ERR_INVAL, "%s:%u: neither [section] nor key = value", p->file,
                        line > 0 ? (uint32_t)line : p->line);
    return p->rc;
}

static int defaults_set(struct parser *p)
{
    for (size_t i = 0; i < p->key_count; i++) {
        const struct conf_key *k = &p->keys[i];

        if (p->lines[i] != 0)
            continue;
        if (k->otherwise == NULL)
            return err_set(ERR_INVAL, "%s: [%s] %s is required%s%s (%.90s)", p->file, k->section,
                           k->key, k->example != NULL ? ", for example " : "",
                           k->example != NULL ? k->example : "", k->help);
        if (value_set(k, k->otherwise, p->settings) < 0)
            assert_fail("default", __FILE__, __LINE__, "[%s] %s = %s: %s", k->section, k->key,
                        k->otherwise, err_text(ERR_INVAL));
    }
    return 0;
}

int conf_parse(const char *file, const char *text, size_t len, const struct conf_key *keys,
               size_t key_count, void *settings)
{
    struct parser p = {
        .file = file,
        .at = text,
        .end = text + len,
        .keys = keys,
        .key_count = key_count,
        .lines = MEM_NEW_ARRAY(uint32_t, key_count),
        .settings = settings,
    };
    int rc = parse_text(&p);

    if (rc == 0)
        rc = defaults_set(&p);
    mem_free(p.lines);
    if (rc < 0)
        conf_free(keys, key_count, settings);
    return rc;
}

void conf_free(const struct conf_key *keys, size_t key_count, void *settings)
{
    for (size_t i = 0; i < key_count; i++) {
        if (conf_is_text(keys[i].type)) {
            char **field = (char **)((uint8_t *)settings + keys[i].offset);

            mem_free(*field);
            *field = NULL;
        }
    }
}
