/* SPDX-License-Identifier: Apache-2.0
 *
 * Write leases of files that somebody wants to be given back, known to the leader only: who asked
 * asks again as long as it waits. Sessions are told in the answers to their Hold calls, of which
 * each always has one waiting here. */
#ifndef ZBS_META_RECALL_H
#define ZBS_META_RECALL_H

#include <stdbool.h>
#include "meta/decide.h"
#include "meta/pad.h"
#include "proto/meta.pb-c.h"

struct lead;

#define RECALLS_MAX 64u

struct recalls {
    struct recall {
        uint64_t inode_id;
        nsec_t until;
    } ring[RECALLS_MAX]; /* a free one is over */
    uint32_t next;
};

/* For a while from now on. */
void recall_note(struct lead *l, uint64_t inode_id);
/* The leases of this session that are wanted. False: none. */
bool recall_fill(const struct lead *l, uint64_t session_id, struct pad *pad,
                 Zbs__Meta__HoldReply *m);
int status_file_recall(struct lead *l, const struct decide *d, ProtobufCMessage *reply);

#endif
