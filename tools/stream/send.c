/* SPDX-License-Identifier: Apache-2.0
 *
 * Sending a snapshot: an access server says where it may differ from the base, what is there is
 * read, several pieces at once, and goes out in order. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/crc32c.h"
#include "common/base/mem.h"
#include "common/base/units.h"
#include "tools/stream/cluster.h"

struct piece {
    struct sender *s;
    uint64_t off;
    uint32_t len;
    struct rpc_reply r; /* of the read: the data */
};

struct sender {
    struct stream_cluster *c;
    const struct stream_io *io;
    struct stream *out;
    uint64_t id, base_id;
    struct piece pieces[STREAM_AT_ONCE];
    uint32_t n_pieces;
    uint64_t zero_off, zero_len; /* zeroes that were not sent yet, to be joined by more */
};

/* ---- records ---- */

static int put(struct sender *s, struct stream_record r, const void *payload)
{
    uint8_t head[STREAM_RECORD_BYTES];
    int rc;

    stream_record_pack(s->out, &r, payload, head);
    rc = s->io->write(s->io->arg, head, sizeof(head));
    if (rc == 0 && r.kind == STREAM_DATA)
        rc = s->io->write(s->io->arg, payload, r.length);
    return rc;
}

static int zeroes_flush(struct sender *s)
{
    struct stream_record r = {.kind = STREAM_ZERO, .offset = s->zero_off, .length = s->zero_len};

    s->zero_len = 0;
    return r.length > 0 ? put(s, r, NULL) : 0;
}

/* What nobody has written is zeroes at the other side of a full stream, too. */
static int put_zeroes(struct sender *s, uint64_t off, uint32_t len)
{
    int rc = 0;

    if (!s->out->header.incremental)
        return 0;
    if (s->zero_len > 0 && s->zero_off + s->zero_len != off)
        rc = zeroes_flush(s);
    if (s->zero_len == 0)
        s->zero_off = off;
    s->zero_len += len;
    return rc;
}

static int put_data(struct sender *s, uint64_t off, uint32_t len, const uint8_t *data)
{
    int rc = zeroes_flush(s);

    return rc < 0
               ? rc
               : put(s, (struct stream_record){.kind = STREAM_DATA, .offset = off, .length = len},
                     data);
}

