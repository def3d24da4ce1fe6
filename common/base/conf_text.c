/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings that are kept as text: strings, names, paths, addresses, and lists of the latter. Only
 * their form is judged here; whether something is there is found out by whoever uses them. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "common/base/addr.h"
#include "common/base/conf_text.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/base/name.h"

#define STRING_BYTES_MAX  255u
#define ADDRESS_BYTES_MAX 127u
#define LIST_BYTES_MAX    4096u

bool conf_is_text(enum conf_type type)
{
    return type >= CONF_STRING;
}

static size_t bytes_max(const struct conf_key *k)
{
    if (k->max != 0)
        return (size_t)k->max;
    switch (k->type) {
    case CONF_ADDRESS:
    case CONF_ADDRESS_LISTEN:
    case CONF_ADDRESS_UNIX:
        return ADDRESS_BYTES_MAX;
    case CONF_PATH:
    case CONF_PATH_LIST:
    case CONF_ADDRESS_LIST:
        return LIST_BYTES_MAX;
    default:
        return STRING_BYTES_MAX;
    }
}

static const char *example(const struct conf_key *k, const char *otherwise)
{
    return k->example != NULL && k->example[0] != 0 ? k->example : otherwise;
}

static int length_check(const struct conf_key *k, const char *text)
{
    size_t len = strlen(text), max = bytes_max(k);

    if (!utf8_valid(text, len))
        return err_set(ERR_INVAL, "the value is not valid UTF-8");
    if (len == 0 && k->min > 0 && k->example != NULL)
        return err_set(ERR_INVAL, "the value is empty: write for example %.100s", k->example);
    if (len < k->min || len > max)
        return err_set(ERR_INVAL, "%zu characters (allowed: %" PRIu64 " to %zu)", len, k->min, max);
    return 0;
}

/* One address or path of the right form? */
typedef int (*item_check_fn)(const struct conf_key *k, char *item);

static int listen_item_check(const struct conf_key *k, char *item)
{
    struct addr a;
    int rc = addr_parse(item, &a);

    if (rc == 0 && a.kind == ADDR_UNIX)
        rc = err_set(ERR_INVAL, "'%.80s' is no network address: write for example %.60s", item,
                     example(k, "10.0.0.1:7200"));
    return rc;
}

static int address_item_check(const struct conf_key *k, char *item)
{
    struct addr a;
    int rc = listen_item_check(k, item);

    if (rc == 0)
        rc = addr_parse(item, &a);
    if (rc < 0)
        return rc;
    if (addr_is_any(&a))
        return err_set(ERR_INVAL,
                       "'%.80s' is no address that others can connect to: write the host's own, "
                       "for example %.60s",
                       item, example(k, "10.0.0.1:7200"));
    return 0;
}

/* Of a server to connect to. */
static int peer_item_check(const struct conf_key *k, char *item)
{
    struct addr a;
    int rc = address_item_check(k, item);

    if (rc == 0)
        rc = addr_parse(item, &a);
    if (rc == 0 && a.port == 0)
        rc = err_set(ERR_INVAL, "'%.80s' has port 0: write for example %.100s", item,
                     example(k, "10.0.0.1:7200"));
    return rc;
}

static int unix_item_check(const struct conf_key *k, char *item)
{
    struct addr a = {.kind = ADDR_UNIX};

    if (strncmp(item, "unix:/", 6) != 0)
        return err_set(ERR_INVAL, "'%.80s' is no socket's path: write for example %.80s", item,
                       example(k, "unix:/run/zbs/socket"));
    return addr_parse(item, &a);
}

/* Doubled and trailing slashes go, in place. */
static int path_item_check(const struct conf_key *k, char *item)
{
    char *to = item;

    if (item[0] != '/')
        return err_set(ERR_INVAL, "'%.80s' is not an absolute path: write for example %.80s", item,
                       example(k, "/var/lib/zbs"));
    for (char *from = item, *next; *from != 0; from = next) {
        size_t len;

        while (*from == '/')
            from++;
        next = from + strcspn(from, "/");
        len = (size_t)(next - from);
        if (len == 0)
            break;
        if ((len == 1 && from[0] == '.') || (len == 2 && from[0] == '.' && from[1] == '.'))
            return err_set(ERR_INVAL, "'%.80s': write the path without . and ..", item);
        *to++ = '/';
        memmove(to, from, len);
        to += len;
    }
    *to = 0;
    for (const char *p = item; *p != 0; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7F)
            return err_set(ERR_INVAL, "the path contains a control character");
    }
    if (item[0] == 0)
        return err_set(ERR_INVAL, "'/' cannot be meant: write for example %.80s",
                       example(k, "/var/lib/zbs"));
    return 0;
}

static bool list_has(const char *list, const char *item)
{
    size_t len = strlen(item);

    for (const char *p = list; p[0] != 0; p += strcspn(p, ",")) {
        p += p[0] == ',';
        if (strncmp(p, item, len) == 0 && (p[len] == 0 || p[len] == ','))
            return true;
    }
    return false;
}

/* Rewrites a list, in place, as "a,b" once all its items are good. */
static int list_check(const struct conf_key *k, char *list, item_check_fn check)
{
    char *all = mem_strdup(list), *save = NULL, *to = list;
    int rc = 0;

    list[0] = 0;
    for (char *item = strtok_r(all, ", \t", &save); item != NULL && rc == 0;
         item = strtok_r(NULL, ", \t", &save)) {
        rc = check(k, item);
        if (rc == 0 && list_has(list, item))
            rc = err_set(ERR_INVAL, "'%.80s' is listed twice", item);
        if (rc == 0)
            to += sprintf(to, "%s%s", to == list ? "" : ",", item);
    }
    if (rc == 0 && list[0] == 0 && k->min > 0)
        rc = err_set(ERR_INVAL, "the list is empty: write for example %.100s",
                     example(k, "10.0.0.1:7200"));
    mem_free(all);
    return rc;
}

static int text_check(const struct conf_key *k, char *text)
{
    switch (k->type) {
    case CONF_NAME:
        return name_check("the name", text, bytes_max(k));
    case CONF_PATH:
        return path_item_check(k, text);
    case CONF_PATH_LIST:
        return list_check(k, text, path_item_check);
    case CONF_ADDRESS:
        return address_item_check(k, text);
    case CONF_ADDRESS_LISTEN:
        return listen_item_check(k, text);
    case CONF_ADDRESS_UNIX:
        return unix_item_check(k, text);
    case CONF_ADDRESS_LIST:
        return list_check(k, text, peer_item_check);
    default:
        return 0;
    }
}

int conf_text_set(const struct conf_key *k, const char *text, char **field)
{
    int rc = length_check(k, text);
    char *copy;

    if (rc < 0)
        return rc;
    copy = mem_strdup(text);
    if (copy[0] != 0)
        rc = text_check(k, copy);
    if (rc < 0) {
        mem_free(copy);
        return rc;
    }
    mem_free(*field);
    *field = copy;
    return 0;
}
