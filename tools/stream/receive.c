/* SPDX-License-Identifier: Apache-2.0
 *
 * Receiving a snapshot. The volume is reserved for the import by meta, so that nobody sees or makes
 * a half state, until its snapshot is taken; that is done only after the whole stream was checked
 * and every write is durable. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/crc32c.h"
#include "common/base/mem.h"
#include "common/base/units.h"
#include "common/co/sync.h"
#include "tools/stream/cluster.h"

struct receiver {
    struct stream_cluster *c;
    const struct stream_io *io;
    struct stream *in;
    struct stream_name to;
    uint64_t volume_id, importing;
    struct co_sem room; /* writes in flight */
    struct co_group writes;
    int failed; /* the first error, with its text */
    char text[256];
};

/* ---- the volume ---- */

/* The target's snapshot with which an incremental stream begins. */
static int base_find(struct receiver *rx, char ret[STREAM_NAME_ROOM])
{
    Zbs__Meta__VolumeListRequest q = ZBS__META__VOLUME_LIST_REQUEST__INIT;
    char after[2 * STREAM_NAME_ROOM]; /* its snapshots come behind the volume */
    size_t len = strlen(rx->to.volume);
    bool more = true;

    ret[0] = 0;
    snprintf(after, sizeof(after), "%s", rx->to.volume);
    q.pool = (char *)rx->to.pool;
    q.after_pool = (char *)rx->to.pool;
    q.after_name = after;
    while (more && !ret[0]) {
        const Zbs__Meta__VolumeListReply *m;
        struct rpc_reply r;
        int rc = stream_meta(rx->c, META_VOLUME_LIST, &q.base, &r);

        if (rc < 0)
            return rc;
        m = (const Zbs__Meta__VolumeListReply *)r.msg;
        for (size_t i = 0; i < m->n_volumes; i++) {
            const Zbs__Meta__Volume *v = m->volumes[i];

            if (v->snapshot && !strncmp(v->name, rx->to.volume, len) && v->name[len] == '@' &&
                v->content.len == STREAM_ID_BYTES &&
                !memcmp(v->content.data, rx->in->header.base, STREAM_ID_BYTES))
                snprintf(ret, STREAM_NAME_ROOM, "%s", v->name + len + 1);
            snprintf(after, sizeof(after), "%s", v->name);
        }
        more = m->more && m->n_volumes > 0;
        rpc_reply_free(&r);
    }
    return ret[0] ? 0
                  : err_set(ERR_STALE,
                            "volume '%s/%s' has no snapshot with which the stream begins: it is "
                            "the difference from an older snapshot, which has to be imported first",
                            rx->to.pool, rx->to.volume);
}

static void volume_take(struct receiver *rx, const Zbs__Meta__Volume *v)
{
    rx->volume_id = v->id;
    rx->importing = v->importing;
}

static int volume_resize(struct receiver *rx)
{
    Zbs__Meta__VolumeResizeRequest q = ZBS__META__VOLUME_RESIZE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(rx->c->meta, &m);
    q.mutation = &m;
    q.pool = (char *)rx->to.pool;
    q.name = (char *)rx->to.volume;
    q.size_bytes = rx->in->header.size_bytes;
    q.discard = true;
    rc = stream_meta(rx->c, META_VOLUME_RESIZE, &q.base, &r);
    if (rc == 0)
        rpc_reply_free(&r);
    return rc;
}

/* The volume becomes its base again, if it was not, and is reserved. */
static int volume_continue(struct receiver *rx)
{
    Zbs__Meta__VolumeRollbackRequest q = ZBS__META__VOLUME_ROLLBACK_REQUEST__INIT;
    Zbs__Meta__VolumeName name = ZBS__META__VOLUME_NAME__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    char base[STREAM_NAME_ROOM];
    bool resize = false;
    struct rpc_reply r;
    int rc = base_find(rx, base);

    if (rc < 0)
        return rc;
    meta_client_mutation(rx->c->meta, &m);
    name.pool = (char *)rx->to.pool;
    name.name = (char *)rx->to.volume;
    q.mutation = &m;
    q.volume = &name;
    q.snapshot = base;
    q.import_content = (ProtobufCBinaryData){STREAM_ID_BYTES, rx->in->header.content};
    rc = stream_meta(rx->c, META_VOLUME_ROLLBACK, &q.base, &r);
    if (rc == 0) {
        const Zbs__Meta__Volume *v = (const Zbs__Meta__Volume *)r.msg;

        volume_take(rx, v);
        resize = v->size_bytes != rx->in->header.size_bytes;
        rpc_reply_free(&r);
    }
    return rc == 0 && resize ? volume_resize(rx) : rc;
}

