/* SPDX-License-Identifier: Apache-2.0
 *
 * Locks that are waited for (XNFS, C702, 14.2: blocking requests): a coroutine for each tries to
 * get it from meta, and when it has, calls the client's lock manager, at the address that the
 * request came from and no other. A client that can't be called, refuses, or does not answer gets
 * none: the lock is cleared again. That must not take away what the owner has there for another
 * reason, so only a new lock is waited for: a client that has some of the bytes already is not
 * called, but gets it when it asks again, as all clients do after a while. Waiting is forgotten
 * with this process, and when the client has not asked for long. */
#include "access/nfs/nlm.h"

#include "access/nfs/rpc_query.h"

#define WAITS_MAX        1024u
#define WAITS_CLIENT_MAX 64u                  /* of one address */
#define WAIT_TIME        (120 * NSEC_PER_SEC) /* since it was asked for; Linux asks every 30 s */
#define WAIT_STEP_MIN    (50 * NSEC_PER_MSEC) /* between two looks */
#define WAIT_STEP_MAX    NSEC_PER_SEC
#define SET_TIME         (10 * NSEC_PER_SEC)
#define CALL_TIME        (5 * NSEC_PER_SEC) /* for a call to the client */

struct nlm_wait {
    struct list link; /* server->lock_waits */
    struct nfs_server *s;
    struct co *co;
    struct co_cond look; /* it may be free */
    bool keep;           /* if it is locked, that is known to the client */
    nsec_t until;
    struct addr peer;
    char address[NET_ADDR_MAX], local[NET_ADDR_MAX]; /* of the client; ours */
    struct nfs_fh fh;
    uint64_t length; /* as the client says it */
    Zbs__Meta__Lock lock;
    char client[NLM_NAME_MAX + 1];
    uint8_t owner[NLM_OWNER_MAX];
};

/* ---- which ---- */

static bool same_owner(const Zbs__Meta__Lock *a, const Zbs__Meta__Lock *b)
{
    return a->inode_id == b->inode_id && a->svid == b->svid && strcmp(a->client, b->client) == 0 &&
           a->owner.len == b->owner.len &&
           (a->owner.len == 0 || memcmp(a->owner.data, b->owner.data, a->owner.len) == 0);
}

static bool same_range(const Zbs__Meta__Lock *a, const Zbs__Meta__Lock *b)
{
    return a->offset == b->offset && a->length == b->length;
}

/* Its last byte. */
static uint64_t last_of(const Zbs__Meta__Lock *l)
{
    return l->length == 0 ? UINT64_MAX : l->offset + l->length - 1;
}

static bool ranges_meet(const Zbs__Meta__Lock *a, const Zbs__Meta__Lock *b)
{
    return a->offset <= last_of(b) && b->offset <= last_of(a);
}

/* ---- the client ---- */

static void service_set(const struct nlm_wait *w, struct onc_service *ret, bool udp,
                        uint32_t program, uint32_t version, uint32_t port)
{
    strcpy(ret->from, w->local);
    onc_address_with_port(ret->to, w->address, port);
    ret->udp = udp;
    ret->program = program;
    ret->version = version;
}

static co_fn int query(const struct onc_service *service, uint32_t procedure,
                       const struct xdr_out *args, struct onc_answered *a)
{
    nsec_t former = co_deadline_push(co_now() + CALL_TIME);
    int rc = onc_query(service, procedure, args, a);

    co_deadline_restore(former);
    return rc;
}

/* Asks the client's portmapper, over the same protocol. */
static co_fn int find_over(const struct nlm_wait *w, bool udp, struct onc_service *ret)
{
    struct onc_service portmap;
    struct onc_answered a;
    struct xdr_out args;
    uint32_t port = 0;
    int rc;

    service_set(w, &portmap, udp, PORTMAP_PROGRAM, PORTMAP_V2, w->s->conf.client_portmap_port);
    xdr_out_init(&args);
    xdr_put_u32(&args, NLM_PROGRAM);
    xdr_put_u32(&args, NLM_V4);
    xdr_put_u32(&args, udp ? PORTMAP_UDP : PORTMAP_TCP);
    xdr_put_u32(&args, 0);
    rc = query(&portmap, PORTMAP_GETPORT, &args, &a);
    xdr_out_fini(&args);
    if (rc == 0)
        port = xdr_u32(&a.in);
    if (rc == 0 && (a.in.bad || port == 0 || port > UINT16_MAX))
        rc = err_set(ERR_NOTFOUND, "%s has no lock manager", w->address);
    if (rc == 0)
        service_set(w, ret, udp, NLM_PROGRAM, NLM_V4, port);
    return rc;
}

