/* SPDX-License-Identifier: Apache-2.0
 *
 * Objects of the state as messages of the interface. Strings are borrowed from the state, so a
 * view is packed before the caller suspends. */
#ifndef ZBS_META_VIEW_H
#define ZBS_META_VIEW_H

#include "meta/pad.h"
#include "meta/state.h"
#include "proto/meta.pb-c.h"
#include "proto/metalog.pb-c.h"

void view_pool(Zbs__Meta__Pool *m, const struct pool *p);
void view_volume(Zbs__Meta__Volume *m, const struct state *st, const struct volume *v);
void view_target(Zbs__Meta__Target *m, const struct state *st, const struct target *t,
                 struct pad *pad);
void view_replicas(Zbs__Meta__ReplicaChangeReply *m, const struct extent *e);
void view_grant(Zbs__Meta__Grant *m, const struct state *st, const struct volume *v,
                uint32_t number, struct pad *pad);
/* Of the extent's own lease. */
void view_grant_shared(Zbs__Meta__Grant *m, const struct state *st, const struct extent *e,
                       struct pad *pad);
/* There must be an extent. */
void view_extent(Zbs__Meta__ExtentView *m, const struct state *st, const struct volume *v,
                 uint32_t number);
void view_access(Zbs__Meta__AccessView *m, const struct session *s);

/* Limits as they are shown and as they are stored; from may be NULL: none. */
void limits_set(Zbs__Meta__Limits *to, const Zbs__Metalog__KvLimits *from);
Zbs__Metalog__KvLimits *limits_kv(const Zbs__Meta__Limits *from, Zbs__Metalog__KvLimits *to);

/* A packed message in the pad. */
struct packed {
    uint8_t *bytes;
    size_t len;
};
struct packed view_pack(const ProtobufCMessage *msg, struct pad *pad);

#endif
