/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares of the limits of volumes and pools: each session tells with its renewals what it needs,
 * and is answered what part of the limit it may take. Known to the leader only; a new one learns
 * from the renewals what is in force. */
#ifndef ZBS_META_SHARES_H
#define ZBS_META_SHARES_H

#include "meta/pad.h"
#include "meta/state.h"
#include "proto/meta.pb-c.h"

#define SHARE_WHOLE 1000000u /* a whole limit */

struct shares {
    struct sorted limits; /* struct limit, by volume, pool */
};

void shares_fini(struct shares *sh);
/* Answers one session's demands. may_raise: every session that lives has told its share by now. */
void shares_fill(struct shares *sh, const struct state *st, uint64_t session, bool may_raise,
                 const Zbs__Meta__SessionRenewRequest *rq, struct pad *pad,
                 Zbs__Meta__SessionRenewReply *m);

#endif
