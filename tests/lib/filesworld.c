/* SPDX-License-Identifier: Apache-2.0
 *
 * See filesworld.h. */
#include "tests/lib/filesworld.h"

#include <string.h>
#include "common/base/assert.h"
#include "common/base/limits.h"
#include "common/base/mem.h"
#include "common/env/env.h"
#include "tests/lib/frontworld.h"

#define VOLUME_UNIT (64u * 1024) /* volumes grow by this */
#define FIRST_TIME  1000u
#define STOP_TIME   (5 * NSEC_PER_MSEC)

struct fw_inode {
    Zbs__Meta__Inode m;
    struct {
        uint64_t session, lease;
    } writers[FW_SERVERS];
    uint8_t data[FILE_INLINE_BYTES];
};

struct fw_volume {
    struct fw_volume *next;
    uint64_t id;
    struct block_backend *bytes;
    bool deleted;
};

/* A volume as one server has it open. */
struct fw_handle {
    struct block_backend base;
    struct fw_server *s;
    struct fw_volume *volume;
};

/* ---- steps ---- */

void fw_suspend(struct fw_server *s)
{
    s->stopped = true;
}

void fw_resume(struct fw_server *s)
{
    s->session = ++s->w->last_session;
    s->stopped = false;
}

static co_fn int stop_for_a_while(struct fw_server *s)
{
    int rc;

    if (s->stopped)
        return 0;
    fw_suspend(s);
    rc = co_sleep((nsec_t)prng_below(&s->w->prng, (uint64_t)STOP_TIME));
    fw_resume(s);
    return rc;
}

/* Before an effect, and once more after it: 0, or there is none (no answer). */
static co_fn int step(struct fw_server *s)
{
    int rc = s->w->latency > 0 ? co_sleep((nsec_t)prng_below(&s->w->prng, (uint64_t)s->w->latency))
                               : co_yield ();

    s->steps++;
    if (rc == 0 && s->crash_in > 0 && --s->crash_in == 0)
        s->crashed = true;
    if (s->crashed)
        return err_set(ERR_CANCELED, "the server crashed");
    if (rc == 0 && ((s->fail_in > 0 && --s->fail_in == 0) || prng_chance(&s->w->prng, s->fail_ppm)))
        rc = err_set(ERR_TIMEOUT, "injected");
    if (rc == 0 && prng_chance(&s->w->prng, s->stop_ppm))
        rc = stop_for_a_while(s);
    return rc;
}

/* ---- volumes ---- */

static struct fw_volume *volume_find(struct filesworld *w, uint64_t id)
{
    struct fw_volume *v = w->volumes;

    while (v != NULL && v->id != id)
        v = v->next;
    return v;
}

static struct fw_volume *volume_new(struct filesworld *w, uint64_t bytes)
{
    struct fw_volume *v = MEM_NEW(struct fw_volume);

    v->id = ++w->last_volume;
    v->bytes = block_backend_mem_new(v->id, ROUND_UP(MAX(bytes, 1u), VOLUME_UNIT));
    v->next = w->volumes;
    w->volumes = v;
    return v;
}

static uint64_t volume_bytes(const struct fw_volume *v)
{
    struct block_backend_info info;

    v->bytes->ops->info(v->bytes, &info);
    return info.size_bytes;
}

static struct fw_handle *handle_of(struct block_backend *b)
{
    return CONTAINER_OF(b, struct fw_handle, base);
}

static co_fn int handle_begin(struct block_backend *b, struct block_backend **ret)
{
    struct fw_handle *h = handle_of(b);
    int rc = step(h->s);

    *ret = h->volume->bytes;
    if (rc == 0 && h->volume->deleted)
        rc = err_set(ERR_NOTFOUND, "volume %llu was deleted", (unsigned long long)h->volume->id);
    return rc;
}

static co_fn int handle_begin_change(struct block_backend *b, struct block_backend **ret)
{
    struct fw_server *s = handle_of(b)->s;
    uint64_t session = s->session;
    int rc = handle_begin(b, ret);

    if (rc == 0 && (s->session != session || s->stopped))
        rc = err_set(ERR_AMBIGUOUS, "others may have opened it since");
    return rc;
}

