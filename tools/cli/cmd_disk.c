/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli disk list | add | drain | remove. */
#include <stdio.h>
#include <string.h>

#include "proto/chunk.pb-c.h"
#include "tools/cli/cli.h"

#define ADD_SECONDS    120 /* its journals are written once */
#define DRAIN_SECONDS  30
#define REMOVE_SECONDS 60

static const struct cli_column disk_columns[] = {
    {"chunk", "CHUNK", CLI_TEXT},
    {"host", "HOST", CLI_TEXT},
    {"path", "DISK", CLI_TEXT},
    {"state", "STATE", CLI_TEXT},
    {"extents", "EXTENTS", CLI_TEXT},
    {"used_bytes", "USED", CLI_SIZE},
    {"reserved_bytes", "RESERVED", CLI_SIZE},
    {"size_bytes", "SIZE", CLI_SIZE},
    {"journal", "JOURNAL", CLI_TEXT},
    {"model", "MODEL", CLI_TEXT},
    {"error", "ERROR", CLI_TEXT},
    {0},
};
static const struct cli_column drain_columns[] = {
    {"path", "disk", CLI_TEXT},
    {"extents", "replicas to move", CLI_TEXT},
    {"used_bytes", "used", CLI_SIZE},
    {0},
};
static const struct cli_column remove_columns[] = {
    {"path", "disk", CLI_TEXT},
    {"configured", "still in the configuration", CLI_BOOL},
    {0},
};

static const char *disk_state(const Zbs__Chunk__Disk *d)
{
    static const char *const names[] = {"healthy", "failing", "failed"};
    static const char *const drains[] = {"healthy", "draining", "drained", "drain stopped"};

    if (d->state == 3 && d->drain < ARRAY_SIZE(drains))
        return drains[d->drain];
    return d->state < ARRAY_SIZE(names) ? names[d->state] : "unknown";
}

static json_t *disk_json(const Zbs__Chunk__Disk *d, uint32_t chunk, const char *host)
{
    return json_pack("{s:i,s:s,s:s,s:I,s:I,s:I,s:I,s:s,s:s,s:s,s:s}", "chunk", (int)chunk, "host",
                     host, "path", d->path, "size_bytes", (json_int_t)d->size_bytes, "used_bytes",
                     (json_int_t)d->used_bytes, "reserved_bytes", (json_int_t)d->reserved_bytes,
                     "extents", (json_int_t)d->extents, "state", disk_state(d), "journal",
                     d->journal_on[0] != 0 ? d->journal_on : d->path, "model", d->model, "error",
                     d->error);
}

static enum cli_exit list(struct cli *c)
{
    struct rpc_reply r;
    enum cli_exit rc = cli_cluster_status(c, &r);
    const Zbs__Meta__ClusterStatusReply *s;
    const Zbs__Meta__ChunkView *v;
    json_t *rows;

    if (rc)
        return rc;
    s = (const Zbs__Meta__ClusterStatusReply *)r.msg;
    rows = json_array();
    for (size_t i = 0; i < s->n_chunks; i++) {
        v = s->chunks[i]->view;
        for (size_t d = 0; d < s->chunks[i]->n_disks; d++)
            json_array_append_new(rows, disk_json(s->chunks[i]->disks[d], v->chunk_id, v->host));
    }
    rpc_reply_free(&r);
    return cli_print_table(c, rows, disk_columns);
}

/* The disk's path, or NULL with a message. */
static const char *disk_arg(struct cli *c)
{
    if (c->args[1][0] == '/')
        return c->args[1];
    (void)cli_usage_error(c, "'%s' is not the absolute path of a device on that host", c->args[1]);
    return NULL;
}

static bool has_disk(const Zbs__Meta__ClusterStatusReply *s, uint32_t chunk, const char *path)
{
    for (size_t i = 0; i < s->n_chunks; i++)
        for (size_t d = 0; d < s->chunks[i]->n_disks; d++)
            if (s->chunks[i]->view->chunk_id == chunk &&
                !strcmp(s->chunks[i]->disks[d]->path, path))
                return true;
    return false;
}

/* The leader learns of it with the chunk server's next heartbeat: whoever asks next shall see it.
 */
static void await_disk(struct cli *c, uint32_t chunk, const char *path)
{
    bool known = false;

    for (int i = 0; i < 50 && !known; i++) {
        struct rpc_reply r;

        if (cli_cluster_status(c, &r))
            return;
        known = has_disk((const Zbs__Meta__ClusterStatusReply *)r.msg, chunk, path);
        rpc_reply_free(&r);
        if (!known)
            (void)co_sleep(100 * NSEC_PER_MSEC);
    }
}

static enum cli_exit add(struct cli *c)
{
    Zbs__Chunk__DiskAddRequest q = ZBS__CHUNK__DISK_ADD_REQUEST__INIT;
    struct cli_chunk chunk;
    struct rpc_reply reply;
    enum cli_exit rc;
    json_t *rows;
    int err;

