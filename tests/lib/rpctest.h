/* SPDX-License-Identifier: Apache-2.0
 *
 * The test service of proto/rpctest.proto, for tests and fuzzers of common/rpc. */
#ifndef ZBS_TESTS_LIB_RPCTEST_H
#define ZBS_TESTS_LIB_RPCTEST_H

#include <stdatomic.h>
#include "common/rpc/rpc.h"
#include "proto/rpctest.pb-c.h"

enum rpctest_method {
    RPCTEST_ECHO,
    RPCTEST_SINK,
    RPCTEST_FAIL,
    RPCTEST_SLEEP,
    RPCTEST_SOURCE,
    RPCTEST_MISSING,
};

/* One service object; ctx of its handlers. Several loops may share it. */
struct rpctest {
    struct rpc_service services[2]; /* ended by an empty one */
    const struct rpc_service *table[8];
    atomic_uint running, running_max; /* handlers */
    atomic_uint canceled;             /* sleeps that ended so */
    atomic_uint disconnects;
    atomic_uint in_place; /* payloads that were seen or put where the client has them */
    atomic_uint sink_ms;  /* how long a sink takes; 0: 1 */
    _Atomic(struct co_loop *) last_loop;
    atomic_uint_fast64_t last_session;
    bool want_peer;      /* note the peer's name; for a single loop */
    char last_peer[256]; /* of the last echo */
};
/* conf->services = t->table serves it on up to 8 instances. */
void rpctest_init(struct rpctest *t);
void rpctest_on_disconnect(void *ctx, struct rpc_session *s);

/* Bytes that depend on the seed and the position. */
void rpctest_fill(void *dst, size_t len, uint32_t seed);
bool rpctest_filled(const void *p, size_t len, uint32_t seed);

/* Calls; each returns what rpc_call returned. r is initialised here and to be freed. */
co_fn int rpctest_echo(struct rpc_client *c, uint64_t number, const char *text,
                       struct rpc_payload *out, struct rpc_reply *r) MUST_CHECK;
co_fn int rpctest_sleep(struct rpc_client *c, nsec_t span, struct rpc_reply *r) MUST_CHECK;
/* r is initialised by the caller, who may give a destination. */
co_fn int rpctest_source(struct rpc_client *c, uint32_t len, uint32_t slices, uint32_t seed,
                         struct rpc_reply *r) MUST_CHECK;
co_fn int rpctest_sink(struct rpc_client *c, struct rpc_payload *out,
                       struct rpc_reply *r) MUST_CHECK;
co_fn int rpctest_fail(struct rpc_client *c, int rc, const char *text, bool with_reply,
                       struct rpc_reply *r) MUST_CHECK;

#endif
