/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli disk drain | remove: emptying a disk, and taking it out. */
#include <stdio.h>

#include "proto/chunk.pb-c.h"
#include "tools/cli/cli.h"

#define DRAIN_SECONDS  30
#define REMOVE_SECONDS 60

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

/* The disk's path, or NULL with a message. */
static const char *disk_arg(struct cli *c)
{
    if (c->args[1][0] == '/')
        return c->args[1];
    (void)cli_usage_error(c, "'%s' is not the absolute path of a device on that host", c->args[1]);
    return NULL;
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
    {"disk",
     "drain",
     "CHUNK|HOST DEVICE",
     2,
     2,
     "moves what is on a disk to the chunk server's other disks, while it is used",
     {{"cancel", NULL, "ends that; the disk takes new replicas again"},
      {"copies", NULL, "also replicas that share blocks with others; each becomes a full copy"}},
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