static co_fn int handle_end(struct block_backend *b, int rc)
{
    return rc < 0 ? rc : step(handle_of(b)->s);
}

static void handle_info(struct block_backend *b, struct block_backend_info *ret)
{
    struct fw_volume *v = handle_of(b)->volume;

    v->bytes->ops->info(v->bytes, ret);
}

static co_fn int handle_read(struct block_backend *b, uint64_t off, uint32_t len, struct buf *dst,
                             uint32_t dst_off)
{
    struct block_backend *v;
    int rc = handle_begin(b, &v);

    handle_of(b)->s->w->volume_reads++;
    return handle_end(b, rc < 0 ? rc : v->ops->read(v, off, len, dst, dst_off));
}

static co_fn int handle_write(struct block_backend *b, uint64_t off, uint32_t len, struct buf *src,
                              uint32_t src_off)
{
    struct block_backend *v;
    int rc = handle_begin_change(b, &v);

    handle_of(b)->s->w->volume_writes++;
    return handle_end(b, rc < 0 ? rc : v->ops->write(v, off, len, src, src_off));
}

static co_fn int handle_zero(struct block_backend *b, uint64_t off, uint64_t len)
{
    struct block_backend *v;
    int rc = handle_begin_change(b, &v);

    return handle_end(b, rc < 0 ? rc : v->ops->zero(v, off, len));
}

static co_fn int handle_caw(struct block_backend *b, uint64_t off, uint32_t len, struct buf *cmp,
                            uint32_t cmp_off, struct buf *src, uint32_t src_off,
                            uint32_t *ret_offset)
{
    struct block_backend *v;
    int rc = handle_begin_change(b, &v);

    if (rc == 0)
        rc = v->ops->compare_and_write(v, off, len, cmp, cmp_off, src, src_off, ret_offset);
    return handle_end(b, rc);
}

static void handle_close(struct block_backend *b)
{
    handle_of(b)->s->w->volumes_open--;
    mem_free(handle_of(b));
}

static const struct block_backend_ops handle_ops = {
    .info = handle_info,
    .read = handle_read,
    .write = handle_write,
    .zero = handle_zero,
    .compare_and_write = handle_caw,
    .close = handle_close,
};

static co_fn int server_open(void *arg, uint64_t volume_id, struct block_backend **ret)
{
    struct fw_server *s = arg;
    struct fw_volume *v = volume_find(s->w, volume_id);
    int rc = step(s);

    if (rc < 0)
        return rc;
    if (v == NULL || v->deleted)
        return err_set(ERR_NOTFOUND, "there is no volume %llu", (unsigned long long)volume_id);
    struct fw_handle *h = MEM_NEW(struct fw_handle);
    h->base.ops = &handle_ops;
    h->s = s;
    h->volume = v;
    s->w->volumes_open++;
    *ret = &h->base;
    return 0;
}

/* ---- meta: what it decides ---- */

static void changed(struct filesworld *w, struct fw_inode *i, uint64_t mtime_ns)
{
    i->m.change = ++w->last_number;
    i->m.ctime_ns = (uint64_t)env_wall_ns();
    i->m.mtime_ns = mtime_ns > 0 ? MAX(i->m.mtime_ns, mtime_ns) : i->m.ctime_ns;
}

static bool session_lives(const struct filesworld *w, uint64_t session)
{
    for (uint32_t k = 0; k < FW_SERVERS; k++) {
        const struct fw_server *s = &w->servers[k];

        if (s->session == session && session != 0 && !s->stopped)
            return true;
    }
    return false;
}

static uint32_t writers(const struct filesworld *w, const struct fw_inode *i)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < FW_SERVERS; k++)
        n += session_lives(w, i->writers[k].session);
    return n;
}

