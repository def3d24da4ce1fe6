/* SPDX-License-Identifier: Apache-2.0
 *
 * Giving a slot blocks that nothing else has, when meta asks for it (TASK_FLATTEN): a shared extent
 * becomes a child, and of an extent that shares blocks at any member each such block is read and
 * written anew, under its range lock, at the pace of copies. Between two blocks the slot is left,
 * so that snapshots and changes of ownership find it like any other; what is left to do is always
 * asked of the members, so there is nothing to remember. An absent replica misses what is written,
 * and gets it like everything else. */
#include "access/vol/vol_int.h"

struct flatten {
    struct slot *s;
    struct tenure *t; /* the one that the place is in */
    uint32_t member, page;
};

/* The first page from f->page on that is in a block which other extents have, too; none: false. */
static int find_page(struct flatten *f, struct tenure *t, bool *ret)
{
    Zbs__Chunk__DiffRequest req = ZBS__CHUNK__DIFF_REQUEST__INIT;
    struct member_req q = {.method = CHUNK_DIFF, .msg = &req.base, .stop_leaving = true};
    const Zbs__Chunk__DiffReply *m;
    struct rpc_reply r;
    int rc;

    req.extent_id = t->extent_id;
    req.family = t->family;
    req.in_common = true;
    req.from_page = f->page;
    req.max_ranges = 1;
    rpc_reply_init(&r);
    rc = member_call(t, f->member, &q, &r);
    m = (const Zbs__Chunk__DiffReply *)r.msg;
    *ret = rc == 0 && m->n_ranges > 0;
    if (*ret && (m->ranges[0]->first < f->page || m->ranges[0]->first >= PAGES_PER_EXTENT))
        rc = err_set(ERR_PROTO, "a page that was not asked for");
    else if (*ret)
        f->page = m->ranges[0]->first;
    rpc_reply_free(&r);
    return rc == ERR_NO_REPLICA ? 0 : rc; /* it is no member any more */
}

/* The next block that is shared at any member; none: *ret_done. */
static int find_block(struct flatten *f, struct tenure *t, bool *ret_done)
{
    for (; f->member < t->n; f->member++, f->page = 0) {
        bool found = false;
        int rc = 0;

        if (f->page < PAGES_PER_EXTENT && tenure_readable(t) >> f->member & 1)
            rc = find_page(f, t, &found);
        if (rc < 0 || found)
            return rc;
    }
    *ret_done = true;
    return 0;
}

static int write_block(struct flatten *f, struct tenure *t)
{
    uint32_t block = f->page / PAGES_PER_BLOCK;
    struct op *op =
        op_new(t, ZBS__CHUNK__WRITE_KIND__WRITE_DATA, block * BLOCK_BYTES, BLOCK_BYTES, NULL);
    int rc = op_lock(op);

    if (rc == 0)
        rc = op_rewrite(op, 0);
    op_put(op);
    if (rc == 0)
        f->page = (block + 1) * PAGES_PER_BLOCK;
    return rc;
}

/* The slot is entered for it; en->t is set. */
static int next_block(struct flatten *f, struct tenure *t, bool *ret_done)
{
    int rc;

    if (t != f->t) { /* another epoch, perhaps another extent */
        if (f->t)
            tenure_put(f->t);
        f->t = tenure_get(t);
        f->member = f->page = 0;
    }
    rc = find_block(f, t, ret_done);
    return rc < 0 || *ret_done ? rc : write_block(f, t);
}

static int flatten_slot(struct flatten *f)
{
    enum enter how = ENTER_READ;

    for (bool done = false;;) {
        struct entry en;
        int rc = slot_enter(f->s, how, &en);

        if (rc < 0 || (!en.t && !en.shared))
            return rc;
        if (en.t)
            rc = next_block(f, en.t, &done);
        how = en.shared ? ENTER_WRITE : ENTER_READ;
        slot_leave(f->s, &en);
        if (done)
            return rc;
        if (rc == ERR_STALE || rc == ERR_AGAIN)
            rc = co_sleep(RETRY_PAUSE);
        if (rc == 0 && f->t)
            rc = pace_copy(f->t, BLOCK_BYTES);
        if (rc < 0)
            return rc;
    }
}

static int tell_meta(struct slot *s)
{
    Zbs__Meta__SlotFlattenedRequest req = ZBS__META__SLOT_FLATTENED_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct vol_engine *e = s->vol->e;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(e->meta, &m);
    req.mutation = &m;
    req.session_id = e->session;
    req.volume_id = s->vol->info.id;
    req.slot = s->index;
    rpc_reply_init(&r);
    rc = meta_call(e->meta, META_SLOT_FLATTENED, &req.base, true, &r);
    rpc_reply_free(&r);
    return rc;
}

static int flatten_run(void *arg)
{
    struct flatten f = {.s = arg};
    int rc;

    phase_enter(PHASE_REPAIRING);
    rc = flatten_slot(&f);
    if (f.t)
        tenure_put(f.t);
    if (rc == 0)
        rc = tell_meta(f.s);
    if (rc < 0) /* whoever has to, is asked again */
        log_info("slot.not_flattened", "volume=%" PRIu64 " slot=%u error=%s \"%s\"",
                 f.s->vol->info.id, f.s->index, err_name(rc), err_text(rc));
    phase_leave(PHASE_REPAIRING);
    f.s->flattening = false;
    return 0;
}

void flatten_start(struct slot *s)
{
    if (s->flattening)
        return;
    s->flattening = true;
    co_spawn_detached_deadline(&s->vol->e->bg, "flatten", flatten_run, s);
}
