/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of snapshots in a simulated cluster: asking meta, and pieces of volumes with values. */
#ifndef ZBS_TESTS_ACCESS_VOL_SNAPSHOTS_H
#define ZBS_TESTS_ACCESS_VOL_SNAPSHOTS_H

#include "tests/unit/access/vol_world.h"

#define VOLUME (1 * GIB)
#define PIECES 24u
#define PIECE  (16 * 1024u)
#define STEP   (1 * MIB)

UNUSED static int ask_snapshot(struct vworld *w, const char *volume, const char *snapshot,
                               uint64_t *ret_id)
{
    Zbs__Meta__VolumeSnapshotRequest q = ZBS__META__VOLUME_SNAPSHOT_REQUEST__INIT;
    Zbs__Meta__VolumeName name = ZBS__META__VOLUME_NAME__INIT, *names[] = {&name};
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    name.pool = (char *)"pool";
    name.name = (char *)volume;
    q.volumes = names;
    q.n_volumes = 1;
    q.snapshot = (char *)snapshot;
    rc = meta_ask(w, META_VOLUME_SNAPSHOT, &q.base, &r);
    if (rc == 0)
        *ret_id = ((Zbs__Meta__VolumeSnapshotReply *)r.msg)->snapshots[0]->id;
    rpc_reply_free(&r);
    return rc;
}

UNUSED static uint64_t snapshot(struct vworld *w, const char *volume, const char *name)
{
    uint64_t id = 0;
    int rc = ask_snapshot(w, volume, name, &id);

    ASSERTF(rc == 0, "snapshot %s of %s: %s %s", name, volume, err_name(rc), err_text(rc));
    return id;
}

UNUSED static uint64_t clone_of(struct vworld *w, const char *from, const char *name)
{
    Zbs__Meta__VolumeCloneRequest q = ZBS__META__VOLUME_CLONE_REQUEST__INIT;
    Zbs__Meta__VolumeName origin = ZBS__META__VOLUME_NAME__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    uint64_t id;
    int rc;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    origin.pool = (char *)"pool";
    origin.name = (char *)from;
    q.snapshot = &origin;
    q.pool = (char *)"pool";
    q.name = (char *)name;
    rc = meta_ask(w, META_VOLUME_CLONE, &q.base, &r);
    ASSERTF(rc == 0, "clone of %s: %s %s", from, err_name(rc), err_text(rc));
    id = ((Zbs__Meta__Volume *)r.msg)->id;
    rpc_reply_free(&r);
    return id;
}

UNUSED static void roll_back(struct vworld *w, const char *volume, const char *name)
{
    Zbs__Meta__VolumeRollbackRequest q = ZBS__META__VOLUME_ROLLBACK_REQUEST__INIT;
    Zbs__Meta__VolumeName of = ZBS__META__VOLUME_NAME__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    of.pool = (char *)"pool";
    of.name = (char *)volume;
    q.volume = &of;
    q.snapshot = (char *)name;
    rc = meta_ask(w, META_VOLUME_ROLLBACK, &q.base, &r);
    ASSERTF(rc == 0, "rollback to %s: %s %s", name, err_name(rc), err_text(rc));
    rpc_reply_free(&r);
}

UNUSED static void remove_volume(struct vworld *w, const char *name)
{
    Zbs__Meta__VolumeDeleteRequest q = ZBS__META__VOLUME_DELETE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    q.pool = (char *)"pool";
    q.name = (char *)name;
    rc = meta_ask(w, META_VOLUME_DELETE, &q.base, &r);
    ASSERTF(rc == 0, "deletion of %s: %s %s", name, err_name(rc), err_text(rc));
    rpc_reply_free(&r);
}

UNUSED static uint64_t used_bytes(struct vworld *w)
{
    Zbs__Meta__ClusterStatusRequest q = ZBS__META__CLUSTER_STATUS_REQUEST__INIT;
    struct rpc_reply r;
    uint64_t used = UINT64_MAX;

    if (meta_ask(w, META_CLUSTER_STATUS, &q.base, &r) == 0)
        used = ((Zbs__Meta__ClusterStatusReply *)r.msg)->used_bytes;
    rpc_reply_free(&r);
    return used;
}

UNUSED static void wait_empty(struct vworld *w)
{
    nsec_t until = co_now() + SEC(20);

    while (used_bytes(w) != 0) {
        ASSERTF(co_now() < until, "%" PRIu64 " bytes are still used", used_bytes(w));
        (void)co_sleep(MSEC(100));
    }
}

UNUSED static void fill(struct vworld *w, uint32_t node, uint64_t volume, uint32_t from,
                        uint32_t to, uint64_t value)
{
    w->volume = volume;
    for (uint32_t i = from; i < to; i++) {
        int rc = do_write(w, node, i * STEP, PIECE, value + i);

        ASSERTF(rc == 0, "write of piece %u: %s %s", i, err_name(rc), err_text(rc));
    }
}

UNUSED static void expect(struct vworld *w, uint32_t node, uint64_t volume, uint32_t from,
                          uint32_t to, uint64_t value)
{
    w->volume = volume;
    for (uint32_t i = from; i < to; i++) {
        uint64_t got = do_read(w, node, i * STEP, PIECE);

        ASSERTF(got == value + i, "piece %u of volume %" PRIu64 ": %" PRIu64 ", not %" PRIu64, i,
                volume, got, value + i);
    }
}

UNUSED static void world(int (*script)(struct vworld *w), uint64_t seed, nsec_t limit)
{
    world_of(script, seed, limit, 2 * GIB);
}

#endif
