/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls of send.c and receive.c. */
#ifndef ZBS_TOOLS_STREAM_CLUSTER_H
#define ZBS_TOOLS_STREAM_CLUSTER_H

#include "proto/access.pb-c.h"
#include "tools/stream/stream.h"

#define STREAM_AT_ONCE 8u /* reads or writes of STREAM_DATA_MAX in flight */

enum access_method { /* positions in proto/access.proto */
                     ACCESS_DIFFERENCES = 3,
                     ACCESS_VOLUME_READ,
                     ACCESS_VOLUME_WRITE,
};

/* To one access server, or another if that can't do it at present; for a minute at most. Only what
 * may be done twice. payload: NULL: none. *r is to be freed if 0 is returned. */
co_fn int stream_access(struct stream_cluster *c, enum access_method method,
                        const ProtobufCMessage *request, struct buf *payload, uint32_t payload_len,
                        struct rpc_reply *r) MUST_CHECK;
/* To the meta leader; it may be repeated. *r is to be freed if 0 is returned. */
co_fn int stream_meta(struct stream_cluster *c, enum meta_method method,
                      const ProtobufCMessage *request, struct rpc_reply *r) MUST_CHECK;
/* The volume of that name; snapshot NULL: the volume itself. r->msg is a Volume. */
co_fn int stream_volume_get(struct stream_cluster *c, const char *pool, const char *volume,
                            const char *snapshot, struct rpc_reply *r) MUST_CHECK;

#endif
