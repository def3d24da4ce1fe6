/* SPDX-License-Identifier: Apache-2.0
 *
 * A disk whose writes stay in memory: a trial run of whatever would change a device. */
#ifndef ZBS_ENV_OVERLAY_H
#define ZBS_ENV_OVERLAY_H

#include "common/env/env.h"

struct disk_overlay;

/* What was written to one device. Belongs to the loop that uses it. */
struct disk_overlay *disk_overlay_new(void);
void disk_overlay_free(struct disk_overlay *o); /* no handle may have it attached; may be NULL */
/* From now on the handle's writes go there, and its reads find them; flushes and discards do
 * nothing. Before the first request. Several handles of one device, one after the other, may share
 * an overlay. */
void disk_overlay_attach(struct disk *d, struct disk_overlay *o);
uint64_t disk_overlay_bytes(const struct disk_overlay *o); /* held in memory */

/* For env.c: true if the request is complete; after a successful read. */
bool disk_overlay_submit(struct disk_req *r);
void disk_overlay_read(struct disk_req *r);

#endif
