/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli nfs share: trees of files, and who may mount them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/mem.h"
#include "tools/cli/cli.h"

#define ANONYMOUS 65534u /* as nobody is elsewhere */

static const struct cli_column columns[] = {
    {"name", "SHARE", CLI_TEXT},
    {"pool", "POOL", CLI_TEXT},
    {"inodes", "INODES", CLI_TEXT},
    {"clients", "CLIENTS", CLI_LIST},
    {0},
};
static const struct cli_column show_columns[] = {
    {"name", "share", CLI_TEXT},
    {"id", "id", CLI_TEXT},
    {"pool", "pool", CLI_TEXT},
    {"inodes", "inodes", CLI_TEXT},
    {"clients", "clients", CLI_LIST},
    {"anonymous_uid", "anonymous uid", CLI_TEXT},
    {"anonymous_gid", "anonymous gid", CLI_TEXT},
    {0},
};

/* ---- clients: NETWORK[,ro][,no_root_squash|,all_squash], as in exports(5) ---- */

static json_t *client_json(const Zbs__Meta__ShareClient *c)
{
    static const char *const squash[] = {"", ",no_root_squash", ",all_squash"};
    char text[128];

    snprintf(text, sizeof(text), "%s%s%s", c->network, c->read_only ? ",ro" : "",
             c->squash < ARRAY_SIZE(squash) ? squash[c->squash] : "");
    return json_string(text);
}

/* The network is text, up to its first comma, which is cut off. */
static bool client_parse(const struct cli *c, char *text, Zbs__Meta__ShareClient *ret)
{
    char *rest = text, *word;

    zbs__meta__share_client__init(ret);
    ret->network = strsep(&rest, ",");
    while ((word = strsep(&rest, ",")) != NULL) {
        if (!strcmp(word, "ro")) {
            ret->read_only = true;
        } else if (!strcmp(word, "no_root_squash")) {
            ret->squash = ZBS__META__SHARE_CLIENT__SQUASH__NONE;
        } else if (!strcmp(word, "all_squash")) {
            ret->squash = ZBS__META__SHARE_CLIENT__SQUASH__ALL;
        } else if (strcmp(word, "rw") && strcmp(word, "root_squash")) {
            (void)cli_usage_error(c,
                                  "'%s' is none of rw, ro, root_squash, no_root_squash, "
                                  "all_squash",
                                  word);
            return false;
        }
    }
    return true;
}

struct share_clients {
    Zbs__Meta__ShareClient list[CLI_OPTIONS_MAX], *ptrs[CLI_OPTIONS_MAX];
    char *texts[CLI_OPTIONS_MAX];
    size_t n;
};

static void clients_free(struct share_clients *s)
{
    for (size_t i = 0; i < s->n; i++)
        mem_free(s->texts[i]);
}

/* Those of the command line, if there are any: they replace the share's. */
static bool clients_parse(const struct cli *c, struct share_clients *s, Zbs__Meta__Share *share)
{
    bool ok = true;

    s->n = 0;
    for (uint32_t i = 0; i < c->n_options && ok; i++) {
        if (strcmp(c->option_names[i], "client"))
            continue;
        s->texts[s->n] = mem_strdup(c->option_values[i]);
        s->ptrs[s->n] = &s->list[s->n];
        ok = client_parse(c, s->texts[s->n], &s->list[s->n]);
        s->n++;
    }
    if (s->n > 0) {
        share->clients = s->ptrs;
        share->n_clients = s->n;
    }
    return ok;
}

/* ---- shares ---- */

static json_t *share_json(const Zbs__Meta__Share *s)
{
    json_t *clients = json_array();

    for (size_t i = 0; i < s->n_clients; i++)
        json_array_append_new(clients, client_json(s->clients[i]));
    return json_pack("{s:s,s:I,s:s,s:I,s:I,s:o,s:I,s:I}", "name", s->name, "id", (json_int_t)s->id,
                     "pool", s->pool, "root", (json_int_t)s->root, "inodes", (json_int_t)s->inodes,
                     "clients", clients, "anonymous_uid", (json_int_t)s->anonymous_uid,
                     "anonymous_gid", (json_int_t)s->anonymous_gid);
}

/* On CLI_OK *ret is in r. */
static enum cli_exit share_get(struct cli *c, const char *name, Zbs__Meta__Share **ret,
                               struct rpc_reply *r)
{
    Zbs__Meta__ShareListRequest q = ZBS__META__SHARE_LIST_REQUEST__INIT;
    const Zbs__Meta__ShareListReply *m;
    enum cli_exit rc = cli_meta_call(c, META_SHARE_LIST, &q.base, r);

