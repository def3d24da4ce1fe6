/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests about what files contain: at two places, the border of what an inode takes and the
 * border at which a volume grows. See files_int.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "common/base/mem.h"
#include "common/base/units.h"
#include "tests/sim/files_int.h"

#define WRITE_CELLS_MAX 40ull
#define SETTLE_TRIES    3

static const uint64_t places[PLACES_MAX] = {0, (MIB - 4 * KIB) / CELL_BYTES}; /* first cells */
static const struct nfs_cred root;

/* ---- contents: every cell names its value and place ---- */

static void cell_fill(uint8_t *dst, uint64_t value, uint64_t cell)
{
    uint64_t words[CELL_BYTES / 8];

    for (uint32_t i = 0; i < ARRAY_SIZE(words); i++)
        words[i] = value ? (i % 2 ? cell : value) + (uint64_t)(i / 2) * 0x9e3779b97f4a7c15u : 0;
    memcpy(dst, words, CELL_BYTES);
}

static bool cell_parse(const uint8_t *src, uint64_t cell, uint64_t *ret)
{
    uint8_t want[CELL_BYTES];

    memcpy(ret, src, sizeof(*ret));
    cell_fill(want, *ret, cell);
    return memcmp(want, src, CELL_BYTES) == 0;
}

static uint64_t cell_key(const struct sfile *f, uint64_t cell)
{
    return SECTOR_OF(f->space) + cell;
}

/* Notes what is done with the cell that is watched. */
static void watch(const struct fnode *n, const struct request *rq, const char *what, uint64_t value,
                  int rc)
{
    const struct cluster *c = n->n->cluster;
    uint64_t first = cell_key(rq->file, rq->kind == REQUEST_TRUNCATE ? 0 : rq->first);
    uint64_t count = rq->kind == REQUEST_TRUNCATE ? SECTOR_OF(1) : rq->count;

    if (c->watch >= first && c->watch < first + count)
        sim_note(c->sim, "watch inode %" PRIu64 ": access-%u request %" PRIu64 " %s %" PRIu64 " %s",
                 rq->file->inode, n->n->index + 1, rq->number, what, value,
                 rc < 0 ? err_name(rc) : "ok");
}

/* ---- drawing one ---- */

/* The newest of those that all use: most of what they do there meets. */
static struct sfile *hot_file(struct files *fs)
{
    struct sfile *newest = NULL;

    for (uint32_t i = 0; i < fs->n_files; i++)
        if (fs->files[i].links > 0 && fs->files[i].shared && !fs->files[i].going)
            newest = &fs->files[i];
    return newest;
}

/* One of its own, or one that all use; NULL: there is none. */
static struct sfile *some_file(struct fclient *cl)
{
    struct files *fs = cl->fs;
    uint32_t at = (uint32_t)files_draw(fs, NAMES);

    if (files_draw(fs, 2))
        return hot_file(fs);

    for (uint32_t i = 0; i < NAMES; i++) {
        const struct fclient *of =
            &fs->clients[(cl->number + files_draw(fs, FILES_CLIENTS)) % FILES_CLIENTS];
        struct sfile *f = of->names[(at + i) % NAMES];

        if (f != NULL && !f->going && (f->shared || of == cl))
            return f;
    }
    return NULL;
}

static void draw_range(struct files *fs, struct sfile *f, struct request *rq)
{
    bool small = f->small > 0 || files_draw(fs, 2) == 0;
    uint32_t most = small ? INODE_CELLS : PLACE_CELLS;
    uint32_t first = (uint32_t)files_draw(fs, most);

    f->small -= f->small > 0;
    rq->count = 1 + (uint32_t)files_draw(fs, MIN(most - first, WRITE_CELLS_MAX));
    rq->first = first + places[small ? 0 : files_draw(fs, PLACES_MAX)];
}

