/* SPDX-License-Identifier: Apache-2.0
 *
 * Metadata pages: what extents map, how often blocks are named, how new the pages are; which of
 * them are in memory. */
#ifndef ZBS_CHUNK_META_H
#define ZBS_CHUNK_META_H

#include "chunk/engine.h"
#include "common/base/list.h"

struct dev;
struct ext;
struct geometry;

/* Pages of the kinds BITMAP and HEAD are images of what is always in memory. The others are in
 * memory while somebody holds them, while they are dirty or on their way home, and otherwise for
 * as long as the budget has room. */
enum mpage_kind {
    MP_BITMAP,
    MP_HEAD,
    MP_MAP,
    MP_GENS, /* struct ext_map: comes from the head page, and goes home as part of it */
    MP_REFS,
    MP_ROLL, /* always in memory if a page that it names is in use */
};
struct mpage {
    struct dev *dev;
    struct list dirty;  /* dev->dirty */
    struct list idle;   /* engine->idle: it may leave */
    uint64_t dirty_rsn; /* oldest record not in the page's last image; RSN_NONE: clean */
    enum mpage_kind kind;
    uint32_t index; /* BITMAP, MAP, REFS, ROLL: number */
    uint32_t holds;
    uint32_t images;        /* on their way home */
    uint32_t bytes;         /* charged to the budget */
    struct ext *ext;        /* HEAD, MAP, GENS */
    struct map_page *map;   /* MAP: NULL means known to be empty */
    struct refs_page *refs; /* REFS */
    struct roll_page *roll; /* ROLL */
};

/* The map pages of an extent that are in memory. */
struct ext_map {
    struct mpage gens;             /* this structure; held while it has pages */
    uint64_t gen[MAP_PAGES];       /* as on the device; 0: the page was never written */
    struct mpage *page[MAP_PAGES]; /* NULL: not in memory */
};

/* What somebody needs of an extent's map. */
struct map_hold {
    struct ext *x;        /* NULL: nothing */
    uint32_t first, last; /* map pages */
};

/* mpage.c */
void mpages_init(struct engine *e);
void mpage_init(struct mpage *m, struct dev *d, enum mpage_kind kind, uint32_t index,
                struct ext *x);
void mpage_fini(struct mpage *m);
void mpage_charge(struct mpage *m, uint32_t bytes); /* more memory of it; may evict others */
void mpage_hold(struct mpage *m);
void mpage_release(struct mpage *m);
void mpage_dirty(struct dev *d, struct mpage *m, uint64_t rsn);
void mpage_forget(struct mpage *m); /* clean, though it was not written */
/* Around the writing of an image: clean from the first on, in memory until the second. */
void mpage_image_begin(struct mpage *m);
void mpage_image_end(struct mpage *m);
/* So much that can leave is dirty that the flusher has to write it; that writers have to wait. */
bool memory_dirty(const struct engine *e);
bool memory_full_of_dirt(const struct engine *e);

/* map.c */
#define MAP_PAGES_A_BLOCK (PAGES_PER_BLOCK / MAP_SLOTS) /* both slots of each */
/* A map page's gen says in which of its two slots it lies, and later ones are higher. */
uint32_t map_slot(uint64_t gen);
uint64_t map_gen_next(struct dev *d, uint32_t slot);
uint64_t gen_next(struct dev *d); /* of a batch: the same numbers, whatever the slot */
uint64_t meta_off(const struct ext *x, uint32_t page); /* of the pages of its metadata blocks */
uint64_t map_off(const struct ext *x, uint32_t index, uint32_t slot);
/* The map pages of these blocks are in memory from here on until they are released. ERR_CORRUPT:
 * some were damaged; the extent is void, they count as empty, and are held all the same. Any
 * other error: nothing is held. Release whatever the result was. */
co_fn int map_hold(struct ext *x, uint32_t first_block, uint32_t last_block, struct map_hold *ret);
void map_release(struct map_hold *h); /* of nothing, or twice: does nothing */
/* Of a block that is held (asserted). The entry is good until it is released, its content until
 * the next suspension. All zero if the block is not allocated. */