static bool is_zero(const uint8_t *p, uint32_t len)
{
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* Runs of pages with and without data. */
static int put_piece(struct sender *s, const struct piece *p)
{
    const uint8_t *data = p->r.payload->data + p->r.payload_off;
    uint32_t at = 0;

    while (at < p->len) {
        uint32_t end = MIN(at + PAGE_BYTES, p->len), next;
        bool zero = is_zero(data + at, end - at);
        int rc;

        while (end < p->len) {
            next = MIN(end + PAGE_BYTES, p->len);
            if (is_zero(data + end, next - end) != zero)
                break;
            end = next;
        }
        rc = zero ? put_zeroes(s, p->off + at, end - at)
                  : put_data(s, p->off + at, end - at, data + at);
        if (rc < 0)
            return rc;
        at = end;
    }
    return 0;
}

/* ---- reading ---- */

static int piece_read(void *arg)
{
    struct piece *p = arg;
    Zbs__Access__VolumeReadRequest q = ZBS__ACCESS__VOLUME_READ_REQUEST__INIT;
    const Zbs__Access__VolumeReadReply *m;
    int rc;

    q.volume_id = p->s->id;
    q.offset = p->off;
    q.length = p->len;
    rc = stream_access(p->s->c, ACCESS_VOLUME_READ, &q.base, NULL, 0, &p->r);
    if (rc < 0)
        return rc;
    m = (const Zbs__Access__VolumeReadReply *)p->r.msg;
    if (p->r.payload_len != p->len ||
        crc32c(0, p->r.payload->data + p->r.payload_off, p->len) != m->crc)
        return err_set(ERR_CORRUPT, "an access server's answer does not match its checksum");
    return 0;
}

static int pieces_go(struct sender *s)
{
    struct co_group g;
    int rc;

    co_group_init(&g);
    for (uint32_t i = 0; i < s->n_pieces; i++) {
        rpc_reply_init(&s->pieces[i].r);
        co_spawn(&g, "piece", piece_read, &s->pieces[i]);
    }
    rc = co_group_join(&g);
    for (uint32_t i = 0; i < s->n_pieces; i++) {
        if (rc == 0)
            rc = put_piece(s, &s->pieces[i]);
        rpc_reply_free(&s->pieces[i].r);
    }
    s->n_pieces = 0;
    return rc;
}

static int span_send(struct sender *s, uint64_t off, uint64_t end)
{
    while (off < end) {
        uint32_t len = (uint32_t)MIN(end - off, STREAM_DATA_MAX);
        int rc;

        s->pieces[s->n_pieces++] = (struct piece){.s = s, .off = off, .len = len};
        off += len;
        rc = s->n_pieces == STREAM_AT_ONCE ? pieces_go(s) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- differences ---- */

static int reply_check(const Zbs__Access__DifferencesReply *m, uint64_t from, uint64_t size)
{
    uint64_t at = from;
    bool good = m->n_offsets == m->n_lengths && m->next > from && m->next <= size;

    for (size_t i = 0; good && i < m->n_offsets; i++) {
        good = m->offsets[i] >= at && m->offsets[i] < m->next && m->lengths[i] > 0 &&
               m->lengths[i] <= m->next - m->offsets[i] && m->offsets[i] % SECTOR_BYTES == 0 &&
               m->lengths[i] % SECTOR_BYTES == 0;
        at = m->offsets[i] + m->lengths[i];
    }
    return good ? 0 : err_set(ERR_PROTO, "an access server lists differences that can't be");
}

static int differences_send(struct sender *s, uint64_t *at)
{
    Zbs__Access__DifferencesRequest q = ZBS__ACCESS__DIFFERENCES_REQUEST__INIT;
    const Zbs__Access__DifferencesReply *m;
    struct rpc_reply r;
    int rc;

    q.volume_id = s->id;
    q.base_id = s->base_id;
    q.from = *at;
    rc = stream_access(s->c, ACCESS_DIFFERENCES, &q.base, NULL, 0, &r);
    if (rc < 0)
        return rc;
    m = (const Zbs__Access__DifferencesReply *)r.msg;
    rc = reply_check(m, *at, s->out->header.size_bytes);
    for (size_t i = 0; i < m->n_offsets && rc == 0; i++) {
        rc = span_send(s, m->offsets[i], m->offsets[i] + m->lengths[i]);
        if (rc == 0 && s->io->progress)
            s->io->progress(s->io->arg, s->out, m->offsets[i]);
    }
    *at = m->next;
    rpc_reply_free(&r);
    return rc;
}

/* ---- the whole ---- */

static void name_set(char dst[STREAM_NAME_ROOM], const char *name)
{
    snprintf(dst, STREAM_NAME_ROOM, "%s", name);
}

static int snapshot_get(struct stream_cluster *c, const struct stream_name *name,
                        struct rpc_reply *r)
{
    int rc = stream_volume_get(c, name->pool, name->volume, name->snapshot, r);
    const Zbs__Meta__Volume *v;

    if (rc < 0)
        return rc;
    v = (const Zbs__Meta__Volume *)r->msg;
    if (v->snapshot && v->content.len == STREAM_ID_BYTES && v->size_bytes > 0)
        return 0;
    rpc_reply_free(r);
    return err_set(ERR_PROTO, "meta describes snapshot '%s@%s' impossibly", name->volume,
                   name->snapshot);
}

static int base_take(struct sender *s, const struct stream_name *since, const Zbs__Meta__Volume *v)
{
    struct rpc_reply r;
    const Zbs__Meta__Volume *b;
    int rc = snapshot_get(s->c, since, &r);

    if (rc < 0)
        return rc;
    b = (const Zbs__Meta__Volume *)r.msg;
    if (b->origin_id != v->origin_id || b->id >= v->id)
        rc = err_set(ERR_INVAL, "'%s/%s' is not an older snapshot of the same volume as '%s/%s'",
                     b->pool, b->name, v->pool, v->name);
    s->base_id = b->id;
    s->out->header.incremental = true;
    memcpy(s->out->header.base, b->content.data, STREAM_ID_BYTES);
    rpc_reply_free(&r);
    return rc;
}

static int header_take(struct sender *s, const struct stream_name *name,
                       const struct stream_name *since)
{
    struct stream_header *h = &s->out->header;
    struct rpc_reply r;
    const Zbs__Meta__Volume *v;
    int rc = snapshot_get(s->c, name, &r);

    if (rc < 0)
        return rc;
    v = (const Zbs__Meta__Volume *)r.msg;
    s->id = v->id;
    h->size_bytes = v->size_bytes;
    h->created_ns = v->created_ns;
    memcpy(h->content, v->content.data, STREAM_ID_BYTES);
    name_set(h->pool, name->pool);
    name_set(h->volume, name->volume);
    name_set(h->snapshot, name->snapshot);
    if (since)
        rc = base_take(s, since, v);
    rpc_reply_free(&r);
    return rc;
}

int stream_send(struct stream_cluster *c, const struct stream_name *name,
                const struct stream_name *since, const struct stream_io *io, struct stream *ret)
{
    struct sender *s = MEM_NEW(struct sender);
    uint8_t head[STREAM_HEADER_BYTES];
    uint64_t at = 0;
    int rc;

    *ret = (struct stream){0};
    *s = (struct sender){.c = c, .io = io, .out = ret};
    rc = header_take(s, name, since);
    if (rc == 0) {
        stream_header_pack(&ret->header, head);
        rc = io->write(io->arg, head, sizeof(head));
    }
    while (rc == 0 && at < ret->header.size_bytes)
        rc = differences_send(s, &at);
    if (rc == 0)
        rc = pieces_go(s);
    if (rc == 0)
        rc = zeroes_flush(s);
    if (rc == 0)
        rc = put(s, (struct stream_record){.kind = STREAM_END}, NULL);
    mem_free(s);
    return rc;
}