static int set_size(struct filesworld *w, struct fw_inode *i, uint64_t size)
{
    if (size < i->m.size && writers(w, i) > 0)
        return err_set(ERR_BUSY, "it is being written");
    if (size > i->m.size && i->m.dirty_end > i->m.size)
        return err_set(ERR_BUSY, "bytes behind the size are not zeroed yet");
    changed(w, i, 0);
    if (size < i->m.size) {
        i->m.cut = i->m.change;
        if (i->m.volume_id != 0)
            i->m.dirty_end = MAX(i->m.dirty_end, i->m.size);
        if (size < i->m.data.len) {
            memset(i->data + size, 0, i->m.data.len - size);
            i->m.data.len = size;
        }
    }
    i->m.size = size;
    return 0;
}

static int do_set(struct filesworld *w, struct fw_inode *i, const Zbs__Meta__InodeSetRequest *rq)
{
    return set_size(w, i, rq->attrs->size->value);
}

static int do_write(struct filesworld *w, struct fw_inode *i, const Zbs__Meta__FileWriteRequest *rq)
{
    uint64_t end = rq->offset + rq->data.len;

    if (i->m.volume_id != 0 || end > FILE_INLINE_BYTES)
        return err_set(ERR_TOO_LARGE, "not for an inode");
    if (rq->change != i->m.change)
        return err_set(ERR_MISCOMPARE, "the inode has changed");
    memcpy(i->data + rq->offset, rq->data.data, rq->data.len);
    i->m.data.len = MAX(i->m.data.len, end);
    while (i->m.data.len > 0 && i->data[i->m.data.len - 1] == 0)
        i->m.data.len--;
    changed(w, i, 0);
    i->m.size = MAX(i->m.size, end);
    return 0;
}

static int do_volume(struct filesworld *w, struct fw_inode *i,
                     const Zbs__Meta__FileVolumeRequest *rq)
{
    if (i->m.volume_id != 0)
        return err_set(ERR_EXISTS, "it has a volume");
    if (i->m.candidate != 0)
        volume_find(w, i->m.candidate)->deleted = true;
    i->m.candidate = volume_new(w, rq->bytes)->id;
    return 0;
}

static int do_attach(struct filesworld *w, struct fw_inode *i,
                     const Zbs__Meta__FileAttachRequest *rq)
{
    if (i->m.candidate != rq->volume_id || i->m.change != rq->change)
        return err_set(ERR_MISCOMPARE, "begin again");
    i->m.volume_id = i->m.candidate;
    i->m.volume_bytes = volume_bytes(volume_find(w, i->m.volume_id));
    i->m.candidate = 0;
    i->m.data.len = 0;
    i->m.change = ++w->last_number;
    return 0;
}

static int do_grow(struct filesworld *w, struct fw_inode *i, const Zbs__Meta__FileGrowRequest *rq)
{
    uint64_t bytes = ROUND_UP(rq->bytes, VOLUME_UNIT);

    if (bytes > i->m.volume_bytes) {
        block_backend_mem_resize(volume_find(w, i->m.volume_id)->bytes, bytes);
        i->m.volume_bytes = bytes;
    }
    return 0;
}

static int do_written(struct filesworld *w, struct fw_inode *i,
                      const Zbs__Meta__FileWrittenRequest *rq)
{
    if (rq->size > i->m.size && rq->cut != i->m.cut)
        return err_set(ERR_MISCOMPARE, "it was truncated");
    if (rq->size > i->m.size && i->m.dirty_end > i->m.size)
        return err_set(ERR_BUSY, "bytes behind the size are not zeroed yet");
    if (rq->size > i->m.size || rq->mtime_ns > i->m.mtime_ns)
        changed(w, i, rq->mtime_ns);
    i->m.size = MAX(i->m.size, rq->size);
    return 0;
}

static int do_zero(struct filesworld *w, struct fw_inode *i, const Zbs__Meta__FileZeroRequest *rq)
{
    if (i->m.dirty_end <= i->m.size)
        return 0;
    if (!session_lives(w, rq->session_id))
        return err_set(ERR_EXPIRED, "the session has ended");
    if (i->m.zeroer != rq->session_id && session_lives(w, i->m.zeroer))
        return err_set(ERR_BUSY, "another zeroes");
    i->m.zeroer = rq->session_id;
    return 0;
}

