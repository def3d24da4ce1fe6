/* SPDX-License-Identifier: Apache-2.0
 *
 * The Network Lock Manager, version 4 (XNFS, C702, chapter 14): byte ranges of files, locked by
 * owners on clients. Meta keeps the locks, so they are the same on every access server and survive
 * all of them: there is no grace period, and nothing to reclaim. A lock that another has is waited
 * for in the background (nlm_wait.c). Deny modes (SHARE) are refused: they are DOS's. The
 * procedures that answer by a call of their own (_MSG, _RES) are not there: those that wait for
 * their answer do the same. */
#include "access/nfs/nlm.h"

/* ---- arguments and results ---- */

/* Every result begins with the cookie of its call. */
static void take_cookie(struct onc_call *call)
{
    uint32_t len;
    const uint8_t *cookie = xdr_opaque(&call->args, NLM_COOKIE_MAX, &len);

    if (cookie != NULL)
        xdr_put_opaque(&call->out, cookie, len);
}

static void take_client(struct onc_call *call, char *ret)
{
    uint32_t len;
    const uint8_t *name = xdr_opaque(&call->args, NLM_NAME_MAX, &len);

    ret[0] = '\0';
    if (name == NULL)
        return;
    memcpy(ret, name, len);
    ret[len] = '\0';
    call->args.bad |= len == 0 || strlen(ret) != len;
}

static void take_lock(struct onc_call *call, bool exclusive, struct nlm_args *a)
{
    uint32_t len;
    const uint8_t *owner;

    zbs__meta__lock__init(&a->lock);
    take_client(call, a->client);
    nfs_take_handle(call, &a->h);
    owner = xdr_opaque(&call->args, NLM_OWNER_MAX, &len);
    a->lock.client = a->client;
    a->lock.owner = (ProtobufCBinaryData){owner != NULL ? len : 0, (uint8_t *)(uintptr_t)owner};
    a->lock.svid = xdr_u32(&call->args);
    a->lock.offset = xdr_u64(&call->args);
    a->lock.length = a->length = xdr_u64(&call->args);
    a->lock.exclusive = exclusive;
    a->lock.inode_id = a->h.fh.inode_id;
    /* "To the end" is 0, or as long as it can be. */
    if (a->lock.length > UINT64_MAX - a->lock.offset || a->lock.length == UINT64_MAX)
        a->lock.length = 0;
}

static enum nlm_status status_of(int rc)
{
    switch (rc) {
    case 0:
        return NLM4_GRANTED;
    case ERR_CONFLICT:
        return NLM4_DENIED;
    case ERR_STALE:
    case ERR_NOTFOUND:
        return NLM4_STALE_FH;
    case ERR_NOSPACE:
    case ERR_TOO_LARGE:
        return NLM4_DENIED_NOLOCKS;
    case ERR_TIMEOUT:
    case ERR_AGAIN:
    case ERR_UNREACHABLE:
    case ERR_NOT_LEADER:
        return NLM4_DENIED_GRACE_PERIOD; /* not now: clients ask again */
    default:
        return NLM4_FAILED;
    }
}

/* May the client use the share at all? Who locks is no question of permission. */
static co_fn enum nlm_status admit(struct onc_call *call, const struct nfs_handle *h)
{
    struct nfs_cred who;
    enum nfs_status status = nfs_admit(call, h, false, &who);

    if (status == NFS3ERR_JUKEBOX)
        return NLM4_DENIED_GRACE_PERIOD;
    return status == NFS3_OK ? NLM4_GRANTED : NLM4_STALE_FH;
}

/* ---- requests to meta ---- */

static co_fn int lock_set(struct onc_call *call, Zbs__Meta__Lock *lock)
{
    Zbs__Meta__LockSetRequest rq = ZBS__META__LOCK_SET_REQUEST__INIT;
    Zbs__Meta__Mutation m;
    struct rpc_reply r;
    int rc;

    nfs_call_mutation(call, &m);
    rq.mutation = &m;
    rq.lock = lock;
    rc = nfs_meta_call(nfs_server_of(call), META_LOCK_SET, &rq.base, &r);
    rpc_reply_free(&r);
    return rc;
}

static co_fn int lock_clear(struct onc_call *call, Zbs__Meta__Lock *lock)
{
    Zbs__Meta__LockClearRequest rq = ZBS__META__LOCK_CLEAR_REQUEST__INIT;
    Zbs__Meta__Mutation m;
    struct rpc_reply r;
    int rc;

    nfs_call_mutation(call, &m);
    rq.mutation = &m;
    rq.lock = lock;
    rc = nfs_meta_call(nfs_server_of(call), META_LOCK_CLEAR, &rq.base, &r);
    rpc_reply_free(&r);
    return rc;
}

co_fn int nfs_locks_forget(struct onc_call *call, const char *client)
{
    Zbs__Meta__LockForgetRequest rq = ZBS__META__LOCK_FORGET_REQUEST__INIT;
    Zbs__Meta__Mutation m;
    struct rpc_reply r;
    int rc;

    nfs_call_mutation(call, &m);
    rq.mutation = &m;
    rq.client = (char *)(uintptr_t)client;
    nlm_waits_forget(nfs_server_of(call), client);
    rc = nfs_meta_call(nfs_server_of(call), META_LOCK_FORGET, &rq.base, &r);
    rpc_reply_free(&r);
    return rc;
}

/* ---- procedures ---- */

