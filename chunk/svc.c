/* SPDX-License-Identifier: Apache-2.0
 *
 * The RPC service of extents: checks requests, calls the worker's engine, fills replies. A handler
 * runs on the loop of the worker that its connection asked for. */
#include <inttypes.h>
#include <string.h>
#include "chunk/server.h"
#include "common/base/mem.h"
#include "common/cluster/layout.h"
#include "common/co/sync.h"

#define BATCH_MAX      4096u /* items of one request */
#define RANGES_MAX     8192u
#define LIST_MAX       4096u
#define BATCH_PARALLEL 64u
/* Shorter writes go into the journal, so they would be copied anyway. */
#define WRITE_SHARED_MIN (64u * 1024)

static struct engine *engine_of(struct rpc_request *q)
{
    return ((struct worker *)q->ctx)->engine;
}

/* The request must have come to the extent's worker. */
static int extent_here(const struct rpc_request *q, uint64_t id, uint64_t family)
{
    const struct worker *w = q->ctx;
    uint32_t right = extent_worker(family != 0 ? family : id, w->server->n_workers);

    if (right != w->index)
        return err_set(ERR_INVAL,
                       "extent %" PRIu64 " is served by worker %" PRIu32 ", not %" PRIu32, id,
                       right, w->index);
    return 0;
}

static struct version version_of(const Zbs__Version *v)
{
    return v != NULL ? (struct version){v->epoch, v->gen} : (struct version){0, 0};
}

static Zbs__Version *version_message(struct rpc_request *q, struct version v)
{
    Zbs__Version *m = rpc_alloc(q, sizeof(*m));

    zbs__version__init(m);
    m->epoch = v.epoch;
    m->gen = v.gen;
    return m;
}

static Zbs__Result *result_message(struct rpc_request *q, int rc)
{
    Zbs__Result *m = rpc_alloc(q, sizeof(*m));

    zbs__result__init(m);
    m->rc = rc;
    m->text = rpc_strdup(q, rc < 0 ? err_text(rc) : "");
    return m;
}

/* ---- batches: items of a request, several at a time ---- */

struct batch {
    struct rpc_request *q;
    size_t n, next;
    int (*one)(struct rpc_request *q, size_t i);
    int rc; /* of the first that failed; the others are done all the same */
};

static co_fn int batch_runner(void *arg)
{
    struct batch *b = arg;

    while (b->next < b->n) {
        int rc = b->one(b->q, b->next++);

        if (rc < 0 && b->rc == 0)
            b->rc = rc;
    }
    return 0;
}

static co_fn int batch_run(struct rpc_request *q, size_t n,
                           int (*one)(struct rpc_request *q, size_t i))
{
    struct batch b = {.q = q, .n = n, .one = one};
    struct co_group g;
    int rc;

    if (n > BATCH_MAX)
        return err_set(ERR_TOO_LARGE, "%zu items in one request; at most %u", n, BATCH_MAX);
    co_group_init(&g);
    for (size_t i = 1; i < MIN(n, BATCH_PARALLEL); i++)
        co_spawn(&g, "batch", batch_runner, &b);
    rc = batch_runner(&b);
    if (n > 1)
        rc = co_group_join(&g);
    return rc < 0 ? rc : b.rc;
}

/* ---- create, open, delete ---- */

static co_fn int create_one(struct rpc_request *q, size_t i)
{
    const Zbs__Chunk__CreateItem *it = ((const Zbs__Chunk__CreateRequest *)q->msg)->items[i];
    Zbs__Chunk__CreateReply *reply = (Zbs__Chunk__CreateReply *)q->reply;
    const struct create_args a = {
        .id = it->extent_id,
        .epoch = it->epoch,
        .volume_id = it->volume_id,
        .slot = it->slot,
        .family = it->family,
        .origin = it->origin,
        .origin_epoch = it->origin_epoch,
        .reserve = it->reserve,
    };
    int rc = extent_here(q, it->extent_id, it->family);

    if (rc == 0)
        rc = engine_create_as(engine_of(q), &a);
    reply->results[i] = result_message(q, rc);
    return 0;
}

