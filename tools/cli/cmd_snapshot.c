/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli snapshot: create, list, show, delete, rollback; zbs-cli volume clone. A snapshot is named
 * POOL/VOLUME@SNAPSHOT. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/volume.h"

static const struct cli_column columns[] = {
    {"pool", "POOL", CLI_TEXT},
    {"name", "SNAPSHOT", CLI_TEXT},
    {"size_bytes", "SIZE", CLI_SIZE},
    {"extents", "EXTENTS", CLI_TEXT},
    {"extents_degraded", "DEGRADED", CLI_TEXT},
    {"created", "CREATED", CLI_TEXT},
    {0},
};

bool snapshot_parse(const char *text, char pool[CLI_NAME_ROOM], char volume[CLI_NAME_ROOM],
                    char snapshot[CLI_NAME_ROOM])
{
    char *at;

    if (!cli_parse_volume(text, pool, volume))
        return false;
    at = strchr(volume, '@');
    if (!at || at == volume || !at[1] || strchr(at + 1, '@')) {
        fprintf(stderr, "zbs-cli: '%.300s' does not name a snapshot: write POOL/VOLUME@SNAPSHOT\n",
                text);
        return false;
    }
    snprintf(snapshot, CLI_NAME_ROOM, "%s", at + 1);
    *at = 0;
    return true;
}

static enum cli_exit print_created(struct cli *c, const struct rpc_reply *r)
{
    const Zbs__Meta__VolumeSnapshotReply *m = (const Zbs__Meta__VolumeSnapshotReply *)r->msg;
    json_t *rows = json_array();

    for (size_t i = 0; i < m->n_snapshots; i++)
        json_array_append_new(rows, volume_json(m->snapshots[i]));
    return cli_print_table(c, rows, columns);
}

/* The first argument names the snapshot of one volume; others, more volumes of the same moment. */
static enum cli_exit snapshot_create(struct cli *c)
{
    Zbs__Meta__VolumeSnapshotRequest q = ZBS__META__VOLUME_SNAPSHOT_REQUEST__INIT;
    Zbs__Meta__VolumeName names[CLI_ARGS_MAX], *ptrs[CLI_ARGS_MAX];
    char pools[CLI_ARGS_MAX][CLI_NAME_ROOM], volumes[CLI_ARGS_MAX][CLI_NAME_ROOM];
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    char snapshot[CLI_NAME_ROOM];
    struct rpc_reply r;
    enum cli_exit rc;

    for (uint32_t i = 0; i < c->n_args; i++) {
        if (i == 0 ? !snapshot_parse(c->args[i], pools[i], volumes[i], snapshot)
                   : !cli_parse_volume(c->args[i], pools[i], volumes[i]))
            return CLI_USAGE;
        zbs__meta__volume_name__init(&names[i]);
        names[i].pool = pools[i];
        names[i].name = volumes[i];
        ptrs[i] = &names[i];
    }
    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.volumes = ptrs;
    q.n_volumes = c->n_args;
    q.snapshot = snapshot;
    rc = cli_meta_call(c, META_VOLUME_SNAPSHOT, &q.base, &r);
    if (rc)
        return rc;
    rc = print_created(c, &r);
    rpc_reply_free(&r);
    return rc;
}

struct listing {
    char volume[CLI_NAME_ROOM]; /* "": of all */
    json_t *rows;
};

static void list_row(void *arg, const Zbs__Meta__Volume *v)
{
    struct listing *l = arg;
    size_t len = strlen(l->volume);

    if (v->snapshot && (len == 0 || (!strncmp(v->name, l->volume, len) && v->name[len] == '@')))
        json_array_append_new(l->rows, volume_json(v));
}

static enum cli_exit snapshot_list(struct cli *c)
{
    struct listing l = {.volume = ""};
    char pool[CLI_NAME_ROOM] = "";
    enum cli_exit rc;

    if (c->n_args && strchr(c->args[0], '/')) {
        if (!cli_parse_volume(c->args[0], pool, l.volume))
            return CLI_USAGE;
    } else if (c->n_args) {
        snprintf(pool, sizeof(pool), "%s", c->args[0]);
    }
    l.rows = json_array();
    rc = volumes_each(c, pool, list_row, &l);
    if (rc == CLI_OK)
        return cli_print_table(c, l.rows, columns);
    json_decref(l.rows);
    return rc;
}