static int volume_create(struct receiver *rx)
{
    Zbs__Meta__VolumeCreateRequest q = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(rx->c->meta, &m);
    q.mutation = &m;
    q.pool = (char *)rx->to.pool;
    q.name = (char *)rx->to.volume;
    q.size_bytes = rx->in->header.size_bytes;
    q.import_content = (ProtobufCBinaryData){STREAM_ID_BYTES, rx->in->header.content};
    rc = stream_meta(rx->c, META_VOLUME_CREATE, &q.base, &r);
    if (rc == 0) {
        volume_take(rx, (const Zbs__Meta__Volume *)r.msg);
        rpc_reply_free(&r);
    }
    return rc;
}

/* What is left of a full import that did not end goes. */
static int volume_delete_half(struct receiver *rx)
{
    Zbs__Meta__VolumeDeleteRequest q = ZBS__META__VOLUME_DELETE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    const Zbs__Meta__Volume *v;
    struct rpc_reply r;
    bool half;
    int rc = stream_volume_get(rx->c, rx->to.pool, rx->to.volume, NULL, &r);

    if (rc < 0)
        return rc;
    v = (const Zbs__Meta__Volume *)r.msg;
    half = v->importing != 0 && v->importing == v->id; /* since it was made */
    rpc_reply_free(&r);
    if (!half)
        return err_set(
            ERR_EXISTS,
            "volume '%s/%s' exists already: the stream is of a whole snapshot, and makes "
            "a new volume",
            rx->to.pool, rx->to.volume);
    meta_client_mutation(rx->c->meta, &m);
    q.mutation = &m;
    q.pool = (char *)rx->to.pool;
    q.name = (char *)rx->to.volume;
    rc = stream_meta(rx->c, META_VOLUME_DELETE, &q.base, &r);
    if (rc == 0)
        rpc_reply_free(&r);
    return rc;
}

/* A name that is taken is better known before the data is sent. */
static int snapshot_name_check(struct receiver *rx)
{
    struct rpc_reply r;
    int rc = stream_volume_get(rx->c, rx->to.pool, rx->to.volume, rx->to.snapshot, &r);

    if (rc == ERR_NOTFOUND)
        return 0;
    if (rc == 0) {
        rpc_reply_free(&r);
        rc = err_set(ERR_EXISTS, "snapshot '%s/%s@%s' exists already", rx->to.pool, rx->to.volume,
                     rx->to.snapshot);
    }
    return rc;
}

static int volume_begin(struct receiver *rx)
{
    int rc = snapshot_name_check(rx);

    if (rc < 0)
        return rc;
    if (rx->in->header.incremental)
        return volume_continue(rx);
    rc = volume_create(rx);
    if (rc != ERR_EXISTS)
        return rc;
    rc = volume_delete_half(rx);
    return rc == 0 ? volume_create(rx) : rc;
}

static int volume_end(struct receiver *rx, struct rpc_reply *r)
{
    Zbs__Meta__VolumeSnapshotRequest q = ZBS__META__VOLUME_SNAPSHOT_REQUEST__INIT;
    Zbs__Meta__VolumeName name = ZBS__META__VOLUME_NAME__INIT, *names[] = {&name};
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;

    meta_client_mutation(rx->c->meta, &m);
    name.pool = (char *)rx->to.pool;
    name.name = (char *)rx->to.volume;
    q.mutation = &m;
    q.volumes = names;
    q.n_volumes = 1;
    q.snapshot = (char *)rx->to.snapshot;
    q.importing = rx->importing;
    return stream_meta(rx->c, META_VOLUME_SNAPSHOT, &q.base, r);
}

/* ---- records ---- */

struct write {
    struct receiver *rx;
    struct stream_record r;
    struct buf *data; /* NULL: zeroes */
};

static void fail(struct receiver *rx, int rc)
{
    if (rc == 0 || rx->failed != 0)
        return;
    rx->failed = rc;
    snprintf(rx->text, sizeof(rx->text), "%s", err_text(rc));
}

