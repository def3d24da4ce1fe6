/* SPDX-License-Identifier: Apache-2.0
 *
 * The state in the key-value store: one pair for each object, so that a batch holds just what a
 * record changed. Keys and values are listed in meta/README.md. */
#ifndef ZBS_META_CODEC_H
#define ZBS_META_CODEC_H

#include "common/kv/kv.h"
#include "meta/table.h"

struct lock_holder;
struct reservation;
struct setting_value;

/* Where pairs go: into a batch, and/or into a digest that does not depend on their order. */
struct codec_sink {
    struct kv_batch *batch; /* may be NULL */
    uint64_t *digest;       /* may be NULL */
};

/* What the store knows besides the objects: taken right after the last record of an entry. */
struct codec_header {
    uint64_t applied; /* log index */
    uint64_t next_mutation;
    uint64_t term;
    uint64_t exports_version;
    uint32_t next_pool_id, next_chunk_id;
    uint64_t next_page_id;
    uint64_t shares_version;
    uint32_t next_share_id;
    char cluster_id[40];
};
void codec_header_take(struct codec_header *h, const struct state *st); /* not `applied` */
void codec_put_header(const struct codec_sink *to, const struct codec_header *h);

void codec_put_pool(const struct codec_sink *to, const struct pool *p);
void codec_put_volume(const struct codec_sink *to, const struct volume *v);
void codec_put_slot(const struct codec_sink *to, const struct slot *s); /* of a volume */
void codec_put_extent(const struct codec_sink *to, const struct extent *e);
void codec_put_page(const struct codec_sink *to, const struct table_page *p);
/* The part of a volume's table that names this page of it; deleted if it has no page. */
#define TABLE_GROUP 64u
void codec_put_table(const struct codec_sink *to, const struct volume *v, uint32_t page_index);
void codec_put_chunk(const struct codec_sink *to, const struct chunk *c);
void codec_put_session(const struct codec_sink *to, const struct session *s);
void codec_put_target(const struct codec_sink *to, const struct target *t);
void codec_put_reservation(const struct codec_sink *to, const struct reservation *r);
void codec_del_reservation(const struct codec_sink *to, uint64_t volume_id);
void codec_put_setting(const struct codec_sink *to, const struct setting_value *v);
void codec_put_garbage(const struct codec_sink *to, uint32_t chunk_id, uint64_t extent_id,
                       const struct garbage *g);
void codec_put_result(const struct codec_sink *to, const struct result *r);

/* ---- codec_tree.c ---- */
void codec_put_share(const struct codec_sink *to, const struct share *s);
void codec_put_inode(const struct codec_sink *to, const struct inode *i);
void codec_put_entry(const struct codec_sink *to, const struct dir_entry *e);
void codec_put_holder(const struct codec_sink *to, const struct lock_holder *h);
void codec_put_tree(const struct codec_sink *to, const struct tree *t); /* all of it */
void codec_del_share(const struct codec_sink *to, uint32_t id);
void codec_del_inode(const struct codec_sink *to, uint64_t id);
void codec_del_holder(const struct codec_sink *to, const struct lock_holder *h);
void codec_del_entry(const struct codec_sink *to, const struct dir_entry *e);

void codec_del_chunk(const struct codec_sink *to, uint32_t id);
void codec_del_pool(const struct codec_sink *to, uint32_t id);
void codec_del_volume(const struct codec_sink *to, uint64_t id);
void codec_del_slot(const struct codec_sink *to, uint64_t volume_id, uint32_t slot);
void codec_del_extent(const struct codec_sink *to, uint64_t id);
void codec_del_page(const struct codec_sink *to, uint64_t id);
void codec_del_session(const struct codec_sink *to, uint64_t id);
void codec_del_target(const struct codec_sink *to, const char *iqn);
void codec_del_garbage(const struct codec_sink *to, uint32_t chunk_id, uint64_t extent_id);
void codec_del_result(const struct codec_sink *to, uint64_t mutation);

/* Everything except the header's `applied`: equal states have equal digests. */
uint64_t codec_digest(const struct state *st);

/* Fills an empty state. *ret_applied: the log index that it includes; 0 for an empty store.
 * ERR_FORMAT: the store is damaged or of a newer version (text says where). */
co_fn int codec_load(struct kv *kv, struct state *st, uint64_t *ret_applied) MUST_CHECK;

/* Loading from another server: while the mark is in the store, it is incomplete. */
co_fn int codec_mark_loading(struct kv *kv) MUST_CHECK; /* durable on return */
co_fn int codec_is_loading(struct kv *kv, bool *ret) MUST_CHECK;
void codec_unmark_loading(struct kv_batch *b);

#endif
