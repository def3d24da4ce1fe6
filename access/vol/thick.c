/* SPDX-License-Identifier: Apache-2.0
 *
 * Thick volumes: every replica of every extent promises the space for all of it. When a volume
 * becomes thick, or thin again, meta asks for one slot after the other (TASK_THICK, TASK_THIN); a
 * replica that is made or comes back later is asked when it is opened. */
#include "access/vol/vol_int.h"

static void request_fill(Zbs__Chunk__ReplicaReserveRequest *req, const struct tenure *t)
{
    zbs__chunk__replica_reserve_request__init(req);
    req->extent_id = t->extent_id;
    req->family = t->family;
    req->epoch = t->epoch;
    req->reserve = t->thick;
}

struct pass {
    struct volume *v;
    uint64_t number; /* meta's; 0: none, or nothing more to do */
    uint32_t slot;
    bool thick;
};

/* What came of a slot; the answer says what to do next. */
static int tell_meta(struct pass *p, bool no_space)
{
    Zbs__Meta__SlotProvisionedRequest req = ZBS__META__SLOT_PROVISIONED_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct vol_engine *e = p->v->e;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(e->meta, &m);
    req.mutation = &m;
    req.session_id = e->session;
    req.volume_id = p->v->info.id;
    req.slot = p->slot;
    req.pass = p->number;
    req.no_space = no_space;
    rpc_reply_init(&r);
    rc = meta_call(e->meta, META_SLOT_PROVISIONED, &req.base, true, &r);
    if (rc == 0) {
        p->number = ((const Zbs__Meta__SlotProvisionedReply *)r.msg)->pass;
        p->slot = ((const Zbs__Meta__SlotProvisionedReply *)r.msg)->next_slot;
    }
    rpc_reply_free(&r);
    return rc;
}

/* ---- at an open ---- */

void thick_opened(struct tenure *t, uint32_t i, const Zbs__Chunk__OpenResult *r)
{
    Zbs__Chunk__ReplicaReserveRequest req;
    struct rpc_reply reply;
    int rc;

    t->m[i].unpromised = false;
    if (t->repair || r->reserved == t->thick)
        return;
    request_fill(&req, t);
    rpc_reply_init(&reply);
    rc = chunk_call(t->m[i].chunk, t->family, CHUNK_REPLICA_RESERVE, &req.base, NULL, &reply,
                    t->e->member_deadline);
    rpc_reply_free(&reply);
    if (!t->thick)
        t->m[i].credits = 0; /* they went with the promise */
    t->m[i].unpromised = t->thick && rc < 0;
}

static int lapsed_run(void *arg)
{
    struct slot *s = arg;
    struct pass p = {.v = s->vol, .slot = s->index};

    best_effort(tell_meta(&p, true));
    return 0;
}

void thick_serve(struct tenure *t)
{
    bool lapsed = false;

    for (uint32_t i = 0; i < t->n; i++)
        lapsed |= ((t->set | t->joining) >> i & 1) && t->m[i].unpromised;
    if (lapsed)
        co_spawn_detached_deadline(&t->e->bg, "lapsed", lapsed_run, t->slot);
}

/* ---- slot by slot ---- */

/* Asks all replicas. Before a promise is taken back, the writes that may count on it have ended. */
static int tenure_promise(struct tenure *t, bool thick)
{
    Zbs__Chunk__ReplicaReserveRequest req;
    struct member_req q = {.method = CHUNK_REPLICA_RESERVE, .msg = &req.base, .pass_nospace = true};
    struct co_range all;
    int rc;

    t->thick = thick;
    request_fill(&req, t);
    if (thick)
        return members_call(t, t->set | t->joining, &q);
    rc = co_range_acquire(&t->ranges, &all, 0, EXTENT_BYTES, true);
    if (rc < 0)
        return rc;
    rc = t->lost ? ERR_STALE : members_call(t, t->set | t->joining, &q);
    for (uint32_t i = 0; i < t->n; i++)
        t->m[i].credits = 0;
    co_range_release(&t->ranges, &all);
    return rc;
}

static int slot_promise(struct slot *s, bool thick)
{
    for (;;) {
        bool used = s->tenure != NULL;
        struct entry en;
        int rc = slot_enter(s, thick ? ENTER_WRITE : ENTER_READ, &en);

        if (rc < 0)
            return rc;
        if (en.t)
            rc = tenure_promise(en.t, thick);
        slot_leave(s, &en);
        if (!used && s->waiters == 0)
            s->for_task = true;
        if (rc != ERR_STALE && rc != ERR_AGAIN)
            return rc;
        rc = co_sleep(RETRY_PAUSE);
        if (rc < 0)
            return rc;
    }
}

static int pass_run(void *arg)
{
    struct pass *p = arg;
    struct slot *s;
    int rc = 0;

    while (rc == 0 && p->number != 0 && (s = vol_slot_at(p->v, p->slot)) != NULL) {
        rc = slot_promise(s, p->thick);
        if (rc == 0 || rc == ERR_NOSPACE)
            rc = tell_meta(p, rc == ERR_NOSPACE);
    }
    if (rc < 0) /* whoever has to, is asked again */
        log_info("slot.not_provisioned", "volume=%" PRIu64 " slot=%u error=%s \"%s\"",
                 p->v->info.id, p->slot, err_name(rc), err_text(rc));
    p->v->passing = false;
    mem_free(p);
    return 0;
}

void thick_task(struct volume *v, const Zbs__Meta__Task *task)
{
    struct pass *p;

    if (v->passing)
        return;
    v->passing = true;
    p = MEM_NEW(struct pass);
    *p = (struct pass){v, task->pass, task->slot, task->kind == TASK_THICK};
    co_spawn_detached_deadline(&v->e->bg, "provision", pass_run, p);
}
