/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes that stay in memory: a program may try what it would do to a device, and look at the
 * result, without touching it. */
#include <string.h>
#include "common/base/assert.h"
#include "common/base/htab.h"
#include "common/base/mem.h"
#include "common/env/env_ops.h"
#include "common/env/overlay.h"

#define UNIT 512u /* divides every sector size */

struct unit {
    struct htab_node node; /* by number */
    uint8_t data[UNIT];
};
struct disk_overlay {
    struct htab units;
};

struct disk_overlay *disk_overlay_new(void)
{
    struct disk_overlay *o = MEM_NEW(struct disk_overlay);

    htab_init(&o->units);
    return o;
}

void disk_overlay_free(struct disk_overlay *o)
{
    if (o == NULL)
        return;
    HTAB_FOREACH (u, &o->units, struct unit, node) {
        htab_remove(&o->units, &u->node);
        mem_free(u);
    }
    htab_fini(&o->units);
    mem_free(o);
}

uint64_t disk_overlay_bytes(const struct disk_overlay *o)
{
    return o->units.count * UNIT;
}

void disk_overlay_attach(struct disk *d, struct disk_overlay *o)
{
    ASSERT(list_empty(&d->waited));
    d->overlay = o;
}

static void unit_write(struct disk_overlay *o, uint64_t number, const uint8_t *src)
{
    struct unit *u = HTAB_FIND(&o->units, number + 1, struct unit, node);

    if (u == NULL) {
        u = MEM_NEW(struct unit);
        htab_insert(&o->units, &u->node, number + 1);
    }
    memcpy(u->data, src, UNIT);
}

static void unit_read(struct disk_overlay *o, uint64_t number, uint8_t *dst)
{
    const struct unit *u = HTAB_FIND(&o->units, number + 1, struct unit, node);

    if (u != NULL)
        memcpy(dst, u->data, UNIT);
}

static void each_unit(struct disk_overlay *o, const struct disk_req *r)
{
    uint64_t number = r->off / UNIT;

    for (int i = 0; i < r->iov_count; i++) {
        for (size_t at = 0; at < r->iov[i].iov_len; at += UNIT, number++) {
            uint8_t *p = (uint8_t *)r->iov[i].iov_base + at;

            if (r->op == DISK_WRITE)
                unit_write(o, number, p);
            else
                unit_read(o, number, p);
        }
    }
}

bool disk_overlay_submit(struct disk_req *r)
{
    if (r->op == DISK_READ)
        return false;
    if (r->op == DISK_WRITE)
        each_unit(r->disk->overlay, r);
    r->latency_ns = 1;
    co_resume(&r->wait, 0);
    return true;
}

void disk_overlay_read(struct disk_req *r)
{
    if (r->op == DISK_READ && r->disk->overlay->units.count > 0)
        each_unit(r->disk->overlay, r);
}