/* Its lock manager; over TCP if it listens there. */
static co_fn int find(const struct nlm_wait *w, struct onc_service *ret)
{
    int rc = find_over(w, false, ret);

    return rc < 0 && !co_canceled() ? find_over(w, true, ret) : rc;
}

static void put_granted(const struct nlm_wait *w, struct xdr_out *args)
{
    uint8_t handle[NFS_FH_BYTES], cookie[8];

    nfs_fh_pack(w->s->cluster_id, &w->fh, handle);
    env_random_bytes(cookie, sizeof(cookie));
    xdr_put_opaque(args, cookie, sizeof(cookie));
    xdr_put_bool(args, w->lock.exclusive);
    xdr_put_string(args, w->client);
    xdr_put_opaque(args, handle, sizeof(handle));
    xdr_put_opaque(args, w->owner, (uint32_t)w->lock.owner.len);
    xdr_put_u32(args, w->lock.svid);
    xdr_put_u64(args, w->lock.offset);
    xdr_put_u64(args, w->length);
}

/* Tells the client that it has the lock. 0: it takes it. */
static co_fn int offer(const struct nlm_wait *w, const struct onc_service *client)
{
    struct onc_answered a;
    struct xdr_out args;
    uint32_t len;
    int rc;

    xdr_out_init(&args);
    put_granted(w, &args);
    rc = query(client, NLMPROC4_GRANTED, &args, &a);
    xdr_out_fini(&args);
    if (rc < 0)
        return rc;
    (void)xdr_opaque(&a.in, NLM_COOKIE_MAX, &len);
    if (xdr_u32(&a.in) != NLM4_GRANTED || a.in.bad)
        return err_set(ERR_CONFLICT, "%s does not want the lock", w->address);
    return 0;
}

/* ---- meta ---- */

/* May the client still use the share? */
static co_fn bool admitted(const struct nlm_wait *w)
{
    const struct nfs_share *share;

    if (nfs_shares_refresh(w->s) < 0)
        return false;
    share = nfs_share_by_id(w->s, w->fh.share_id);
    return share != NULL && nfs_share_permit(share, &w->peer) != NULL;
}

/* A request about the wait's lock. Whoever ends the wait meanwhile waits for the outcome: it must
 * be known. */
static co_fn int ask_meta(struct nlm_wait *w, enum meta_method method, const ProtobufCMessage *rq)
{
    struct co_shield shield;
    struct rpc_reply r;
    int rc;

    co_shield_begin(&shield);
    (void)co_deadline_push(co_now() + SET_TIME);
    rc = nfs_meta_call(w->s, method, rq, &r);
    rpc_reply_free(&r);
    co_shield_end(&shield);
    return rc;
}

static co_fn int lock_set(struct nlm_wait *w)
{
    Zbs__Meta__LockSetRequest rq = ZBS__META__LOCK_SET_REQUEST__INIT;
    const struct nfs_backend *b = &w->s->conf.backend;
    Zbs__Meta__Mutation m;

    b->mutation(b->arg, &m);
    rq.mutation = &m;
    rq.lock = &w->lock;
    rq.only_new = true;
    return ask_meta(w, META_LOCK_SET, &rq.base);
}

static co_fn void lock_clear(struct nlm_wait *w)
{
    Zbs__Meta__LockClearRequest rq = ZBS__META__LOCK_CLEAR_REQUEST__INIT;
    const struct nfs_backend *b = &w->s->conf.backend;
    Zbs__Meta__Mutation m;
    int rc;

    b->mutation(b->arg, &m);
    rq.mutation = &m;
    rq.lock = &w->lock;
    rc = ask_meta(w, META_LOCK_CLEAR, &rq.base);
    if (rc < 0) /* until the client unlocks it, restarts, or its administrator says so */
        log_warn("nlm.left", "client=%s inode=%llu why=\"%s\"", w->client,
                 (unsigned long long)w->lock.inode_id, err_text(rc));
}

/* Has meta refused it, so that it is certainly not locked? */
static bool is_refusal(int rc)
{
    return rc == ERR_CONFLICT || rc == ERR_EXISTS || rc == ERR_STALE || rc == ERR_NOTFOUND ||
           rc == ERR_INVAL || rc == ERR_IS_DIR || rc == ERR_NOSPACE || rc == ERR_ACCESS;
}

/* ---- one wait ---- */

static co_fn int doze(struct nlm_wait *w, nsec_t *step)
{
    nsec_t former = co_deadline_push(MIN(co_now() + *step, w->until));
    int rc = co_cond_wait(&w->look);

    co_deadline_restore(former);
    *step = rc == 0 ? WAIT_STEP_MIN : MIN(2 * *step, WAIT_STEP_MAX);
    if (rc == ERR_TIMEOUT && co_now() < w->until)
        return 0;
    return rc;
}

