/* SPDX-License-Identifier: Apache-2.0
 *
 * The real environment: how a program's main() enters the runtime. */
#ifndef ZBS_ENV_ENV_REAL_H
#define ZBS_ENV_ENV_REAL_H

#include "common/co/co.h"

struct env_real_conf {
    const char *name;      /* "zbs-chunkd" */
    uint32_t pool_threads; /* for blocking calls; 0: 2 */
    uint32_t ring_entries; /* io_uring depth of a loop; 0: 256 */
    uint32_t spin_us;      /* adaptive spinning bound, 0..50; 0: none (PROBES: bounded, yields,
                            * only while requests are in flight and recent waits were short) */
    uint64_t arena_bytes;  /* buffers come from memory that servers of this host may map when they
                            * are talked to by a UNIX socket (common/rpc); at most so much, taken
                            * as it is used; 0: none. Once for the process */
    bool handle_signals;   /* SIGTERM and SIGINT cancel main_fn's coroutine; SIGPIPE ignored */
};

/* Creates the environment, runs main_fn(arg) as a coroutine on the calling thread's loop until it
 * returns, tears everything down, returns its result. */
int env_real_run(const struct env_real_conf *conf, int (*main_fn)(void *arg), void *arg);

#endif