/* The cells behind the new end are zeroes from some moment of the request on. */
static void truncation_call(struct files *fs, struct request *rq)
{
    uint64_t end = rq->size / CELL_BYTES;

    for (uint32_t p = 0; p < PLACES_MAX; p++) {
        uint64_t from = MAX(end, places[p]), to = places[p] + PLACE_CELLS;

        rq->zeroed[p] = from >= to ? 0
                                   : history_zero_call(fs->c->history, cell_key(rq->file, from),
                                                       (uint32_t)(to - from));
    }
}

void data_prepare(struct fclient *cl, struct request *rq)
{
    struct files *fs = cl->fs;

    rq->file = some_file(cl);
    if (rq->kind == REQUEST_SNAPSHOT &&
        (rq->file == NULL || rq->file->shared || fs->n_snapshots == SNAPSHOTS_MAX))
        rq->kind = REQUEST_READ;
    if (rq->file == NULL)
        return;
    draw_range(fs, rq->file, rq);
    if (rq->kind == REQUEST_TRUNCATE) {
        rq->size = files_draw(fs, 4) ? rq->first * CELL_BYTES : 0;
        truncation_call(fs, rq);
    }
    if (rq->kind == REQUEST_SNAPSHOT)
        rq->called = history_tick(fs->c->history);
}

/* ---- attempts ---- */

/* As an open: the access server's copy is not older than this. */
static int open_file(struct fnode *n, const struct sfile *f, struct answer *ret)
{
    Zbs__Meta__InodeGetRequest rq = ZBS__META__INODE_GET_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rq.inode_id = f->inode;
    rc = files_meta(n, META_INODE_GET, &rq.base, &r);
    if (rc == 0) {
        const Zbs__Meta__Inode *inode = (const Zbs__Meta__Inode *)r.msg;

        nfs_files_learn(n->files, inode);
        ret->size = inode->size;
        ret->volume = inode->volume_id;
    }
    rpc_reply_free(&r);
    return rc;
}

/* What a read found, and that there was nothing behind its end. */
static void cells_saw(struct cluster *c, const struct request *rq, uint64_t read,
                      const struct nfs_read *got)
{
    for (uint32_t i = 0; i < rq->count; i++) {
        uint64_t key = cell_key(rq->file, rq->first + i), value = 0;

        if ((i + 1) * CELL_BYTES > got->len && !got->eof)
            return;
        if ((i + 1) * CELL_BYTES <= got->len &&
            !cell_parse(got->data->data + got->off + (size_t)i * CELL_BYTES, key, &value))
            cluster_fail(c, "cell %" PRIu64 " read torn or foreign: %016" PRIx64, key, value);
        history_read_saw(c->history, read, key, value);
        if (c->watch == key)
            sim_note(c->sim, "watch inode %" PRIu64 ": has %" PRIu64, rq->file->inode, value);
    }
}

static int read_cells(struct fnode *n, const struct request *rq, struct answer *ret)
{
    struct cluster *c = n->n->cluster;
    uint64_t read = history_read_call(c->history);
    struct nfs_read got;
    int rc;

    watch(n, rq, "reads", 0, 0);
    rc = open_file(n, rq->file, ret);
    if (rc < 0)
        return rc;
    rc = nfs_file_read(n->files, rq->file->inode, &root, rq->first * CELL_BYTES,
                       rq->count * CELL_BYTES, &got);
    if (rc == 0)
        cells_saw(c, rq, read, &got);
    watch(n, rq, "read of", got.attr.size, rc);
    buf_put(got.data);
    return rc;
}

/* Each attempt has a value of its own: a former one may still be under way. An access server
 * writes again what a truncation has met, or what may have been written: where several clients
 * write to one place at once, and without locks, one of them may win twice. */
static int write_cells(struct fnode *n, const struct request *rq)
{
    struct cluster *c = n->n->cluster;
    uint64_t key = cell_key(rq->file, rq->first);
    uint64_t value = rq->file->shared ? history_repeated_call(c->history, key, rq->count)
                                      : history_write_call(c->history, key, rq->count);
    struct buf *b = buf_alloc((size_t)rq->count * CELL_BYTES);
    struct nfs_wcc wcc;
    int rc;

    for (uint32_t i = 0; i < rq->count; i++)
        cell_fill(b->data + (size_t)i * CELL_BYTES, value, key + i);
    watch(n, rq, "writes", value, 0);
    rc = nfs_file_write(n->files, rq->file->inode, &root, rq->first * CELL_BYTES, b, 0,
                        rq->count * CELL_BYTES, value % 2 == 0, &wcc);
    watch(n, rq, "wrote", value, rc);
    if (rc == 0)
        history_return(c->history, value);
    buf_put(b);
    return rc;
}