    if (rc)
        return rc;
    m = (const Zbs__Meta__ShareListReply *)r->msg;
    for (size_t i = 0; i < m->n_shares; i++) {
        if (strcmp(m->shares[i]->name, name))
            continue;
        *ret = m->shares[i];
        return CLI_OK;
    }
    fprintf(stderr,
            "zbs-cli: share '%s' does not exist: 'zbs-cli nfs share list' shows those "
            "that do\n",
            name);
    rpc_reply_free(r);
    return CLI_NOT_FOUND;
}

/* ---- who the root of the tree belongs to ---- */

struct root_attrs {
    Zbs__Meta__InodeAttrs attrs;
    Zbs__Meta__InodeAttrs__U32 uid, gid, mode;
};

static bool number(const char *text, int base, char end, uint32_t *ret, char **ret_end)
{
    unsigned long long v;

    errno = 0;
    v = strtoull(text, ret_end, base);
    *ret = (uint32_t)v;
    return !errno && *ret_end != text && text[0] != '-' && v <= UINT32_MAX &&
           (**ret_end == 0 || **ret_end == end);
}

static bool root_parse(const struct cli *c, struct root_attrs *a)
{
    const char *owner = cli_option(c, "owner"), *mode = cli_option(c, "mode");
    char *end;

    zbs__meta__inode_attrs__init(&a->attrs);
    zbs__meta__inode_attrs__u32__init(&a->uid);
    a->gid = a->mode = a->uid;
    if (owner) {
        bool ok = number(owner, 10, ':', &a->uid.value, &end);

        a->gid.value = a->uid.value;
        if (ok && *end == ':')
            ok = number(end + 1, 10, 0, &a->gid.value, &end);
        if (!ok) {
            (void)cli_usage_error(c, "--owner takes UID or UID:GID, not '%s'", owner);
            return false;
        }
        a->attrs.uid = &a->uid;
        a->attrs.gid = &a->gid;
    }
    if (mode) {
        if (!number(mode, 8, 0, &a->mode.value, &end) || a->mode.value > 07777) {
            (void)cli_usage_error(c, "--mode takes an octal number like 0755, not '%s'", mode);
            return false;
        }
        a->attrs.mode = &a->mode;
    }
    return true;
}

static enum cli_exit root_set(struct cli *c, uint64_t root, struct root_attrs *a)
{
    Zbs__Meta__InodeSetRequest q = ZBS__META__INODE_SET_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    enum cli_exit rc;

    if (!a->attrs.uid && !a->attrs.mode)
        return CLI_OK;
    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.inode_id = root;
    q.attrs = &a->attrs;
    rc = cli_meta_call(c, META_INODE_SET, &q.base, &r);
    if (rc == CLI_OK)
        rpc_reply_free(&r);
    return rc;
}

/* ---- commands ---- */

/* What the options change; what they name stays theirs. */
static bool share_options(struct cli *c, struct share_clients *clients, struct root_attrs *root,
                          Zbs__Meta__Share *share)
{
    return cli_option_u32(c, "anonymous-uid", 0, UINT32_MAX, &share->anonymous_uid) &&
           cli_option_u32(c, "anonymous-gid", 0, UINT32_MAX, &share->anonymous_gid) &&
           root_parse(c, root) && clients_parse(c, clients, share);
}

static enum cli_exit share_print(struct cli *c, struct root_attrs *root, struct rpc_reply *r)
{
    const Zbs__Meta__Share *s = (const Zbs__Meta__Share *)r->msg;
    enum cli_exit rc = root_set(c, s->root, root);

    if (rc == CLI_OK)
        rc = cli_print_object(c, share_json(s), show_columns);
    rpc_reply_free(r);
    return rc;
}

static enum cli_exit share_create(struct cli *c)
{
    Zbs__Meta__ShareCreateRequest q = ZBS__META__SHARE_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    Zbs__Meta__Share share = ZBS__META__SHARE__INIT;
    struct share_clients clients;
    struct root_attrs root;
    struct rpc_reply r;
    enum cli_exit rc = CLI_USAGE;