static co_fn int svc_create(struct rpc_request *q)
{
    const Zbs__Chunk__CreateRequest *m = (const Zbs__Chunk__CreateRequest *)q->msg;
    Zbs__Chunk__CreateReply *reply = (Zbs__Chunk__CreateReply *)q->reply;

    reply->results = rpc_alloc(q, m->n_items * sizeof(*reply->results));
    reply->n_results = m->n_items;
    return batch_run(q, m->n_items, create_one);
}

static void open_uncommitted(struct rpc_request *q, const struct open_info *oi,
                             Zbs__Chunk__OpenResult *r)
{
    r->uncommitted = rpc_alloc(q, oi->n_uncommitted * sizeof(*r->uncommitted));
    r->n_uncommitted = oi->n_uncommitted;
    for (uint32_t i = 0; i < oi->n_uncommitted; i++) {
        const struct uncommitted *u = &oi->uncommitted[i];
        Zbs__PageRangeVersion *m = rpc_alloc(q, sizeof(*m));

        zbs__page_range_version__init(m);
        m->first = u->first;
        m->count = u->last - u->first + 1u;
        m->version = version_message(q, u->v);
        r->uncommitted[i] = m;
    }
}

static void open_missing(struct rpc_request *q, const struct open_info *oi,
                         Zbs__Chunk__OpenResult *r)
{
    r->missing = rpc_alloc(q, oi->n_missing * sizeof(*r->missing));
    r->n_missing = oi->n_missing;
    for (uint32_t i = 0; i < oi->n_missing; i++) {
        Zbs__Chunk__MissingInfo *m = rpc_alloc(q, sizeof(*m));

        zbs__chunk__missing_info__init(m);
        m->replica = oi->missing[i].replica;
        m->last_version = version_message(q, oi->missing[i].last_version);
        m->pages = oi->missing[i].pages;
        m->everything = oi->missing[i].everything;
        r->missing[i] = m;
    }
}

static co_fn int open_one(struct rpc_request *q, size_t i)
{
    const Zbs__Chunk__OpenItem *it = ((const Zbs__Chunk__OpenRequest *)q->msg)->items[i];
    Zbs__Chunk__OpenReply *reply = (Zbs__Chunk__OpenReply *)q->reply;
    Zbs__Chunk__OpenResult *r = rpc_alloc(q, sizeof(*r));
    const struct open_args a = {.id = it->extent_id,
                                .epoch = it->epoch,
                                .credit_blocks = it->credit_blocks,
                                .thaw = it->thaw};
    struct open_info oi = {0};
    int rc = extent_here(q, it->extent_id, it->family);

    zbs__chunk__open_result__init(r);
    reply->results[i] = r;
    if (rc == 0)
        rc = engine_open_as(engine_of(q), &a, &oi);
    r->result = result_message(q, rc);
    r->epoch = oi.epoch;
    if (rc < 0)
        return 0;
    r->commit_point = version_message(q, oi.commit_point);
    r->last_version = version_message(q, oi.last_version);
    r->credit_blocks = oi.credits;
    r->void_ = oi.is_void;
    r->vouched = oi.vouched;
    r->allocated.len = sizeof(oi.allocated);
    r->allocated.data = rpc_alloc(q, sizeof(oi.allocated));
    memcpy(r->allocated.data, oi.allocated, sizeof(oi.allocated));
    r->frozen = oi.frozen;
    r->reserved = oi.reserved;
    if (!mem_is_zero(oi.shared, sizeof(oi.shared))) {
        r->shared.len = sizeof(oi.shared);
        r->shared.data = rpc_alloc(q, sizeof(oi.shared));
        memcpy(r->shared.data, oi.shared, sizeof(oi.shared));
    }
    open_uncommitted(q, &oi, r);
    open_missing(q, &oi, r);
    open_info_free(&oi);
    return 0;
}

