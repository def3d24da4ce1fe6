/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests about the whole server, and waiting for what they began. */
#include "tests/lib/chunkops.h"

#include <string.h>
#include "common/co/co.h"
#include "proto/chunk.pb-c.h"
#include "tests/lib/chunk_methods.h"

int chunk_info(struct rpc_client *c, struct rpc_reply *r)
{
    Zbs__Chunk__InfoRequest req = ZBS__CHUNK__INFO_REQUEST__INIT;

    rpc_reply_init(r);
    return rpc_call(c, &zbs__chunk__chunk__descriptor, INFO, &req.base, NULL, r);
}

#define LOOK_AGAIN (20 * NSEC_PER_MSEC)

int chunk_disk_add(struct rpc_client *c, const char *path)
{
    Zbs__Chunk__DiskAddRequest req = ZBS__CHUNK__DISK_ADD_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    req.path = (char *)path;
    req.force = true;
    rpc_reply_init(&r);
    rc = rpc_call(c, &zbs__chunk__chunk__descriptor, DISK_ADD, &req.base, NULL, &r);
    rpc_reply_free(&r);
    return rc;
}

/* 0: it goes on, 1: done. */
static int drain_state(struct rpc_client *c, const char *path)
{
    struct rpc_reply r;
    int rc = chunk_info(c, &r);

    for (size_t i = 0; rc == 0 && i < ((Zbs__Chunk__InfoReply *)r.msg)->n_disks; i++) {
        const Zbs__Chunk__Disk *d = ((Zbs__Chunk__InfoReply *)r.msg)->disks[i];

        if (strcmp(d->path, path) != 0 || d->drain == 1)
            continue;
        rc =
            d->drain == 2 ? 1 : err_set(ERR_REFUSED, "the drain of %s stopped: %s", path, d->error);
    }
    rpc_reply_free(&r);
    return rc;
}

int chunk_drain(struct rpc_client *c, const char *path, const bool *stop)
{
    Zbs__Chunk__DiskDrainRequest req = ZBS__CHUNK__DISK_DRAIN_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    req.path = (char *)path;
    req.copies = true; /* children may be made meanwhile */
    rpc_reply_init(&r);
    rc = rpc_call(c, &zbs__chunk__chunk__descriptor, DISK_DRAIN, &req.base, NULL, &r);
    rpc_reply_free(&r);
    while (rc == 0 && !*stop) {
        rc = drain_state(c, path);
        if (rc == 0)
            rc = co_sleep(LOOK_AGAIN);
    }
    return MIN(rc, 0);
}

/* What is left of a round, as action says. 0: it goes on, 1: it has ended. */
static int scrub_ask(struct rpc_client *c, uint32_t action, uint64_t bytes_per_s)
{
    Zbs__Chunk__ScrubRequest req = ZBS__CHUNK__SCRUB_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    req.action = action;
    req.bytes_per_s = bytes_per_s;
    rpc_reply_init(&r);
    rc = rpc_call(c, &zbs__chunk__chunk__descriptor, SCRUB, &req.base, NULL, &r);
    if (rc == 0)
        rc = !((Zbs__Chunk__ScrubReply *)r.msg)->running;
    rpc_reply_free(&r);
    return rc;
}

int chunk_scrub(struct rpc_client *c, uint64_t bytes_per_s, const bool *stop)
{
    int rc = scrub_ask(c, 1, bytes_per_s);

    rc = MIN(rc, 0); /* the first answer may come before it runs */
    while (rc == 0 && !*stop) {
        rc = co_sleep(LOOK_AGAIN);
        if (rc == 0)
            rc = scrub_ask(c, 0, 0);
    }
    return MIN(rc, 0);
}
