/* SPDX-License-Identifier: Apache-2.0
 *
 * What an operator asks of a chunk server, over a connection to its instance 0. */
#ifndef ZBS_TESTS_LIB_CHUNKOPS_H
#define ZBS_TESTS_LIB_CHUNKOPS_H

#include <stdbool.h>
#include <stdint.h>
#include "common/rpc/rpc.h"

/* An InfoReply, to be freed. */
co_fn int chunk_info(struct rpc_client *c, struct rpc_reply *r) MUST_CHECK;
/* Formats the device unless it is one of the server's. */
co_fn int chunk_disk_add(struct rpc_client *c, const char *path) MUST_CHECK;
/* A drain moves replicas that share blocks, too. Return when the drain or the round has ended, or
 * soon after *stop was set; then it goes on. */
co_fn int chunk_drain(struct rpc_client *c, const char *path, const bool *stop) MUST_CHECK;
co_fn int chunk_scrub(struct rpc_client *c, uint64_t bytes_per_s, const bool *stop) MUST_CHECK;

#endif