const struct map_entry *map_get(const struct ext *x, uint32_t block);
const struct map_entry *map_peek(const struct ext *x, uint32_t block); /* NULL: not in memory */
struct map_entry *map_change(struct ext *x, uint32_t block, uint64_t rsn);
/* After replay: what heads and map pages say against the allocation. */
void map_check_loaded(struct ext *x);
struct ext_map *map_new(struct ext *x);       /* nothing was ever written; held for the caller */
co_fn int map_gens(struct ext *x) MUST_CHECK; /* sees to it that x->map is there now */
void map_evict(struct mpage *m);
void map_free_all(struct ext *x);
bool block_allocated(const struct ext *x, uint32_t block); /* has its own: writes need no other */
bool block_shared(const struct ext *x, uint32_t block);    /* has other sources */
bool block_mapped(const struct ext *x, uint32_t block);    /* holds anything */
const struct map_src *entry_source(const struct map_entry *en, uint32_t bit); /* NULL: zero */
bool entry_empty(const struct map_entry *en);                                 /* maps nothing */
/* What the head says of a block, after its entry changed. */
void head_bits_put(struct ext *x, uint32_t block, const struct map_entry *en);
/* Pages of a block as bits; count is at least 1. */
static inline uint64_t page_mask(uint32_t first_bit, uint32_t count)
{
    return (count == 64 ? UINT64_MAX : (1ull << count) - 1) << first_bit;
}

/* map_apply.c */
void map_apply_alloc(struct ext *x, uint32_t index, uint32_t block, uint64_t rsn);
void map_apply_thaw(struct ext *x, const struct thaw_block *t, uint64_t rsn);
void map_apply_write(struct ext *x, const struct rec_write *r, const uint32_t *crc, uint64_t rsn);
void map_apply_data(struct ext *x, const struct rec_write *r, uint64_t rsn); /* REC_F_MAP */
void map_apply_zero(struct ext *x, const struct rec_write *r, uint64_t rsn);

/* head.c */
/* Builds the images of a head and its overflow pages: returns how many, at most
 * 1 + OVERFLOW_PAGES; offs gets their places. */
uint32_t head_pack(struct ext *x, uint8_t *pages, uint64_t *offs, uint64_t gen);
/* To be called for each page when what they reflect is durable. */
void head_seal(const struct dev *d, uint8_t *page);
/* A new extent from its head page as read; keep_gens: it gets its ext_map at once. */
co_fn int head_open(struct dev *d, uint32_t head, const struct extent_head *h, bool keep_gens,
                    struct ext **ret);
/* Reads the generations of an extent's map pages again. */
co_fn int head_read_gens(struct ext *x, uint64_t gen[MAP_PAGES]) MUST_CHECK;

/* refs.c */
void refs_init(struct dev *d);
void refs_free(struct dev *d);
struct refs_hold { /* pages that stay in memory */
    struct mpage **pages;
    uint32_t n, cap;
};
/* Brings the count of a block into memory, if it has one. Wanted before refs_get and refs_drop of
 * a shared block, and before refs_apply makes one shared. */
co_fn int refs_load(struct dev *d, uint32_t block, struct refs_hold *h) MUST_CHECK;
/* Those of all sources of some blocks; their map must be loaded. */
co_fn int refs_load_map(struct ext *x, uint32_t first_block, uint32_t last_block,
                        struct refs_hold *h) MUST_CHECK;
void refs_evict(struct mpage *m);
void refs_hold_free(struct refs_hold *h);
uint32_t refs_get(const struct dev *d, uint32_t block); /* of an allocated block */
bool refs_full(const struct dev *d, uint32_t block);    /* nobody more may share it */
/* The block's references less one. Nothing changes: the caller journals it. */
struct rec_ref refs_less(const struct dev *d, uint32_t block);
/* Applies what a record says. */
void refs_apply(struct dev *d, const struct rec_ref *r, uint32_t n, uint64_t rsn);
void refs_pack(struct dev *d, uint32_t index, uint8_t *page, uint64_t *off, uint64_t gen);
co_fn int refs_replay(struct dev *d, const struct rec_ref *r, uint32_t n, uint64_t rsn);
void refs_finish_replay(struct dev *d);

/* roll.c */
void roll_init(struct dev *d);
void roll_free(struct dev *d);
/* Which of the roll's pages names a bitmap, reference or head page; the first head in one. */
uint32_t roll_page_of(const struct geometry *g, enum meta_kind kind, uint32_t index);
uint32_t roll_first_head(const struct geometry *g, uint32_t page);
void roll_take(struct dev *d, uint32_t index, const uint8_t *page); /* as read at start */
/* Of a page that was read and is valid: ERR_CORRUPT if it is not the last one written. */
int roll_check(struct dev *d, enum meta_kind kind, uint32_t index, const struct meta_head *h);
/* An image is about to go home: returns the roll's page, which must be in the same batch. */
struct mpage *roll_set(struct dev *d, enum meta_kind kind, uint32_t index, uint64_t gen);
uint64_t roll_get(const struct dev *d, enum meta_kind kind, uint32_t index);
void roll_pack(struct dev *d, uint32_t index, uint8_t *page, uint64_t *off);

#endif
