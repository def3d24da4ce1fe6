/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations of volumes in the replicated state: one record per volume, which access servers
 * write by compare-and-set and understand (access/scsi/pr.h); here it is bytes. */
#ifndef ZBS_META_RESERVATIONS_H
#define ZBS_META_RESERVATIONS_H

#include "meta/decide.h"

struct apply;
struct live;

#define RESERVATION_BYTES_MAX 40960u

struct reservation {
    uint64_t volume_id;
    uint64_t version; /* mutation number of the last change */
    uint8_t *record;
    uint32_t len;
};

struct reservation *state_reservation(const struct state *st, uint64_t volume_id); /* or NULL */
void state_reservation_put(struct state *st, uint64_t volume_id, uint64_t version,
                           const uint8_t *record, size_t len);
void state_reservations_fini(struct state *st);
int apply_reservation_set(struct apply *a);
/* With its volume. */
void apply_reservation_drop(struct apply *a, uint64_t volume_id);

int decide_reservation_set(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_reservation_get(const struct decide *d, ProtobufCMessage *reply);
/* What a session that renews has to know. */
void reservations_fill(struct live *l, const struct decide *d, Zbs__Meta__SessionRenewReply *m);

#endif