/* Until it is locked: 0. */
static co_fn int get(struct nlm_wait *w)
{
    nsec_t step = WAIT_STEP_MIN;
    int rc;

    do {
        rc = admitted(w) ? lock_set(w) : err_set(ERR_ACCESS, "the share is not for it any more");
        if (rc == 0 || !is_refusal(rc)) {
            if (rc == 0 && !co_canceled())
                return 0;
            if (!w->keep)
                lock_clear(w);
            return ERR_CANCELED;
        }
        if (rc == ERR_CONFLICT)
            rc = doze(w, &step);
    } while (rc == 0);
    return rc;
}

static void wait_free(struct nlm_wait *w)
{
    struct nfs_server *s = w->s;

    list_del(&w->link);
    mem_free(w);
    co_cond_broadcast(&s->lock_wait_gone);
}

static co_fn int wait_main(void *arg)
{
    struct nlm_wait *w = arg;
    struct onc_service client;
    int rc = find(w, &client); /* before it is locked for nothing */

    if (rc == 0)
        rc = get(w);
    if (rc == 0) {
        rc = offer(w, &client);
        if (rc < 0 && !w->keep)
            lock_clear(w);
    }
    if (rc < 0)
        log_debug("nlm.wait_over", "client=%s why=\"%s\"", w->address, err_text(rc));
    wait_free(w);
    return 0;
}

/* ---- all of them ---- */

static bool room_for(const struct nfs_server *s, const struct addr *peer)
{
    uint32_t all = 0, of_client = 0;

    LIST_FOREACH (w, &s->lock_waits, struct nlm_wait, link) {
        all++;
        of_client +=
            w->peer.kind == peer->kind && memcmp(w->peer.ip, peer->ip, sizeof(peer->ip)) == 0;
    }
    return all < WAITS_MAX && of_client < WAITS_CLIENT_MAX;
}

bool nlm_wait_begin(struct onc_call *call, const struct nlm_args *args)
{
    struct nfs_server *s = nfs_server_of(call);
    struct nlm_wait *w;

    if (!room_for(s, onc_call_peer_addr(call)) || args->lock.owner.len > NLM_OWNER_MAX)
        return false;
    w = MEM_NEW(struct nlm_wait);
    w->s = s;
    w->until = co_now() + WAIT_TIME;
    co_cond_init(&w->look);
    w->peer = *onc_call_peer_addr(call);
    strcpy(w->address, onc_call_peer(call));
    strcpy(w->local, onc_call_local(call));
    w->fh = args->h.fh;
    w->length = args->length;
    w->lock = args->lock;
    strcpy(w->client, args->client);
    if (args->lock.owner.len > 0)
        memcpy(w->owner, args->lock.owner.data, args->lock.owner.len);
    w->lock.client = w->client;
    w->lock.owner.data = w->owner;
    list_push_back(&s->lock_waits, &w->link);
    w->co = co_spawn_detached_deadline(&s->lock_waiting, "nlm-wait", wait_main, w);
    return true;
}

/* Waits of the client or, if it is not NULL, those that the lock is about. Are there any? */
static bool cancel(struct nfs_server *s, const char *client, const Zbs__Meta__Lock *lock, bool keep)
{
    bool found = false;

    LIST_FOREACH (w, &s->lock_waits, struct nlm_wait, link) {
        bool meant = lock != NULL ? same_owner(&w->lock, lock) && ranges_meet(&w->lock, lock)
                                  : strcmp(w->client, client) == 0;

        if (!meant)
            continue;
        w->keep |= keep && same_range(&w->lock, lock) && w->lock.exclusive == lock->exclusive;
        co_cancel(w->co);
        found = true;
    }
    return found;
}

co_fn void nlm_waits_end(struct nfs_server *s, const Zbs__Meta__Lock *lock, bool keep)
{
    while (cancel(s, NULL, lock, keep))
        co_cond_wait_always(&s->lock_wait_gone);
}

co_fn void nlm_waits_forget(struct nfs_server *s, const char *client)
{
    while (cancel(s, client, NULL, false))
        co_cond_wait_always(&s->lock_wait_gone);
}

void nlm_waits_look(struct nfs_server *s, uint64_t inode_id)
{
    LIST_FOREACH (w, &s->lock_waits, struct nlm_wait, link) {
        if (w->lock.inode_id == inode_id)
            co_cond_signal(&w->look);
    }
}