static co_fn int svc_open(struct rpc_request *q)
{
    const Zbs__Chunk__OpenRequest *m = (const Zbs__Chunk__OpenRequest *)q->msg;
    Zbs__Chunk__OpenReply *reply = (Zbs__Chunk__OpenReply *)q->reply;

    reply->results = rpc_alloc(q, m->n_items * sizeof(*reply->results));
    reply->n_results = m->n_items;
    return batch_run(q, m->n_items, open_one);
}

static co_fn int delete_one(struct rpc_request *q, size_t i)
{
    const Zbs__Chunk__DeleteRequest *m = (const Zbs__Chunk__DeleteRequest *)q->msg;
    Zbs__Chunk__DeleteReply *reply = (Zbs__Chunk__DeleteReply *)q->reply;
    int rc = extent_here(q, m->items[i]->extent_id, m->items[i]->family);

    if (rc == 0)
        rc = engine_delete(engine_of(q), m->term, m->items[i]->extent_id, m->items[i]->epoch);
    reply->results[i] = result_message(q, rc);
    return 0;
}

static co_fn int svc_delete(struct rpc_request *q)
{
    const Zbs__Chunk__DeleteRequest *m = (const Zbs__Chunk__DeleteRequest *)q->msg;
    Zbs__Chunk__DeleteReply *reply = (Zbs__Chunk__DeleteReply *)q->reply;

    reply->results = rpc_alloc(q, m->n_items * sizeof(*reply->results));
    reply->n_results = m->n_items;
    return batch_run(q, m->n_items, delete_one);
}

/* ---- data ---- */

/* Pages that the payload covers in part are put together from it, which takes memory that keeps
 * still. */
static void payload_own(struct rpc_request *q)
{
    struct buf *own = buf_alloc(q->payload_len);

    memcpy(own->data, q->payload->data, q->payload_len);
    buf_put(q->payload);
    q->payload = own;
}

static co_fn int svc_write(struct rpc_request *q)
{
    const Zbs__Chunk__WriteRequest *m = (const Zbs__Chunk__WriteRequest *)q->msg;
    Zbs__Chunk__WriteReply *reply = (Zbs__Chunk__WriteReply *)q->reply;
    struct write_args a = {
        .id = m->extent_id,
        .v = {m->epoch, m->gen},
        .commit_point = version_of(m->commit_point),
        .off = m->offset,
        .len = m->length,
        .crc = m->crc,
        .n_crc = (uint32_t)m->n_crc,
        .missing = m->missing,
        .n_missing = (uint32_t)m->n_missing,
        .repair = m->repair,
    };
    struct write_result res;
    int rc = extent_here(q, m->extent_id, m->family);

    if (rc < 0)
        return rc;
    if (m->kind > ZBS__CHUNK__WRITE_KIND__WRITE_DISCARD)
        return err_set(ERR_UNSUPPORTED, "write of kind %" PRIu32, m->kind);
    if (m->kind == ZBS__CHUNK__WRITE_KIND__WRITE_DATA && q->payload_len != m->length)
        return err_set(ERR_INVAL, "a write of %" PRIu32 " bytes with a payload of %" PRIu32,
                       m->length, q->payload_len);
    if (q->payload != NULL && buf_is_foreign(q->payload) &&
        (m->offset % PAGE_BYTES != 0 || m->length % PAGE_BYTES != 0))
        payload_own(q);
    a.payload = q->payload;
    a.kind = m->kind == ZBS__CHUNK__WRITE_KIND__WRITE_DATA   ? W_DATA
             : m->kind == ZBS__CHUNK__WRITE_KIND__WRITE_ZERO ? W_ZERO
                                                             : W_DISCARD;
    rc = engine_write(engine_of(q), &a, &res);
    reply->new_blocks = res.new_blocks;
    reply->space_low = res.space_low;
    return rc;
}