static int set_size(struct fnode *n, const struct fclient *cl, const struct request *q)
{
    Zbs__Meta__InodeSetRequest rq = ZBS__META__INODE_SET_REQUEST__INIT;
    Zbs__Meta__InodeAttrs attrs = ZBS__META__INODE_ATTRS__INIT;
    Zbs__Meta__InodeAttrs__U64 size = ZBS__META__INODE_ATTRS__U64__INIT;
    Zbs__Meta__Mutation m;
    int rc = ERR_BUSY;

    watch(n, q, "cuts to", q->size, 0);
    files_mutation(cl, &m);
    size.value = q->size;
    attrs.size = &size;
    rq.mutation = &m;
    rq.attrs = &attrs;
    rq.inode_id = q->file->inode;
    for (int i = 0; rc == ERR_BUSY && i < SETTLE_TRIES; i++) {
        struct rpc_reply r;

        rc = files_meta(n, META_INODE_SET, &rq.base, &r);
        rpc_reply_free(&r);
        if (rc == ERR_BUSY)
            rc = nfs_file_make_way(n->files, rq.inode_id) < 0 ? ERR_TIMEOUT : ERR_BUSY;
    }
    watch(n, q, "cut to", q->size, rc);
    if (rc == 0)
        (void)!nfs_file_settle(n->files, rq.inode_id); /* otherwise by whoever needs the place */
    watch(n, q, "settled at", q->size, rc);
    return rc;
}

static int snapshot(struct fnode *n, const struct fclient *cl, const struct request *q,
                    struct answer *ret)
{
    Zbs__Meta__VolumeSnapshotRequest rq = ZBS__META__VOLUME_SNAPSHOT_REQUEST__INIT;
    Zbs__Meta__VolumeName name = ZBS__META__VOLUME_NAME__INIT, *list[] = {&name};
    char volume[40], at[24];
    Zbs__Meta__Mutation m;
    struct rpc_reply r;
    int rc = open_file(n, q->file, ret);

    if (rc < 0 || ret->volume == 0)
        return rc;
    files_mutation(cl, &m);
    snprintf(volume, sizeof(volume), "file-%016" PRIx64, q->file->inode);
    snprintf(at, sizeof(at), "s%" PRIu64, q->number);
    name.pool = (char *)"pool";
    name.name = volume;
    rq.mutation = &m;
    rq.volumes = list;
    rq.n_volumes = 1;
    rq.snapshot = at;
    rc = files_meta(n, META_VOLUME_SNAPSHOT, &rq.base, &r);
    if (rc == 0)
        ret->volume = ((const Zbs__Meta__VolumeSnapshotReply *)r.msg)->snapshots[0]->id;
    rpc_reply_free(&r);
    return rc;
}

int data_attempt(struct fnode *n, struct fclient *cl, const struct request *rq, struct answer *ret)
{
    if (rq->file == NULL)
        return 0;
    switch (rq->kind) {
    case REQUEST_WRITE:
        cl->fs->stats.writes++;
        return write_cells(n, rq);
    case REQUEST_TRUNCATE:
        cl->fs->stats.truncations++;
        return set_size(n, cl, rq);
    case REQUEST_SNAPSHOT:
        cl->fs->stats.snapshots++;
        return snapshot(n, cl, rq, ret);
    default:
        cl->fs->stats.reads++;
        return read_cells(n, rq, ret);
    }
}

/* ---- afterwards ---- */

