/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers from what only the leader knows (meta/live.h). */
#ifndef ZBS_META_STATUS_H
#define ZBS_META_STATUS_H

#include "meta/lead.h"

typedef int (*status_fn)(struct lead *l, const struct decide *d, ProtobufCMessage *reply);

int status_session_renew(struct lead *l, const struct decide *d, ProtobufCMessage *reply);
int status_chunk_heartbeat(struct lead *l, const struct decide *d, ProtobufCMessage *reply);
int status_cluster(struct lead *l, const struct decide *d, ProtobufCMessage *reply);

/* Signs of life count on arrival, also while the leader may not answer. */
void knock_session_renew(struct lead *l, const ProtobufCMessage *rq);
void knock_chunk_heartbeat(struct lead *l, const ProtobufCMessage *rq);

#endif