static int do_zeroed(struct fw_inode *i, const Zbs__Meta__FileZeroedRequest *rq)
{
    if (i->m.size != rq->size || i->m.dirty_end != rq->dirty_end || i->m.zeroer != rq->session_id)
        return err_set(ERR_MISCOMPARE, "it has changed");
    i->m.dirty_end = i->m.zeroer = 0;
    return 0;
}

static int do_lease(struct filesworld *w, struct fw_inode *i, const Zbs__Meta__FileLeaseRequest *rq)
{
    uint32_t k = 0;

    if (i->m.volume_id == 0 || !session_lives(w, rq->session_id))
        return 0;
    while (i->writers[k].session != rq->session_id && session_lives(w, i->writers[k].session))
        k++;
    for (uint32_t n = 0; n < FW_SERVERS; n++) {
        if (i->writers[n].session == rq->session_id)
            i->writers[n].session = 0;
    }
    i->writers[k].session = rq->session_id;
    i->writers[k].lease = ++w->last_number;
    return 0;
}

static int do_return(struct fw_inode *i, const Zbs__Meta__FileReturnRequest *rq)
{
    for (uint32_t k = 0; k < FW_SERVERS; k++) {
        if (i->writers[k].lease == rq->lease)
            i->writers[k].session = i->writers[k].lease = 0;
    }
    return 0;
}

static int do_recall(struct filesworld *w, struct fw_inode *i)
{
    for (uint32_t k = 0; k < FW_SERVERS; k++) {
        for (uint32_t n = 0; n < FW_SERVERS; n++) {
            struct fw_server *s = &w->servers[n];

            if (s->files != NULL && !s->crashed && !s->stopped && s->session != 0 &&
                s->session == i->writers[k].session)
                nfs_files_recalled(s->files, i->m.id, i->writers[k].lease);
        }
    }
    return 0;
}

/* Every request has its inode's number behind the mutation. */
static int decide(struct filesworld *w, enum meta_method method, const ProtobufCMessage *rq,
                  struct fw_inode **ret)
{
    const Zbs__Meta__FileZeroRequest *any = (const void *)rq;
    uint64_t id = method == META_INODE_GET || method == META_FILE_RECALL
                      ? ((const Zbs__Meta__InodeGetRequest *)(const void *)rq)->inode_id
                      : any->inode_id;

    if (method == META_INODE_SET)
        id = ((const Zbs__Meta__InodeSetRequest *)(const void *)rq)->inode_id;
    struct fw_inode *i = id <= FW_INODES ? w->inodes[id] : NULL;
    *ret = i;
    if (i == NULL)
        return err_set(ERR_STALE, "there is no inode %llu", (unsigned long long)id);
    switch (method) {
    case META_INODE_GET:
        return 0;
    case META_INODE_SET:
        return do_set(w, i, (const void *)rq);
    case META_FILE_WRITE:
        return do_write(w, i, (const void *)rq);
    case META_FILE_VOLUME:
        return do_volume(w, i, (const void *)rq);
    case META_FILE_ATTACH:
        return do_attach(w, i, (const void *)rq);
    case META_FILE_GROW:
        return do_grow(w, i, (const void *)rq);
    case META_FILE_WRITTEN:
        return do_written(w, i, (const void *)rq);
    case META_FILE_ZERO:
        return do_zero(w, i, (const void *)rq);
    case META_FILE_ZEROED:
        return do_zeroed(i, (const void *)rq);
    case META_FILE_LEASE:
        return do_lease(w, i, (const void *)rq);
    case META_FILE_RETURN:
        return do_return(i, (const void *)rq);
    case META_FILE_RECALL:
        return do_recall(w, i);
    default:
        return err_set(ERR_UNSUPPORTED, "no such request");
    }
}

/* The answer lives in the reply's payload, which goes with it. */
struct answer {
    struct fw_inode inode;
    Zbs__Meta__FileLeaseReply lease;
    Zbs__Meta__FileRecallReply recall;
};

