/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli nfs: what is in shares, and who has locks there. Shares: cmd_share.c. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/base/limits.h"
#include "tools/cli/cli.h"

static const struct cli_column ls_columns[] = {
    {"mode", "MODE", CLI_TEXT},
    {"links", "LINKS", CLI_TEXT},
    {"uid", "UID", CLI_TEXT},
    {"gid", "GID", CLI_TEXT},
    {"size", "SIZE", CLI_SIZE},
    {"modified", "MODIFIED", CLI_TEXT},
    {"volume", "VOLUME", CLI_TEXT},
    {"name", "NAME", CLI_TEXT},
    {0},
};
static const struct cli_column lock_columns[] = {
    {"client", "CLIENT", CLI_TEXT},
    {"process", "PROCESS", CLI_TEXT},
    {"inode", "INODE", CLI_TEXT},
    {"kind", "KIND", CLI_TEXT},
    {"from", "FROM", CLI_TEXT},
    {"to", "TO", CLI_TEXT},
    {0},
};

/* "drwxr-xr-x" */
static void mode_text(const Zbs__Meta__Inode *i, char dst[11])
{
    static const char types[] = "?-dbclsp", bits[] = "rwxrwxrwx";

    dst[0] = i->type < sizeof(types) - 1 ? types[i->type] : '?';
    for (int b = 0; b < 9; b++)
        dst[1 + b] = i->mode >> (8 - b) & 1 ? bits[b] : '-';
    if (i->mode & 04000)
        dst[3] = dst[3] == 'x' ? 's' : 'S';
    if (i->mode & 02000)
        dst[6] = dst[6] == 'x' ? 's' : 'S';
    if (i->mode & 01000)
        dst[9] = dst[9] == 'x' ? 't' : 'T';
    dst[10] = 0;
}

static json_t *inode_json(const Zbs__Meta__Inode *i, const char *name)
{
    time_t modified = (time_t)(i->mtime_ns / NSEC_PER_SEC);
    char mode[11], when[32] = "";
    json_t *o;
    struct tm tm;

    mode_text(i, mode);
    if (gmtime_r(&modified, &tm) != NULL)
        (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
    o = json_pack("{s:I,s:s,s:i,s:I,s:I,s:I,s:s}", "inode", (json_int_t)i->id, "mode", mode,
                  "links", (int)i->nlink, "uid", (json_int_t)i->uid, "gid", (json_int_t)i->gid,
                  "size", (json_int_t)i->size, "modified", when);
    /* names are bytes, and JSON has none */
    json_object_set_new(o, "name", json_string(name) ?: json_string("(not UTF-8)"));
    if (i->volume_id != 0)
        json_object_set_new(o, "volume", json_integer((json_int_t)i->volume_id));
    return o;
}

/* Adds its entries; false: a call failed, and was reported. */
static enum cli_exit list_dir(struct cli *c, uint64_t dir_id, json_t *rows)
{
    Zbs__Meta__DirListRequest q = ZBS__META__DIR_LIST_REQUEST__INIT;
    bool end = false;

    q.dir_id = dir_id;
    q.max_entries = DIR_LIST_MAX;
    q.with_inodes = true;
    while (!end) {
        const Zbs__Meta__DirListReply *m;
        struct rpc_reply r;
        enum cli_exit rc = cli_meta_call(c, META_DIR_LIST, &q.base, &r);

        if (rc)
            return rc;
        m = (const Zbs__Meta__DirListReply *)r.msg;
        for (size_t i = 0; i < m->n_entries; i++) {
            json_array_append_new(rows, inode_json(m->entries[i]->inode, m->entries[i]->name));
            q.after = m->entries[i]->cookie;
        }
        end = m->end || m->n_entries == 0;
        rpc_reply_free(&r);
    }
    return CLI_OK;
}

static enum cli_exit nfs_ls(struct cli *c)
{
    Zbs__Meta__PathGetRequest q = ZBS__META__PATH_GET_REQUEST__INIT;
    const Zbs__Meta__Inode *i;
    json_t *rows = json_array();
    struct rpc_reply r;
    enum cli_exit rc;

    q.path = (char *)c->args[0];
    rc = cli_meta_call(c, META_PATH_GET, &q.base, &r);
    if (rc == CLI_OK) {
        i = (const Zbs__Meta__Inode *)r.msg;
        if (i->type == ZBS__META__INODE_TYPE__INODE_DIR)
            rc = list_dir(c, i->id, rows);
        else
            json_array_append_new(rows, inode_json(i, c->args[0]));
        rpc_reply_free(&r);
    }
    if (rc == CLI_OK)
        return cli_print_table(c, rows, ls_columns);
    json_decref(rows);
    return rc;
}

/* ---- locks ---- */

static enum cli_exit locks_clear(struct cli *c, const char *client)
{
    Zbs__Meta__LockForgetRequest q = ZBS__META__LOCK_FORGET_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;

    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.client = (char *)client;
    return cli_done(c, cli_meta_call(c, META_LOCK_FORGET, &q.base, &r), &r);
}

static json_t *lock_json(const Zbs__Meta__Lock *l)
{
    json_t *o = json_pack("{s:s,s:I,s:I,s:s,s:I}", "client", l->client, "process",
                          (json_int_t)l->svid, "inode", (json_int_t)l->inode_id, "kind",
                          l->exclusive ? "exclusive" : "shared", "from", (json_int_t)l->offset);

    if (l->length != 0)
        json_object_set_new(o, "to", json_integer((json_int_t)l->offset + (json_int_t)l->length));
    else
        json_object_set_new(o, "to", json_string("end"));
    return o;
}

static enum cli_exit nfs_locks(struct cli *c)
{
    Zbs__Meta__LockListRequest q = ZBS__META__LOCK_LIST_REQUEST__INIT;
    const Zbs__Meta__LockListReply *m;
    struct rpc_reply r;
    enum cli_exit rc;
    json_t *rows;

    if (cli_option(c, "clear"))
        return locks_clear(c, cli_option(c, "clear"));
    rc = cli_meta_call(c, META_LOCK_LIST, &q.base, &r);
    if (rc)
        return rc;
    m = (const Zbs__Meta__LockListReply *)r.msg;
    rows = json_array();
    for (size_t i = 0; i < m->n_locks; i++)
        json_array_append_new(rows, lock_json(m->locks[i]));
    rpc_reply_free(&r);
    return cli_print_table(c, rows, lock_columns);
}

const struct cli_command cli_nfs_commands[] = {
    {"nfs", "ls", "/SHARE/PATH", 1, 1, "lists a directory of a share", {{0}}, nfs_ls},
    {"nfs",
     "clients",
     "",
     0,
     0,
     "lists who is connected to the access servers",
     {{0}},
     cli_nfs_clients},
    {"nfs",
     "locks",
     "",
     0,
     0,
     "lists the locks that clients have",
     {{"clear", "CLIENT", "takes all locks from a client that is gone for good"}},
     nfs_locks},
    {0},
};