static enum cli_exit snapshot_show(struct cli *c)
{
    char pool[CLI_NAME_ROOM], volume[CLI_NAME_ROOM], snapshot[CLI_NAME_ROOM];
    struct rpc_reply r;

    if (!snapshot_parse(c->args[0], pool, volume, snapshot))
        return CLI_USAGE;
    return volume_print(c, volume_get(c, c->args[0], &r), &r);
}

static enum cli_exit snapshot_delete(struct cli *c)
{
    Zbs__Meta__VolumeDeleteRequest q = ZBS__META__VOLUME_DELETE_REQUEST__INIT;
    char pool[CLI_NAME_ROOM], volume[CLI_NAME_ROOM], snapshot[CLI_NAME_ROOM];
    struct volume_change v;
    struct rpc_reply r;

    if (!snapshot_parse(c->args[0], pool, volume, snapshot) || !volume_change_begin(c, &v))
        return CLI_USAGE;
    if (!cli_option(c, "yes"))
        return cli_usage_error(c, "deleting %s loses that state of the volume: say --yes",
                               c->args[0]);
    VOLUME_CHANGE(&q, &v);
    return cli_done(c, cli_meta_call(c, META_VOLUME_DELETE, &q.base, &r), &r);
}

static enum cli_exit snapshot_rollback(struct cli *c)
{
    Zbs__Meta__VolumeRollbackRequest q = ZBS__META__VOLUME_ROLLBACK_REQUEST__INIT;
    Zbs__Meta__VolumeName name = ZBS__META__VOLUME_NAME__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    char pool[CLI_NAME_ROOM], volume[CLI_NAME_ROOM], snapshot[CLI_NAME_ROOM];
    struct rpc_reply r;

    if (!snapshot_parse(c->args[0], pool, volume, snapshot))
        return CLI_USAGE;
    if (!cli_option(c, "yes"))
        return cli_usage_error(c, "what was written to %s/%s since %s is lost: say --yes", pool,
                               volume, snapshot);
    meta_client_mutation(c->meta, &m);
    name.pool = pool;
    name.name = volume;
    q.mutation = &m;
    q.volume = &name;
    q.snapshot = snapshot;
    return volume_print(c, cli_meta_call(c, META_VOLUME_ROLLBACK, &q.base, &r), &r);
}

enum cli_exit volume_clone(struct cli *c)
{
    Zbs__Meta__VolumeCloneRequest q = ZBS__META__VOLUME_CLONE_REQUEST__INIT;
    Zbs__Meta__VolumeName of = ZBS__META__VOLUME_NAME__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    char from_pool[CLI_NAME_ROOM], from[CLI_NAME_ROOM], snapshot[CLI_NAME_ROOM];
    char pool[CLI_NAME_ROOM], name[CLI_NAME_ROOM];
    struct rpc_reply r;

    if (!snapshot_parse(c->args[0], from_pool, from, snapshot) ||
        !cli_parse_volume(c->args[0], from_pool, from) || !cli_parse_volume(c->args[1], pool, name))
        return CLI_USAGE;
    meta_client_mutation(c->meta, &m);
    of.pool = from_pool;
    of.name = from;
    q.mutation = &m;
    q.snapshot = &of;
    q.pool = pool;
    q.name = name;
    return volume_print(c, cli_meta_call(c, META_VOLUME_CLONE, &q.base, &r), &r);
}

const struct cli_command cli_snapshot_commands[] = {
    {"snapshot",
     "create",
     "POOL/VOLUME@SNAPSHOT [POOL/VOLUME...]",
     1,
     CLI_ARGS_MAX,
     "takes a snapshot, of further volumes at the same moment",
     {{0}},
     snapshot_create},
    {"snapshot", "list", "[POOL[/VOLUME]]", 0, 1, "lists snapshots", {{0}}, snapshot_list},
    {"snapshot", "show", "POOL/VOLUME@SNAPSHOT", 1, 1, "shows one snapshot", {{0}}, snapshot_show},
    {"snapshot",
     "delete",
     "POOL/VOLUME@SNAPSHOT",
     1,
     1,
     "deletes a snapshot; its volume and clones stay",
     {{"yes", NULL, "really"}},
     snapshot_delete},
    {"snapshot",
     "rollback",
     "POOL/VOLUME@SNAPSHOT",
     1,
     1,
     "gives the volume the snapshot's content",
     {{"yes", NULL, "really: what was written since is lost"}},
     snapshot_rollback},
    {0},
};
