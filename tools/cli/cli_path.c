/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli: volumes by the files of shares whose bytes they have. Wherever a command takes
 * POOL/VOLUME, "nfs:/SHARE/PATH" names the volume of that file, and "nfs:/SHARE/PATH@SNAPSHOT" a
 * snapshot of it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/mem.h"
#include "tools/cli/cli.h"

#define PREFIX "nfs:"

/* What it is about stands in the error slot. */
static int path_get(struct cli *c, const char *path, struct rpc_reply *r)
{
    Zbs__Meta__PathGetRequest q = ZBS__META__PATH_GET_REQUEST__INIT;

    q.path = (char *)path;
    rpc_reply_init(r);
    return meta_call(c->meta, META_PATH_GET, &q.base, true, r);
}

/* The name of that volume, with the snapshot's unless that is NULL. */
static enum cli_exit volume_name(struct cli *c, const Zbs__Meta__Inode *i, const char *path,
                                 const char *snapshot, char **ret)
{
    Zbs__Meta__VolumeGetRequest q = ZBS__META__VOLUME_GET_REQUEST__INIT;
    const Zbs__Meta__Volume *v;
    struct rpc_reply r;
    enum cli_exit rc;

    if (i->volume_id == 0) {
        fprintf(stderr,
                "zbs-cli: %s has no volume: files get one when they grow beyond 4 KiB, and nothing "
                "else does\n",
                path);
        return CLI_NOT_FOUND;
    }
    q.id = i->volume_id;
    rc = cli_meta_call(c, META_VOLUME_GET, &q.base, &r);
    if (rc)
        return rc;
    v = (const Zbs__Meta__Volume *)r.msg;
    *ret = mem_printf("%s/%s%s%s", v->pool, v->name, snapshot ? "@" : "", snapshot ? snapshot : "");
    rpc_reply_free(&r);
    return CLI_OK;
}

/* An '@' may be in the file's name, too: that comes first. */
static enum cli_exit resolve(struct cli *c, const char *arg, char **ret)
{
    char *path = mem_strdup(arg + strlen(PREFIX)), *at = strrchr(path, '@');
    const char *snapshot = NULL;
    struct rpc_reply r;
    int rc = path_get(c, path, &r);
    enum cli_exit done;

    if (rc == ERR_NOTFOUND && at) {
        rpc_reply_free(&r);
        *at = 0;
        snapshot = at + 1;
        rc = path_get(c, path, &r);
    }
    done = rc < 0 ? cli_report(rc, "no answer from a meta leader")
                  : volume_name(c, (const Zbs__Meta__Inode *)r.msg, path, snapshot, ret);
    rpc_reply_free(&r);
    mem_free(path);
    return done;
}

static enum cli_exit resolve_all(struct cli *c, const char **words, uint32_t n)
{
    enum cli_exit rc = CLI_OK;

    for (uint32_t i = 0; i < n && rc == CLI_OK; i++) {
        if (strncmp(words[i], PREFIX "/", strlen(PREFIX) + 1))
            continue;
        rc = resolve(c, words[i], &c->resolved[c->n_resolved]);
        if (rc == CLI_OK)
            words[i] = c->resolved[c->n_resolved++];
    }
    return rc;
}

enum cli_exit cli_resolve_paths(struct cli *c)
{
    enum cli_exit rc = resolve_all(c, c->args, c->n_args);

    return rc ? rc : resolve_all(c, c->option_values, c->n_options);
}