static co_fn int svc_read(struct rpc_request *q)
{
    const Zbs__Chunk__ReadRequest *m = (const Zbs__Chunk__ReadRequest *)q->msg;
    Zbs__Chunk__ReadReply *reply = (Zbs__Chunk__ReadReply *)q->reply;
    const struct read_args a = {
        .id = m->extent_id,
        .epoch = m->epoch,
        .view_epoch = m->view_epoch,
        .off = m->offset,
        .len = m->length,
        .room = m->length <= q->room_len ? q->room : NULL,
    };
    struct read_result res;
    int rc = extent_here(q, m->extent_id, m->family);

    if (rc < 0)
        return rc;
    rc = engine_read_as(engine_of(q), &a, &res);
    if (rc < 0)
        return rc;
    reply->zero = res.zero;
    if (res.zero)
        return 0;
    reply->n_crc = res.n_crc;
    reply->crc = rpc_alloc(q, res.n_crc * sizeof(*reply->crc));
    memcpy(reply->crc, res.crc, res.n_crc * sizeof(*reply->crc));
    rpc_payload_add(&q->out, res.buf, res.buf_off, m->length);
    buf_put(res.buf);
    return 0;
}

static co_fn int commit_point_one(struct rpc_request *q, size_t i)
{
    const Zbs__Chunk__CommitPointItem *it =
        ((const Zbs__Chunk__CommitPointRequest *)q->msg)->items[i];
    int rc = extent_here(q, it->extent_id, it->family);

    if (rc == 0)
        rc = engine_commit_point(engine_of(q), it->extent_id, it->epoch,
                                 version_of(it->commit_point));
    if (rc == 0 && it->vouch)
        rc = engine_vouch(engine_of(q), it->extent_id, it->epoch);
    return rc;
}

/* One that is refused fails the request, so that the sender does not take it for confirmed. */
static co_fn int svc_commit_point(struct rpc_request *q)
{
    const Zbs__Chunk__CommitPointRequest *m = (const Zbs__Chunk__CommitPointRequest *)q->msg;

    return batch_run(q, m->n_items, commit_point_one);
}

static co_fn int svc_check_epoch(struct rpc_request *q)
{
    const Zbs__Chunk__CheckEpochRequest *m = (const Zbs__Chunk__CheckEpochRequest *)q->msg;
    int rc = extent_here(q, m->extent_id, m->family);

    return rc < 0 ? rc : engine_check_epoch(engine_of(q), m->extent_id, m->epoch);
}

static co_fn int svc_reserve(struct rpc_request *q)
{
    const Zbs__Chunk__ReserveRequest *m = (const Zbs__Chunk__ReserveRequest *)q->msg;
    Zbs__Chunk__ReserveReply *reply = (Zbs__Chunk__ReserveReply *)q->reply;
    int rc = extent_here(q, m->extent_id, m->family);

    return rc < 0
               ? rc
               : engine_reserve(engine_of(q), m->extent_id, m->epoch, m->blocks, &reply->granted);
}

static co_fn int svc_replica_reserve(struct rpc_request *q)
{
    const Zbs__Chunk__ReplicaReserveRequest *m = (const Zbs__Chunk__ReplicaReserveRequest *)q->msg;
    int rc = extent_here(q, m->extent_id, m->family);

    return rc < 0 ? rc
                  : engine_reserve_extent(engine_of(q), m->extent_id, m->epoch, m->reserve,
                                          m->credit_blocks);
}

/* ---- missing sets ---- */

static const struct page_range *ranges_of(struct rpc_request *q, Zbs__PageRange **in, size_t n)
{
    struct page_range *out = rpc_alloc(q, n * sizeof(*out));

    for (size_t i = 0; i < n; i++)
        out[i] = (struct page_range){in[i]->first, in[i]->count};
    return out;
}

static Zbs__PageRange **ranges_message(struct rpc_request *q, const struct page_range *in,
                                       uint32_t n)
{
    Zbs__PageRange **out = rpc_alloc(q, n * sizeof(Zbs__PageRange *));

    for (uint32_t i = 0; i < n; i++) {
        out[i] = rpc_alloc(q, sizeof(*out[i]));
        zbs__page_range__init(out[i]);
        out[i]->first = in[i].first;
        out[i]->count = in[i].count;
    }
    return out;
}

