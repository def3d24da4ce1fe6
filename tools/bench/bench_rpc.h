/* SPDX-License-Identifier: Apache-2.0
 *
 * How fast RPC is against bare TCP: round trips over loopback between two threads, the request
 * with and without a payload of 4 KiB, the reply small. */
#ifndef ZBS_TOOLS_BENCH_RPC_H
#define ZBS_TOOLS_BENCH_RPC_H

/* One kind of load. */
struct bench_rpc_load {
    double calls_per_s;
    double cpu_us_per_call; /* of both sides together */
};

/* One payload size. */
struct bench_rpc_size {
    struct bench_rpc_load tcp_depth1, tcp_depth32;   /* RPC over TCP */
    struct bench_rpc_load unix_depth1, unix_depth32; /* RPC over a UNIX socket */
    struct bench_rpc_load bare_depth1, bare_depth32; /* blocking TCP sockets, batched writes */
};

struct bench_rpc_result {
    struct bench_rpc_size small, page; /* no payload, 4 KiB */
};

/* Runs each of the twelve loads for `seconds`. Outside coroutines. 0 or a negative ERR_*. */
int bench_rpc_run(double seconds, struct bench_rpc_result *ret);

#endif