static co_fn enum onc_accept on_test(struct onc_call *call)
{
    Zbs__Meta__LockTestRequest rq = ZBS__META__LOCK_TEST_REQUEST__INIT;
    const Zbs__Meta__Lock *holder = NULL;
    enum nlm_status status;
    struct nlm_args a;
    struct rpc_reply r;

    take_cookie(call);
    take_lock(call, xdr_bool(&call->args), &a);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    rpc_reply_init(&r);
    status = admit(call, &a.h);
    if (status == NLM4_GRANTED) {
        rq.lock = &a.lock;
        status = status_of(nfs_meta_call(nfs_server_of(call), META_LOCK_TEST, &rq.base, &r));
    }
    if (status == NLM4_GRANTED)
        holder = ((const Zbs__Meta__LockTestReply *)r.msg)->holder;
    xdr_put_u32(&call->out, holder != NULL ? NLM4_DENIED : status);
    if (holder != NULL) {
        xdr_put_bool(&call->out, holder->exclusive);
        xdr_put_u32(&call->out, holder->svid);
        xdr_put_opaque(&call->out, holder->owner.data, (uint32_t)holder->owner.len);
        xdr_put_u64(&call->out, holder->offset);
        xdr_put_u64(&call->out, holder->length);
    }
    rpc_reply_free(&r);
    return ONC_SUCCESS;
}

/* What waited for it already ends first: what the client is told is told by this call. */
static co_fn enum nlm_status lock_now(struct onc_call *call, struct nlm_args *a)
{
    enum nlm_status status = admit(call, &a->h);

    if (status != NLM4_GRANTED)
        return status;
    nlm_waits_end(nfs_server_of(call), &a->lock, true);
    return status_of(lock_set(call, &a->lock));
}

static co_fn enum onc_accept lock_call(struct onc_call *call, bool may_wait)
{
    enum nlm_status status;
    struct nlm_args a;
    bool block, exclusive;

    take_cookie(call);
    block = xdr_bool(&call->args);
    exclusive = xdr_bool(&call->args);
    take_lock(call, exclusive, &a);
    (void)xdr_bool(&call->args); /* reclaim: nothing is ever lost */
    (void)xdr_u32(&call->args);  /* state of the client's status monitor */
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    status = lock_now(call, &a);
    if (status == NLM4_DENIED && block && may_wait)
        status = nlm_wait_begin(call, &a) ? NLM4_BLOCKED : NLM4_DENIED_NOLOCKS;
    xdr_put_u32(&call->out, status);
    return ONC_SUCCESS;
}

static co_fn enum onc_accept on_lock(struct onc_call *call)
{
    return lock_call(call, true);
}

/* By a client that has no status monitor. */
static co_fn enum onc_accept on_nm_lock(struct onc_call *call)
{
    return lock_call(call, false);
}

static co_fn enum onc_accept on_cancel(struct onc_call *call)
{
    bool exclusive;
    struct nlm_args a;

    take_cookie(call);
    (void)xdr_bool(&call->args); /* block */
    exclusive = xdr_bool(&call->args);
    take_lock(call, exclusive, &a);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    nlm_waits_end(nfs_server_of(call), &a.lock, false);
    xdr_put_u32(&call->out, NLM4_GRANTED);
    return ONC_SUCCESS;
}

static co_fn enum onc_accept on_unlock(struct onc_call *call)
{
    enum nlm_status status;
    struct nlm_args a;

    take_cookie(call);
    take_lock(call, false, &a);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    nlm_waits_end(nfs_server_of(call), &a.lock, false);
    status = admit(call, &a.h);
    if (status == NLM4_GRANTED)
        status = status_of(lock_clear(call, &a.lock));
    nlm_waits_look(nfs_server_of(call), a.lock.inode_id);
    xdr_put_u32(&call->out, status);
    return ONC_SUCCESS;
}

/* Arguments are not looked at beyond the cookie. */
static co_fn enum onc_accept on_share(struct onc_call *call)
{
    take_cookie(call);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    xdr_put_u32(&call->out, NLM4_DENIED_NOLOCKS);
    xdr_put_u32(&call->out, 0); /* sequence */
    return ONC_SUCCESS;
}

static co_fn enum onc_accept on_free_all(struct onc_call *call)
{
    char client[NLM_NAME_MAX + 1];

    take_client(call, client);
    (void)xdr_u32(&call->args); /* state */
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    return nfs_locks_forget(call, client) == 0 ? ONC_SUCCESS : ONC_SYSTEM_ERR;
}

static const struct onc_procedure procedures[NLMPROC4_PROCEDURES] = {
    [NLMPROC4_NULL] = {.name = "NULL"},
    [NLMPROC4_TEST] = {.name = "TEST", .handler = on_test},
    [NLMPROC4_LOCK] = {.name = "LOCK", .handler = on_lock},
    [NLMPROC4_CANCEL] = {.name = "CANCEL", .handler = on_cancel},
    [NLMPROC4_UNLOCK] = {.name = "UNLOCK", .handler = on_unlock},
    [NLMPROC4_SHARE] = {.name = "SHARE", .handler = on_share},
    [NLMPROC4_UNSHARE] = {.name = "UNSHARE", .handler = on_share},
    [NLMPROC4_NM_LOCK] = {.name = "NM_LOCK", .handler = on_nm_lock},
    [NLMPROC4_FREE_ALL] = {.name = "FREE_ALL", .handler = on_free_all},
};

const struct onc_program nfs_lock_program = {
    .number = NLM_PROGRAM,
    .version = NLM_V4,
    .name = "nlm",
    .procedures = procedures,
    .procedure_count = NLMPROC4_PROCEDURES,
};