static uint64_t lease_of(const struct fw_inode *i, const Zbs__Meta__FileLeaseRequest *rq)
{
    for (uint32_t k = 0; k < FW_SERVERS; k++) {
        if (i->writers[k].session == rq->session_id)
            return i->writers[k].lease;
    }
    return 0;
}

static void answer(struct rpc_reply *r, struct filesworld *w, const struct fw_inode *i,
                   enum meta_method method, const ProtobufCMessage *rq)
{
    struct answer *a;

    r->payload = buf_alloc(sizeof(*a));
    a = (struct answer *)(void *)r->payload->data;
    a->inode = *i;
    a->inode.m.data.data = a->inode.data;
    zbs__meta__file_lease_reply__init(&a->lease);
    zbs__meta__file_recall_reply__init(&a->recall);
    a->lease.inode = &a->inode.m;
    r->msg = &a->inode.m.base;
    if (method == META_FILE_LEASE) {
        a->lease.lease = lease_of(i, (const void *)rq);
        r->msg = &a->lease.base;
    } else if (method == META_FILE_RECALL) {
        a->recall.writers = writers(w, i);
        r->msg = &a->recall.base;
    }
}

static co_fn int server_call(void *arg, enum meta_method method, const ProtobufCMessage *request,
                             struct rpc_reply *r)
{
    struct fw_server *s = arg;
    struct fw_inode *i;
    int rc = step(s);

    s->w->calls[method]++;
    if (rc == 0)
        rc = decide(s->w, method, request, &i);
    if (rc == 0)
        answer(r, s->w, i, method, request);
    return rc < 0 ? rc : step(s);
}

static void server_mutation(void *arg, Zbs__Meta__Mutation *ret)
{
    (void)arg;
    zbs__meta__mutation__init(ret);
}

static uint64_t server_session(void *arg)
{
    return ((struct fw_server *)arg)->session;
}

static co_fn int server_lease(void *arg)
{
    struct fw_server *s = arg;
    int rc = step(s);

    while (rc == 0 && s->stopped)
        rc = co_sleep(NSEC_PER_MSEC);
    return rc;
}

/* ---- life ---- */

static void server_start(struct fw_server *s)
{
    struct nfs_backend b = {
        .call = server_call,
        .mutation = server_mutation,
        .open = server_open,
        .session = server_session,
        .lease = server_lease,
        .arg = s,
    };

    s->crashed = false;
    s->crash_in = 0;
    fw_resume(s);
    s->files = nfs_files_new(&b);
}

co_fn void fw_stop(struct fw_server *s)
{
    nfs_files_free(s->files);
    s->files = NULL;
    s->session = 0;
}

co_fn void fw_restart(struct fw_server *s)
{
    fw_stop(s);
    server_start(s);
}

static struct fw_inode *inode_new(uint64_t id)
{
    struct fw_inode *i = MEM_NEW(struct fw_inode);

    zbs__meta__inode__init(&i->m);
    i->m.id = id;
    i->m.type = ZBS__META__INODE_TYPE__INODE_REG;
    i->m.mode = 0640;
    i->m.uid = i->m.gid = FW_UID;
    i->m.nlink = 1;
    i->m.mtime_ns = i->m.ctime_ns = FIRST_TIME;
    i->m.data.data = i->data;
    return i;
}

static struct filesworld *the_world;
static int (*the_body)(void *w);

static co_fn int world_main(void *arg)
{
    struct filesworld *w = arg;
    uint64_t before = mem_heap_bytes(mem_heap_current());

    for (uint64_t id = 1; id <= FW_INODES; id++)
        w->inodes[id] = inode_new(id);
    for (uint32_t k = 0; k < FW_SERVERS; k++) {
        w->servers[k].w = w;
        server_start(&w->servers[k]);
    }
    the_body(w);
    for (uint32_t k = 0; k < FW_SERVERS; k++) {
        if (w->servers[k].files != NULL)
            fw_stop(&w->servers[k]);
    }
    ASSERT(w->volumes_open == 0);
    for (uint64_t id = 1; id <= FW_INODES; id++)
        mem_free(w->inodes[id]);
    for (struct fw_volume *v = w->volumes, *next; v != NULL; v = next) {
        next = v->next;
        v->bytes->ops->close(v->bytes);
        mem_free(v);
    }
    ASSERT(mem_heap_bytes(mem_heap_current()) == before);
    return 0;
}