static void snapshot_done(struct fclient *cl, const struct request *rq, const struct answer *a)
{
    struct files *fs = cl->fs;
    struct fsnapshot *s = &fs->snapshots[fs->n_snapshots];

    if (a->volume == 0 || fs->n_snapshots == SNAPSHOTS_MAX)
        return;
    fs->n_snapshots++;
    *s = (struct fsnapshot){.file = rq->file,
                            .volume = a->volume,
                            .size = rq->file->size,
                            .call = rq->called,
                            .ret = history_tick(fs->c->history)};
    snprintf(s->name, sizeof(s->name), "file-%016" PRIx64 "@s%" PRIu64, rq->file->inode,
             rq->number);
}

static void size_check(const struct files *fs, const struct sfile *f, uint64_t size)
{
    if (!f->shared && size != f->size)
        cluster_fail(fs->c, "inode %" PRIu64 " has %" PRIu64 " bytes, it should have %" PRIu64,
                     f->inode, size, f->size);
}

void data_done(struct fclient *cl, const struct request *rq, const struct answer *a)
{
    struct history *h = cl->fs->c->history;
    struct sfile *f = rq->file;

    if (f == NULL)
        return;
    if (rq->kind == REQUEST_READ)
        size_check(cl->fs, f, a->size);
    if (rq->kind == REQUEST_WRITE)
        f->size = MAX(f->size, (rq->first + rq->count) * CELL_BYTES);
    if (rq->kind == REQUEST_TRUNCATE)
        f->size = rq->size;
    for (uint32_t p = 0; p < PLACES_MAX && rq->kind == REQUEST_TRUNCATE; p++)
        if (rq->zeroed[p] != 0)
            history_return(h, rq->zeroed[p]);
    if (rq->kind == REQUEST_SNAPSHOT)
        snapshot_done(cl, rq, a);
}

/* ---- the end ---- */

void data_final(struct fnode *n, struct sfile *f)
{
    struct files *fs = n->n->cluster->files;

    for (uint32_t p = 0; p < PLACES_MAX; p++) {
        struct request rq = {
            .kind = REQUEST_READ, .file = f, .first = places[p], .count = PLACE_CELLS};
        struct answer a = {0};
        int rc = read_cells(n, &rq, &a);

        if (rc < 0)
            cluster_fail(fs->c, "inode %" PRIu64 " can't be read in the end: %s", f->inode,
                         err_text(rc));
        else
            size_check(fs, f, a.size);
    }
}

/* What is behind the file's end there does not count: it may not have been zeroed yet. */
static void frozen_saw(struct cluster *c, const struct fsnapshot *s, uint64_t first,
                       const uint8_t *data)
{
    for (uint64_t i = first; i < first + PLACE_CELLS && (i + 1) * CELL_BYTES <= s->size; i++) {
        uint64_t key = cell_key(s->file, i), value;

        if (!cell_parse(data + (i - first) * CELL_BYTES, key, &value))
            cluster_fail(c, "%s: cell %" PRIu64 " read torn or foreign: %016" PRIx64, s->name, i,
                         value);
        history_saw_between(c->history, s->call, s->ret, key, value);
    }
}

void data_final_snapshot(struct fnode *n, const struct fsnapshot *s)
{
    struct cluster *c = n->n->cluster;
    uint32_t bytes = PLACE_CELLS * CELL_BYTES;
    struct buf *b = buf_alloc(bytes);
    struct vol *v;
    int rc = vol_open(n->n->engine, s->volume, &v);

    for (uint32_t p = 0; p < PLACES_MAX && rc == 0; p++) {
        uint64_t off = places[p] * CELL_BYTES, size = vol_info(v)->size_bytes;
        uint32_t there = off < size ? (uint32_t)MIN(bytes, size - off) : 0;

        memset(b->data, 0, bytes);
        if (there > 0)
            rc = vol_read(v, off, there, b, 0);
        if (rc == 0)
            frozen_saw(c, s, places[p], b->data);
    }
    if (rc < 0)
        cluster_fail(c, "%s can't be read in the end: %s", s->name, err_text(rc));
    else
        vol_close(v);
    buf_put(b);
}
