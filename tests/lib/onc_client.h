/* SPDX-License-Identifier: Apache-2.0
 *
 * A small client of ONC RPC over TCP or UDP, for tests and fuzzers: makes calls out of XDR, cuts
 * them into fragments, takes answers apart. Asserts that what it is answered has the form of RFC
 * 5531. */
#ifndef ZBS_TESTS_ONC_CLIENT_H
#define ZBS_TESTS_ONC_CLIENT_H

#include "access/nfs/rpc.h"
#include "common/env/env.h"

struct onc_client {
    struct net_conn *net;  /* TCP */
    struct net_dgram *udp; /* one of the two; the other is NULL */
    struct net_way way;
    uint32_t xid; /* last one given */
    uint32_t uid, gid;
    bool none;         /* AUTH_NONE */
    uint32_t fragment; /* bytes of one; 0: records of one fragment */
};

struct onc_answer {
    uint32_t xid;
    bool denied;   /* stat, why: reject_stat and auth_stat */
    uint32_t stat; /* accept_stat */
    uint32_t why, low, high;
    struct xdr_in in; /* results */
    uint8_t *record;
};

co_fn void onc_open(struct onc_client *o, const char *addr);
/* Over UDP: nothing is sent again, whatever is lost. */
co_fn void onc_open_udp(struct onc_client *o, const char *from, const char *addr);
void onc_close(struct onc_client *o);
/* Begins a call; arguments are put behind it. */
void onc_begin(struct onc_client *o, struct xdr_out *out, uint32_t program, uint32_t version,
               uint32_t procedure);
/* Sends and frees it. */
co_fn int onc_send(struct onc_client *o, struct xdr_out *out) MUST_CHECK;
/* Bytes as they are. */
co_fn int onc_send_bytes(struct onc_client *o, const void *data, size_t len) MUST_CHECK;
/* The next answer, whichever call's. */
co_fn int onc_recv(struct onc_client *o, struct onc_answer *a) MUST_CHECK;
void onc_answer_free(struct onc_answer *a);
/* Sends a call, which is freed, and asserts that it is answered with success. */
co_fn void onc_ask(struct onc_client *o, struct xdr_out *out, struct onc_answer *a);

#endif
