/* SPDX-License-Identifier: Apache-2.0
 *
 * Contents of a simulated disk: pages of 4 KiB, each with what is on the media and, in order, the
 * versions that completed writes left in the volatile cache. The page as read is the last
 * version. Pages that were never written take no memory. */
#ifndef ZBS_ENV_SIM_MEDIA_H
#define ZBS_ENV_SIM_MEDIA_H

#include "common/env/sim/sim_pack.h"
#include "common/env/sim_tape.h"

struct sim_media {
    struct sim *sim;
    struct sim_page **buckets;
    size_t bucket_count, page_count;
    struct list dirty; /* pages with cached versions, first dirtied first */
    uint64_t last_seq; /* of the writes in the cache so far */
    uint64_t lie_from; /* while lying: what came later is in the cache only */
    bool lying;
    bool packed; /* pages are packed, and large runs of one word kept as such */
    struct sim_runs runs;
    const uint8_t *const *base; /* content of pages that are not in the table; may be NULL */
};

void sim_media_init(struct sim_media *m, struct sim *s);
void sim_media_fini(struct sim_media *m);

/* The page as read. */
void sim_media_read(struct sim_media *m, uint64_t page_no, void *dst);

/* One write of one or more pages; each page of it is passed to sim_media_write between begin and
 * end. Its fate at a power loss is one draw for all its pages. */
struct sim_write;
struct sim_write *sim_media_begin(struct sim_media *m);
/* Sectors of one page, from byte off on. durable: they go to the media, and what the cache had for
 * them is superseded. torn: each sector is taken from src or stays as it was, by chance. */
void sim_media_write(struct sim_media *m, struct sim_write *w, uint64_t page_no, uint32_t off,
                     const void *src, uint32_t len, bool durable, bool torn);
void sim_media_end(struct sim_write *w);
/* A durable write of SIM_RUN_BYTES, aligned to them, to packed media: false if it has to be
 * written page by page. */
bool sim_media_write_run(struct sim_media *m, uint64_t page_no, const void *src);

/* Changes bytes of the media and of all versions (damage by a test). */
void sim_media_poke(struct sim_media *m, uint64_t page_no, uint32_t off, const void *src,
                    uint32_t len);
/* Some of the pages (by chance) become zero, the others stay. */
void sim_media_discard(struct sim_media *m, uint64_t page_no, uint64_t count);
/* Writes up to this one go to the media. */
void sim_media_flush(struct sim_media *m, uint64_t up_to_seq);
/* See sim_disk_lie. */
void sim_media_lie(struct sim_media *m, bool lying);
/* Some page that was ever written; false if there is none. */
bool sim_media_some_page(const struct sim_media *m, uint64_t draw, uint64_t *ret_no);
/* Each write in the cache is kept, lost or torn. */
void sim_media_power_loss(struct sim_media *m);

#endif