static co_fn int svc_missing_start(struct rpc_request *q)
{
    const Zbs__Chunk__MissingStartRequest *m = (const Zbs__Chunk__MissingStartRequest *)q->msg;
    struct missing_change *c;
    int rc = extent_here(q, m->extent_id, m->family);

    if (rc < 0)
        return rc;
    if (m->n_items > MISSING_MAX)
        return err_set(ERR_TOO_LARGE, "missing sets of %zu replicas", m->n_items);
    c = rpc_alloc(q, m->n_items * sizeof(*c));
    for (size_t i = 0; i < m->n_items; i++) {
        const Zbs__Chunk__MissingStartItem *it = m->items[i];

        if (it->n_ranges > RANGES_MAX)
            return err_set(ERR_TOO_LARGE, "%zu ranges", it->n_ranges);
        c[i] = (struct missing_change){
            .replica = it->replica,
            .last_version = version_of(it->last_version),
            .add = ranges_of(q, it->ranges, it->n_ranges),
            .n_add = (uint32_t)it->n_ranges,
            .start = true,
            .everything = it->everything,
        };
    }
    return engine_missing_change(engine_of(q), m->extent_id, m->epoch, c, (uint32_t)m->n_items);
}

static co_fn int svc_missing_update(struct rpc_request *q)
{
    const Zbs__Chunk__MissingUpdateRequest *m = (const Zbs__Chunk__MissingUpdateRequest *)q->msg;
    struct missing_change c;
    int rc = extent_here(q, m->extent_id, m->family);

    if (rc < 0)
        return rc;
    if (m->n_clear > RANGES_MAX || m->n_add > RANGES_MAX)
        return err_set(ERR_TOO_LARGE, "%zu ranges", m->n_clear + m->n_add);
    c = (struct missing_change){
        .replica = m->replica,
        .last_version = version_of(m->last_version),
        .add = ranges_of(q, m->add, m->n_add),
        .n_add = (uint32_t)m->n_add,
        .clear = ranges_of(q, m->clear, m->n_clear),
        .n_clear = (uint32_t)m->n_clear,
        .drop = m->drop,
    };
    return engine_missing_change(engine_of(q), m->extent_id, m->epoch, &c, 1);
}

static co_fn int svc_missing_get(struct rpc_request *q)
{
    const Zbs__Chunk__MissingGetRequest *m = (const Zbs__Chunk__MissingGetRequest *)q->msg;
    Zbs__Chunk__MissingGetReply *reply = (Zbs__Chunk__MissingGetReply *)q->reply;
    uint32_t max = MIN(m->max_ranges, RANGES_MAX);
    struct page_range *ranges = rpc_alloc(q, (max + 1) * sizeof(*ranges));
    struct missing_page page;
    int rc = extent_here(q, m->extent_id, m->family);

    if (rc == 0)
        rc = engine_missing_get(engine_of(q), m->extent_id, m->epoch, m->replica, m->from_page,
                                ranges, max, &page);
    if (rc < 0)
        return rc;
    reply->known = page.known;
    reply->more = page.more;
    reply->last_version = version_message(q, page.last_version);
    reply->n_ranges = page.count;
    reply->ranges = ranges_message(q, ranges, page.count);
    return 0;
}

/* ---- digest, list ---- */

static co_fn int svc_digest(struct rpc_request *q)
{
    const Zbs__Chunk__DigestRequest *m = (const Zbs__Chunk__DigestRequest *)q->msg;
    Zbs__Chunk__DigestReply *reply = (Zbs__Chunk__DigestReply *)q->reply;
    int rc = extent_here(q, m->extent_id, m->family);

    if (rc == 0 && m->count > DIGEST_MAX)
        rc =
            err_set(ERR_TOO_LARGE, "digest of %" PRIu32 " pages; at most %u", m->count, DIGEST_MAX);
    if (rc < 0)
        return rc;
    reply->crc = rpc_alloc(q, (m->count + 1) * sizeof(*reply->crc));
    rc = engine_digest(engine_of(q), m->extent_id, m->epoch, m->first_page, m->count, m->verify,
                       reply->crc);
    reply->n_crc = rc < 0 ? 0 : m->count;
    return rc;
}

