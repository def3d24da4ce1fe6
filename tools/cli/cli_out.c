/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli: tables and JSON from one JSON value. */
#include "tools/cli/cli.h"

#include <inttypes.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <string.h>

void cli_format_size(uint64_t bytes, char dst[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double v = (double)bytes;
    unsigned u = 0;

    while (v >= 1024 && u + 1 < ARRAY_SIZE(units)) {
        v /= 1024;
        u++;
    }
    if (u == 0)
        snprintf(dst, 32, "%" PRIu64 " B", bytes);
    else
        snprintf(dst, 32, "%.1f %s", v, units[u]);
}

void cli_sort(json_t *rows, const char *key)
{
    size_t n = json_array_size(rows);

    /* Insertion: these are lists of servers. */
    for (size_t i = 1; i < n; i++) {
        json_t *row = json_incref(json_array_get(rows, i));
        const char *name = json_string_value(json_object_get(row, key));
        size_t at = i;

        while (at > 0 &&
               strverscmp(json_string_value(json_object_get(json_array_get(rows, at - 1), key)),
                          name) > 0)
            at--;
        json_array_remove(rows, i);
        json_array_insert_new(rows, at, row);
    }
}

/* One value as a person reads it. */
static void format_value(const json_t *v, enum cli_format format, char *dst, size_t cap)
{
    dst[0] = 0;
    if (json_is_array(v)) {
        size_t used = 0, i;
        json_t *e;

        json_array_foreach((json_t *)v, i, e)
        {
            char one[128];

            format_value(e, format, one, sizeof(one));
            used += (size_t)snprintf(dst + used, cap - used, "%s%s", i ? "," : "", one);
            if (used >= cap)
                return;
        }
        if (i == 0)
            snprintf(dst, cap, "-");
    } else if (json_is_integer(v) && format == CLI_SIZE) {
        char size[32];

        cli_format_size((uint64_t)json_integer_value(v), size);
        snprintf(dst, cap, "%s", size);
    } else if (json_is_integer(v)) {
        snprintf(dst, cap, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    } else if (json_is_boolean(v)) {
        snprintf(dst, cap, "%s", json_is_true(v) ? "yes" : "no");
    } else if (json_is_string(v)) {
        snprintf(dst, cap, "%s", json_string_value(v)[0] ? json_string_value(v) : "-");
    } else {
        snprintf(dst, cap, "-");
    }
}

enum cli_exit cli_print_json(json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(1) | JSON_ENSURE_ASCII);
    putchar('\n');
    json_decref(value);
    return fflush(stdout) == 0 ? CLI_OK : CLI_FAILED;
}

enum cli_exit cli_done(const struct cli *c, enum cli_exit rc, struct rpc_reply *r)
{
    if (rc == CLI_OK && r)
        rpc_reply_free(r);
    return rc == CLI_OK && c->json ? cli_print_json(json_object()) : rc;
}

enum cli_exit cli_print_table(const struct cli *c, json_t *rows, const struct cli_column *columns)
{
    struct libscols_table *table;
    json_t *row;
    size_t i;

    if (c->json)
        return cli_print_json(rows);
    scols_init_debug(0);
    table = scols_new_table();
    for (const struct cli_column *k = columns; k->title; k++)
        scols_table_new_column(table, k->title, 0, k->format == CLI_SIZE ? SCOLS_FL_RIGHT : 0);
    json_array_foreach(rows, i, row)
    {
        struct libscols_line *line = scols_table_new_line(table, NULL);

        for (size_t n = 0; columns[n].title; n++) {
            char text[1024];

            format_value(json_object_get(row, columns[n].key), columns[n].format, text,
                         sizeof(text));
            scols_line_set_data(line, n, text);
        }
    }
    scols_print_table(table);
    scols_unref_table(table);
    json_decref(rows);
    return CLI_OK;
}

enum cli_exit cli_print_object(const struct cli *c, json_t *object,
                               const struct cli_column *columns)
{
    int width = 0;

    if (c->json)
        return cli_print_json(object);
    for (const struct cli_column *k = columns; k->title; k++)
        width = MAX(width, (int)strlen(k->title));
    for (const struct cli_column *k = columns; k->title; k++) {
        char text[1024];

        format_value(json_object_get(object, k->key), k->format, text, sizeof(text));
        printf("%-*s  %s\n", width, k->title, text);
    }
    json_decref(object);
    return CLI_OK;
}