static int write_run(void *arg)
{
    struct write *w = arg;
    struct receiver *rx = w->rx;
    Zbs__Access__VolumeWriteRequest q = ZBS__ACCESS__VOLUME_WRITE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    q.volume_id = rx->volume_id;
    q.importing = rx->importing;
    q.offset = w->r.offset;
    q.length = w->r.length;
    q.discard = w->data == NULL;
    q.crc = w->r.payload_crc;
    rc = stream_access(rx->c, ACCESS_VOLUME_WRITE, &q.base, w->data, (uint32_t)w->r.length, &r);
    if (rc == 0)
        rpc_reply_free(&r);
    fail(rx, rc);
    if (w->data)
        buf_put(w->data);
    co_sem_release(&rx->room, 1);
    mem_free(w);
    return 0;
}

static int read_all(struct receiver *rx, void *dst, size_t len)
{
    size_t got = 0;
    int rc = rx->io->read(rx->io->arg, dst, len, &got);

    if (rc == 0 && got < len)
        rc = err_set(ERR_CORRUPT, "the stream breaks off after record %" PRIu64, rx->in->records);
    return rc;
}

static int data_read(struct receiver *rx, const struct stream_record *r, struct buf **ret)
{
    struct buf *b = buf_alloc((uint32_t)r->length);
    int rc = read_all(rx, b->data, r->length);

    if (rc == 0)
        rc = stream_payload_check(r, b->data);
    if (rc < 0)
        buf_put(b);
    else
        *ret = b;
    return rc;
}

/* One record; its write goes on in the background. */
static int record_take(struct receiver *rx)
{
    uint8_t head[STREAM_RECORD_BYTES];
    struct stream_record r = {0};
    struct buf *data = NULL;
    struct write *w;
    int rc = read_all(rx, head, sizeof(head));

    if (rc == 0)
        rc = stream_record_parse(rx->in, head, &r);
    if (rc < 0 || r.kind == STREAM_END)
        return rc;
    if (r.kind == STREAM_DATA)
        rc = data_read(rx, &r, &data);
    if (rc < 0)
        return rc;
    rc = co_sem_acquire(&rx->room, 1);
    if (rc < 0) {
        if (data)
            buf_put(data);
        return rc;
    }
    w = MEM_NEW(struct write);
    *w = (struct write){.rx = rx, .r = r, .data = data};
    co_spawn(&rx->writes, "write", write_run, w);
    if (rx->io->progress)
        rx->io->progress(rx->io->arg, rx->in, rx->in->next);
    return 0;
}

static int records_take(struct receiver *rx)
{
    int rc = 0;

    co_group_init(&rx->writes);
    co_sem_init(&rx->room, STREAM_AT_ONCE);
    while (rc == 0 && rx->failed == 0 && !rx->in->ended)
        rc = record_take(rx);
    fail(rx, rc);
    rc = co_group_join(&rx->writes);
    return rx->failed != 0 ? err_set(rx->failed, "%s", rx->text) : rc;
}

/* ---- the whole ---- */

static int header_take(struct receiver *rx)
{
    uint8_t head[STREAM_HEADER_BYTES];
    size_t got = 0;
    int rc = rx->io->read(rx->io->arg, head, sizeof(head), &got);

    if (rc == 0 && got < sizeof(head))
        rc = err_set(ERR_FORMAT, got == 0 ? "the stream is empty" : "the stream breaks off");
    return rc < 0 ? rc : stream_header_parse(head, &rx->in->header);
}

static int end_check(struct receiver *rx)
{
    uint8_t byte;
    size_t got = 0;
    int rc = rx->io->read(rx->io->arg, &byte, 1, &got);

    if (rc == 0 && got > 0)
        rc = err_set(ERR_CORRUPT, "there is something behind the stream's end");
    return rc;
}

int stream_receive(struct stream_cluster *c, const struct stream_name *name,
                   const struct stream_io *io, struct stream *ret, struct rpc_reply *r)
{
    struct receiver rx = {.c = c, .io = io, .in = ret, .to = *name};
    int rc;

    *ret = (struct stream){0};
    rc = header_take(&rx);
    if (rc < 0)
        return rc;
    if (!rx.to.snapshot)
        rx.to.snapshot = ret->header.snapshot;
    rc = volume_begin(&rx);
    if (rc == 0)
        rc = records_take(&rx);
    if (rc == 0)
        rc = end_check(&rx);
    if (rc == 0)
        rc = volume_end(&rx, r);
    return rc;
}