    q.path = (char *)disk_arg(c);
    if (!q.path)
        return CLI_USAGE;
    q.force = cli_option(c, "force") != NULL;
    if (!cli_option_u32(c, "guest-rings", 1, 64, &q.guest_rings))
        return CLI_USAGE;
    if (cli_option(c, "journal-on"))
        q.journal_on = (char *)cli_option(c, "journal-on");
    rc = cli_chunk_find(c, c->args[0], &chunk);
    if (rc)
        return rc;
    err = cli_chunk_try(&chunk, "DiskAdd", &q.base, ADD_SECONDS, &reply);
    if (err == 0) {
        rows = json_array();
        json_array_append_new(
            rows, disk_json(((Zbs__Chunk__DiskAddReply *)reply.msg)->disk, chunk.id, chunk.host));
        await_disk(c, chunk.id, q.path);
        rc = cli_print_table(c, rows, disk_columns);
    } else if (err == ERR_EXISTS && !q.force) {
        fprintf(stderr, "zbs-cli: %s; --force formats it nevertheless, and what it holds is lost\n",
                err_text(err));
        rc = CLI_FAILED;
    } else {
        rc = cli_report(err, chunk.addr);
    }
    rpc_reply_free(&reply);
    return rc;
}

static enum cli_exit drain(struct cli *c)
{
    Zbs__Chunk__DiskDrainRequest q = ZBS__CHUNK__DISK_DRAIN_REQUEST__INIT;
    const Zbs__Chunk__Disk *d;
    struct rpc_reply reply;
    enum cli_exit rc;

    q.path = (char *)disk_arg(c);
    if (!q.path)
        return CLI_USAGE;
    q.cancel = cli_option(c, "cancel") != NULL;
    q.copies = cli_option(c, "copies") != NULL;
    rc = cli_chunk_call(c, c->args[0], "DiskDrain", &q.base, DRAIN_SECONDS, NULL, &reply);
    if (rc)
        return rc;
    d = ((const Zbs__Chunk__DiskDrainReply *)reply.msg)->disk;
    if (d)
        rc = cli_print_object(c,
                              json_pack("{s:s,s:I,s:I}", "path", d->path, "extents",
                                        (json_int_t)d->extents, "used_bytes",
                                        (json_int_t)d->used_bytes),
                              drain_columns);
    if (!rc && !q.cancel)
        fprintf(stderr, "zbs-cli: 'zbs-cli disk list' shows how far it is; a disk that is drained "
                        "can be removed\n");
    rpc_reply_free(&reply);
    return rc;
}

static enum cli_exit disk_remove(struct cli *c)
{
    Zbs__Chunk__DiskRemoveRequest q = ZBS__CHUNK__DISK_REMOVE_REQUEST__INIT;
    struct rpc_reply reply;
    enum cli_exit rc;
    bool configured;

    q.path = (char *)disk_arg(c);
    if (!q.path)
        return CLI_USAGE;
    q.force = cli_option(c, "force") != NULL;
    rc = cli_chunk_call(c, c->args[0], "DiskRemove", &q.base, REMOVE_SECONDS, NULL, &reply);
    if (rc)
        return rc;
    configured = ((const Zbs__Chunk__DiskRemoveReply *)reply.msg)->configured;
    rc = cli_print_object(c, json_pack("{s:s,s:b}", "path", q.path, "configured", configured),
                          remove_columns);
    if (configured)
        fprintf(stderr, "zbs-cli: take it out of 'disks' in that chunk server's configuration, or "
                        "it is reported as failed after the next restart\n");
    rpc_reply_free(&reply);
    return rc;
}

const struct cli_command cli_disk_commands[] = {
    {"disk", "list", "", 0, 0, "lists disks of all chunk servers", {{0}}, list},
    {"disk",
     "add",
     "CHUNK|HOST DEVICE",
     2,
     2,
     "formats a device and takes it into service; refuses one that carries data",
     {{"force", NULL, "also if it carries data, which is lost"},
      {"guest-rings", "N", "it gets room for the journals of so many other, slower disks"},
      {"journal-on", "DEVICE", "its journals go to this disk of the server, a faster one"}},
     add},
    {"disk",
     "drain",
     "CHUNK|HOST DEVICE",
     2,
     2,
     "moves what is on a disk to the chunk server's other disks, while it is used",
     {{"cancel", NULL, "ends that; the disk takes new replicas again"},
      {"copies", NULL,
       "also replicas that share blocks with others where no disk has room for all of those; each "
       "becomes a full copy"}},
     drain},
    {"disk",
     "remove",
     "CHUNK|HOST DEVICE",
     2,
     2,
     "takes a disk out of service that holds nothing, and wipes its superblock",
     {{"force", NULL, "also one that has failed: the replicas on it are given up"}},
     disk_remove},
    {0},
};
