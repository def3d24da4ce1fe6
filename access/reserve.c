/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations in meta: see reserve.h. */
#include "access/reserve.h"

#include <string.h>
#include "common/base/mem.h"
#include "common/rpc/rpc.h"
#include "proto/meta.pb-c.h"

/* What waits for us is a command, a login or a stop: none of them should wait for ever. */
#define META_PATIENCE   (10 * NSEC_PER_SEC)
#define SETTLE_PATIENCE (20 * NSEC_PER_SEC)

static co_fn int reserve_call(struct reserve_meta *rm, enum meta_method method,
                              const ProtobufCMessage *req, struct rpc_reply *r)
{
    nsec_t former = co_deadline_push(co_now() + META_PATIENCE);
    int rc = meta_call(rm->meta, method, req, true, r);

    co_deadline_restore(former);
    return rc;
}

static co_fn int reserve_load(void *arg, uint64_t volume_id, uint8_t **ret, size_t *ret_len,
                              uint64_t *ret_version)
{
    struct reserve_meta *rm = arg;
    Zbs__Meta__ReservationGetRequest req = ZBS__META__RESERVATION_GET_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    req.volume_id = volume_id;
    rpc_reply_init(&r);
    rc = reserve_call(rm, META_RESERVATION_GET, &req.base, &r);
    if (rc == 0) {
        const Zbs__Meta__ReservationGetReply *a = (const Zbs__Meta__ReservationGetReply *)r.msg;

        *ret_len = a->record.len;
        *ret_version = a->version;
        *ret = mem_alloc(a->record.len + 1);
        if (a->record.len > 0)
            memcpy(*ret, a->record.data, a->record.len);
    }
    rpc_reply_free(&r);
    return rc;
}

static co_fn int reserve_replace(void *arg, uint64_t volume_id, uint64_t version,
                                 const uint8_t *record, size_t len, uint64_t *ret_version)
{
    struct reserve_meta *rm = arg;
    Zbs__Meta__ReservationSetRequest req = ZBS__META__RESERVATION_SET_REQUEST__INIT;
    Zbs__Meta__Mutation mutation;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(rm->meta, &mutation);
    req.mutation = &mutation;
    req.session_id = vol_engine_session(rm->engine);
    req.volume_id = volume_id;
    req.version = version;
    req.record = (ProtobufCBinaryData){.data = (uint8_t *)record, .len = len};
    rpc_reply_init(&r);
    rc = reserve_call(rm, META_RESERVATION_SET, &req.base, &r);
    if (rc == 0)
        *ret_version = ((const Zbs__Meta__ReservationSetReply *)r.msg)->version;
    rpc_reply_free(&r);
    return rc;
}

static co_fn int reserve_settle(void *arg, uint64_t version)
{
    nsec_t former = co_deadline_push(co_now() + SETTLE_PATIENCE);
    int rc = vol_engine_reservations_settled(((struct reserve_meta *)arg)->engine, version);

    co_deadline_restore(former);
    return rc;
}

static co_fn int reserve_fresh(void *arg)
{
    return vol_engine_lease_wait(((struct reserve_meta *)arg)->engine);
}

struct pr_store reserve_meta_store(struct reserve_meta *rm)
{
    return (struct pr_store){
        .arg = rm,
        .load = reserve_load,
        .replace = reserve_replace,
        .settle = reserve_settle,
        .fresh = reserve_fresh,
    };
}