void filesworld_run(struct filesworld *w, uint64_t seed, int (*body)(void *w))
{
    prng_init(&w->prng, seed);
    the_world = w;
    the_body = body;
    frontworld_run(seed, world_main, w);
}

/* ---- clients ---- */

static const struct nfs_cred client = {.uid = FW_UID, .gid = FW_UID};

co_fn int fw_write(struct fw_server *s, uint64_t inode, uint64_t off, const void *data,
                   uint32_t len)
{
    struct buf *src = buf_alloc(len);
    struct nfs_wcc wcc;
    int rc;

    memcpy(src->data, data, len);
    rc = nfs_file_write(s->files, inode, &client, off, src, 0, len, false, &wcc);
    ASSERT(rc < 0 || (wcc.after_known && wcc.after.size >= off + len));
    buf_put(src);
    return rc;
}

co_fn int fw_read(struct fw_server *s, uint64_t inode, uint64_t off, void *data, uint32_t len,
                  uint32_t *ret_len, bool *ret_eof)
{
    struct nfs_read r;
    int rc = nfs_file_read(s->files, inode, &client, off, len, &r);

    *ret_len = r.len;
    *ret_eof = r.eof;
    if (r.len > 0)
        memcpy(data, r.data->data + r.off, r.len);
    buf_put(r.data);
    return rc;
}

/* As the procedure does it: after ERR_BUSY something is to be done first. */
co_fn int fw_resize(struct fw_server *s, uint64_t inode, uint64_t size)
{
    Zbs__Meta__InodeSetRequest rq = ZBS__META__INODE_SET_REQUEST__INIT;
    Zbs__Meta__InodeAttrs attrs = ZBS__META__INODE_ATTRS__INIT;
    Zbs__Meta__InodeAttrs__U64 value = ZBS__META__INODE_ATTRS__U64__INIT;
    int rc;

    value.value = size;
    attrs.size = &value;
    rq.attrs = &attrs;
    rq.inode_id = inode;
    do {
        struct rpc_reply r;

        rpc_reply_init(&r);
        rc = server_call(s, META_INODE_SET, &rq.base, &r);
        if (rc == 0)
            nfs_files_learn(s->files, (const Zbs__Meta__Inode *)r.msg);
        rpc_reply_free(&r);
    } while (rc == ERR_BUSY && (rc = nfs_file_make_way(s->files, inode)) == 0);
    return rc < 0 ? rc : nfs_file_settle(s->files, inode);
}

uint32_t fw_writers(struct filesworld *w, uint64_t inode)
{
    return writers(w, w->inodes[inode]);
}

const Zbs__Meta__Inode *fw_inode(struct filesworld *w, uint64_t inode)
{
    return &w->inodes[inode]->m;
}

void fw_remove(struct filesworld *w, uint64_t inode)
{
    struct fw_inode *i = w->inodes[inode];

    if (i->m.volume_id != 0)
        volume_find(w, i->m.volume_id)->deleted = true;
    mem_free(i);
    w->inodes[inode] = NULL;
}

co_fn uint8_t fw_volume_byte(struct filesworld *w, uint64_t volume, uint64_t off)
{
    struct block_backend *b = volume_find(w, volume)->bytes;
    struct buf *sector = buf_alloc(BLOCK_SECTOR_BYTES);
    int rc = b->ops->read(b, ROUND_DOWN(off, BLOCK_SECTOR_BYTES), BLOCK_SECTOR_BYTES, sector, 0);
    uint8_t byte = sector->data[off % BLOCK_SECTOR_BYTES];

    ASSERT(rc == 0);
    buf_put(sector);
    return byte;
}
