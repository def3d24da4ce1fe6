/* SPDX-License-Identifier: Apache-2.0
 *
 * What a table of settings says about itself: a commented configuration file, and help. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "common/base/conf.h"
#include "common/base/mem.h"

#define TEXT_COLUMNS 88u

struct text {
    char *bytes; /* NUL-terminated */
    size_t len, room;
};

static void text_add(struct text *t, const char *bytes, size_t len)
{
    if (t->len + len >= t->room) {
        t->room = 2 * (t->len + len) + 256;
        t->bytes = mem_realloc(t->bytes, t->room);
    }
    memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
    t->bytes[t->len] = 0;
}

static PRINTF_FMT(2, 3) void text_printf(struct text *t, const char *fmt, ...)
{
    char line[1200];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    text_add(t, line, MIN((size_t)n, sizeof(line) - 1));
}

/* Words in lines that begin with `prefix`; a newline in the words begins a new one. */
static void text_wrap(struct text *t, const char *prefix, const char *words)
{
    size_t column = 0;

    while (*words != 0) {
        size_t len = strcspn(words, " \n");

        if (column != 0 && column + 1 + len > TEXT_COLUMNS) {
            text_add(t, "\n", 1);
            column = 0;
        }
        if (column == 0) {
            text_printf(t, "%s", prefix);
            column = strlen(prefix);
        } else {
            text_add(t, " ", 1);
            column++;
        }
        text_add(t, words, len);
        column += len;
        words += len;
        if (*words == '\n') {
            text_add(t, "\n", 1);
            column = 0;
        }
        words += *words != 0;
    }
    text_add(t, "\n", 1);
}

static void span_format(uint64_t ns, char *dst, size_t room)
{
    if (ns % (uint64_t)NSEC_PER_SEC == 0)
        (void)snprintf(dst, room, "%" PRIu64 "s", ns / (uint64_t)NSEC_PER_SEC);
    else
        (void)snprintf(dst, room, "%" PRIu64 "ms", ns / (uint64_t)NSEC_PER_MSEC);
}

static void number_format(const struct conf_key *k, uint64_t value, char *dst, size_t room)
{
    if (k->type == CONF_SIZE)
        conf_size_format(value, dst, room);
    else if (k->type == CONF_SPAN)
        span_format(value, dst, room);
    else
        (void)snprintf(dst, room, "%" PRIu64, value);
}

/* What values are allowed, where the type does not say it; "" if there is nothing to say. */
static void allowed_format(const struct conf_key *k, char *dst, size_t room)
{
    char low[32], high[32];
    size_t len = 0;

    dst[0] = 0;
    if (k->type == CONF_CHOICE) {
        for (uint32_t i = 0; k->choices[i] != NULL && len < room; i++)
            len += (size_t)snprintf(dst + len, room - len, "%s%s",
                                    i > 0 ? ", " : "one of: ", k->choices[i]);
        return;
    }
    if (conf_is_text(k->type) || k->type == CONF_BOOL || k->max == 0)
        return;
    number_format(k, k->min, low, sizeof(low));
    number_format(k, k->max, high, sizeof(high));
    (void)snprintf(dst, room, "%s to %s", low, high);
}

static void sample_key(struct text *t, const struct conf_key *k)
{
    char allowed[160], help[1000];
    const char *otherwise = k->otherwise;

    allowed_format(k, allowed, sizeof(allowed));
    (void)snprintf(help, sizeof(help), "%s%s%s%s%s", k->help, allowed[0] != 0 ? " (" : "", allowed,
                   allowed[0] != 0 ? ")" : "", otherwise == NULL ? ". Required." : ".");
    text_add(t, "\n", 1);
    text_wrap(t, "# ", help);
    if (otherwise == NULL)
        text_printf(t, "%s = %s\n", k->key, k->example != NULL ? k->example : "");
    else if (otherwise[0] == 0 && k->example != NULL)
        text_printf(t, "%s%s = %s\n", k->usual ? "" : "#", k->key, k->example);
    else
        text_printf(t, "#%s = %s\n", k->key, otherwise);
}

char *conf_sample(const char *intro, const struct conf_key *keys, size_t key_count)
{
    struct text t = {0};
    const char *section = "";

    text_wrap(&t, "# ", intro);
    for (size_t i = 0; i < key_count; i++) {
        if (strcmp(section, keys[i].section) != 0)
            text_printf(&t, "\n[%s]\n", keys[i].section);
        section = keys[i].section;
        sample_key(&t, &keys[i]);
    }
    return t.bytes;
}

char *conf_help(const struct conf_key *keys, size_t key_count)
{
    struct text t = {0};

    for (size_t i = 0; i < key_count; i++) {
        const struct conf_key *k = &keys[i];
        const char *otherwise = k->otherwise;

        if (i == 0 || strcmp(k->section, keys[i - 1].section) != 0)
            text_printf(&t, "Settings of section [%s]:\n", k->section);
        text_printf(&t, "  %s (%s%s)\n", k->key,
                    otherwise == NULL      ? "required"
                    : otherwise[0] != '\0' ? "default "
                                           : "default: empty",
                    otherwise == NULL ? "" : otherwise);
        text_wrap(&t, "      ", k->help);
    }
    return t.bytes;
}