    if (!cli_option(c, "pool"))
        return cli_usage_error(c, "a share's files are in a pool: name it with --pool");
    share.name = (char *)c->args[0];
    share.pool = (char *)cli_option(c, "pool");
    share.anonymous_uid = share.anonymous_gid = ANONYMOUS;
    clients.n = 0;
    if (share_options(c, &clients, &root, &share)) {
        meta_client_mutation(c->meta, &m);
        q.mutation = &m;
        q.share = &share;
        rc = cli_meta_call(c, META_SHARE_CREATE, &q.base, &r);
        if (rc == CLI_OK)
            rc = share_print(c, &root, &r);
        if (rc == CLI_OK && share.n_clients == 0)
            fprintf(stderr,
                    "zbs-cli: nobody may mount it yet: 'zbs-cli nfs share set %s --client "
                    "NETWORK' changes that\n",
                    c->args[0]);
    }
    clients_free(&clients);
    return rc;
}

static enum cli_exit share_set(struct cli *c)
{
    Zbs__Meta__ShareSetRequest q = ZBS__META__SHARE_SET_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct share_clients clients = {.n = 0};
    struct root_attrs root;
    struct rpc_reply now, r;
    Zbs__Meta__Share *s, change;
    enum cli_exit rc = share_get(c, c->args[0], &s, &now);

    if (rc)
        return rc;
    change = *s; /* the reply's memory stays its own */
    rc = CLI_USAGE;
    if (share_options(c, &clients, &root, &change)) {
        if (cli_option(c, "no-clients"))
            change.n_clients = 0;
        meta_client_mutation(c->meta, &m);
        q.mutation = &m;
        q.share = &change;
        rc = cli_meta_call(c, META_SHARE_SET, &q.base, &r);
        if (rc == CLI_OK)
            rc = share_print(c, &root, &r);
    }
    clients_free(&clients);
    rpc_reply_free(&now);
    return rc;
}

static enum cli_exit share_list(struct cli *c)
{
    Zbs__Meta__ShareListRequest q = ZBS__META__SHARE_LIST_REQUEST__INIT;
    const Zbs__Meta__ShareListReply *m;
    json_t *rows;
    struct rpc_reply r;
    enum cli_exit rc = cli_meta_call(c, META_SHARE_LIST, &q.base, &r);

    if (rc)
        return rc;
    m = (const Zbs__Meta__ShareListReply *)r.msg;
    rows = json_array();
    for (size_t i = 0; i < m->n_shares; i++)
        json_array_append_new(rows, share_json(m->shares[i]));
    rpc_reply_free(&r);
    return cli_print_table(c, rows, columns);
}

static enum cli_exit share_show(struct cli *c)
{
    struct rpc_reply r;
    Zbs__Meta__Share *s;
    enum cli_exit rc = share_get(c, c->args[0], &s, &r);

    if (rc)
        return rc;
    rc = cli_print_object(c, share_json(s), show_columns);
    rpc_reply_free(&r);
    return rc;
}

static enum cli_exit share_delete(struct cli *c)
{
    Zbs__Meta__ShareDeleteRequest q = ZBS__META__SHARE_DELETE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;

    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.name = (char *)c->args[0];
    return cli_done(c, cli_meta_call(c, META_SHARE_DELETE, &q.base, &r), &r);
}

#define SHARE_OPTIONS                                                                              \
    {"client", "NETWORK[,OPTION]...",                                                              \
     "who may mount it: 10.0.0.0/24, 10.0.0.7, fd00::/8 or *, the first that matches counts; ro, " \
     "no_root_squash, all_squash"},                                                                \
        {"anonymous-uid", "UID", "whom squashed users become; default: 65534"},                    \
        {"anonymous-gid", "GID", "their group; default: 65534"},                                   \
        {"owner", "UID[:GID]", "of its topmost directory; default: root's"},                       \
    {                                                                                              \
        "mode", "MODE", "of its topmost directory; default: 0755"                                  \
    }

const struct cli_command cli_share_commands[] = {
    {"nfs",
     "share create",
     "NAME",
     1,
     1,
     "creates an empty share, which clients mount as /NAME",
     {{"pool", "POOL", "where the bytes of its files are"}, SHARE_OPTIONS},
     share_create},
    {"nfs",
     "share set",
     "NAME",
     1,
     1,
     "changes what is given; clients that are given replace all there were",
     {{"no-clients", NULL, "nobody may mount it any more"}, SHARE_OPTIONS},
     share_set},
    {"nfs", "share list", "", 0, 0, "lists shares", {{0}}, share_list},
    {"nfs", "share show", "NAME", 1, 1, "prints a share", {{0}}, share_show},
    {"nfs", "share delete", "NAME", 1, 1, "deletes a share that is empty", {{0}}, share_delete},
    {0},
};