static co_fn int svc_list_replicas(struct rpc_request *q)
{
    const Zbs__Chunk__ListReplicasRequest *m = (const Zbs__Chunk__ListReplicasRequest *)q->msg;
    Zbs__Chunk__ListReplicasReply *reply = (Zbs__Chunk__ListReplicasReply *)q->reply;
    uint32_t max = m->max == 0 ? LIST_MAX : MIN(m->max, LIST_MAX), n;
    struct replica_info *info = rpc_alloc(q, (max + 1) * sizeof(*info));
    bool more;

    n = engine_list(engine_of(q), m->after_extent_id, info, max, &more);
    reply->more = more;
    reply->n_replicas = n;
    reply->replicas = rpc_alloc(q, n * sizeof(*reply->replicas));
    for (uint32_t i = 0; i < n; i++) {
        Zbs__Chunk__ReplicaInfo *r = rpc_alloc(q, sizeof(*r));

        zbs__chunk__replica_info__init(r);
        r->extent_id = info[i].id;
        r->epoch = info[i].epoch;
        r->volume_id = info[i].volume_id;
        r->last_version = version_message(q, info[i].last_version);
        r->blocks = info[i].blocks;
        r->family = info[i].family;
        r->frozen = info[i].frozen;
        r->reserved = info[i].reserved;
        reply->replicas[i] = r;
    }
    return 0;
}

/* ---- difference ---- */

static co_fn int svc_diff(struct rpc_request *q)
{
    const Zbs__Chunk__DiffRequest *m = (const Zbs__Chunk__DiffRequest *)q->msg;
    Zbs__Chunk__DiffReply *reply = (Zbs__Chunk__DiffReply *)q->reply;
    uint32_t max = MIN(m->max_ranges, RANGES_MAX);
    struct page_range *ranges = rpc_alloc(q, (max + 1) * sizeof(*ranges));
    struct diff_shared of = {m->extent_id, m->view_epoch, m->other_id, m->other_view_epoch};
    struct diff_result res;
    int rc = extent_here(q, m->extent_id, m->family);

    if (rc == 0 && m->in_common)
        rc = engine_in_common(engine_of(q), m->extent_id, m->from_page, ranges, max, &res);
    else if (rc == 0 && m->shared)
        rc = engine_diff_shared(engine_of(q), &of, m->from_page, ranges, max, &res);
    else if (rc == 0)
        rc = engine_diff(engine_of(q), m->extent_id, m->other_id, m->from_page, ranges, max, &res);
    if (rc < 0)
        return rc;
    reply->more = res.more;
    reply->next_page = res.next_page;
    reply->n_ranges = res.count;
    reply->ranges = ranges_message(q, ranges, res.count);
    return 0;
}

/* By position in the service of proto/chunk.proto. */
const struct rpc_method chunk_methods[] = {
    {.handler = svc_info},
    {.handler = svc_create},
    {.handler = svc_open},
    {.handler = svc_write, .payload_max = RPC_PAYLOAD_MAX, .payload_shared_min = WRITE_SHARED_MIN},
    {.handler = svc_read},
    {.handler = svc_commit_point},
    {.handler = svc_check_epoch},
    {.handler = svc_reserve},
    {.handler = svc_missing_start},
    {.handler = svc_missing_update},
    {.handler = svc_missing_get},
    {.handler = svc_delete},
    {.handler = svc_digest},
    {.handler = svc_list_replicas},
    {.handler = svc_disk_add},
    {.handler = svc_scrub},
    {.handler = svc_disk_drain},
    {.handler = svc_disk_remove},
    {.handler = svc_diff},
    {.handler = svc_replica_reserve},
};
