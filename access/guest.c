/* SPDX-License-Identifier: Apache-2.0
 *
 * Volumes for clients without reservations of their own: see guest.h. */
#include "access/guest.h"

#include "common/base/mem.h"

struct guest {
    struct block_backend b;
    struct block_backend *inner;
    struct pr_unit *unit;
};

static struct guest *guest_of(struct block_backend *b)
{
    return CONTAINER_OF(b, struct guest, b);
}

/* The call of an operation on what is beneath, if reservations admit it. */
#define GUARDED(b, access, op, ...)                                                                \
    ({                                                                                             \
        struct guest *g_ = guest_of(b);                                                            \
        int rc_ = pr_unit_guest_begin(g_->unit, access);                                           \
                                                                                                   \
        if (rc_ == 0) {                                                                            \
            rc_ = g_->inner->ops->op(g_->inner, __VA_ARGS__);                                      \
            pr_unit_guest_end(g_->unit, access);                                                   \
        }                                                                                          \
        rc_;                                                                                       \
    })

static void guest_info(struct block_backend *b, struct block_backend_info *ret)
{
    struct block_backend *inner = guest_of(b)->inner;

    inner->ops->info(inner, ret);
}

static int guest_read(struct block_backend *b, uint64_t off, uint32_t len, struct buf *dst,
                      uint32_t dst_off)
{
    return GUARDED(b, PR_ACCESS_READ, read, off, len, dst, dst_off);
}

static int guest_write(struct block_backend *b, uint64_t off, uint32_t len, struct buf *src,
                       uint32_t src_off)
{
    return GUARDED(b, PR_ACCESS_EXCLUSIVE, write, off, len, src, src_off);
}

static int guest_zero(struct block_backend *b, uint64_t off, uint64_t len)
{
    return GUARDED(b, PR_ACCESS_EXCLUSIVE, zero, off, len);
}

static int guest_discard(struct block_backend *b, uint64_t off, uint64_t len)
{
    return GUARDED(b, PR_ACCESS_EXCLUSIVE, discard, off, len);
}

static int guest_compare_and_write(struct block_backend *b, uint64_t off, uint32_t len,
                                   struct buf *cmp, uint32_t cmp_off, struct buf *src,
                                   uint32_t src_off, uint32_t *ret_offset)
{
    return GUARDED(b, PR_ACCESS_EXCLUSIVE, compare_and_write, off, len, cmp, cmp_off, src, src_off,
                   ret_offset);
}

static int guest_hole(struct block_backend *b, uint64_t off, uint64_t len, bool *ret_hole,
                      uint64_t *ret_len)
{
    return GUARDED(b, PR_ACCESS_READ, hole, off, len, ret_hole, ret_len);
}

/* Neither reads nor changes anything. */
static int guest_flush(struct block_backend *b)
{
    struct block_backend *inner = guest_of(b)->inner;

    return inner->ops->flush(inner);
}

static int guest_confirm(struct block_backend *b)
{
    struct block_backend *inner = guest_of(b)->inner;

    return inner->ops->confirm != NULL ? inner->ops->confirm(inner) : 0;
}

static void guest_close(struct block_backend *b)
{
    struct guest *g = guest_of(b);

    g->inner->ops->close(g->inner);
    pr_unit_put(g->unit);
    mem_free(g);
}

static const struct block_backend_ops guest_ops = {
    .info = guest_info,
    .read = guest_read,
    .write = guest_write,
    .zero = guest_zero,
    .discard = guest_discard,
    .compare_and_write = guest_compare_and_write,
    .hole = guest_hole,
    .flush = guest_flush,
    .confirm = guest_confirm,
    .close = guest_close,
};

int guest_backend_open(struct pr_registry *reservations, struct block_backend *inner,
                       struct block_backend **ret)
{
    struct block_backend_info info;
    struct pr_unit *unit;
    struct guest *g;
    int rc;

    inner->ops->info(inner, &info);
    rc = pr_unit_get(reservations, info.volume_id, &unit);
    if (rc < 0) {
        inner->ops->close(inner);
        return rc;
    }
    g = MEM_NEW(struct guest);
    *g = (struct guest){.b.ops = &guest_ops, .inner = inner, .unit = unit};
    *ret = &g->b;
    return 0;
}
