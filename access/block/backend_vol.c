/* SPDX-License-Identifier: Apache-2.0
 *
 * A volume of the engine as the back end of a front end. */
#include <string.h>
#include "access/block/block.h"
#include "access/vol/vol.h"
#include "common/base/mem.h"

struct backend_vol {
    struct block_backend base;
    struct vol_engine *engine;
    struct vol *vol;
};

static struct vol *vol_of(struct block_backend *b)
{
    return CONTAINER_OF(b, struct backend_vol, base)->vol;
}

static void backend_info(struct block_backend *b, struct block_backend_info *ret)
{
    const struct backend_vol *bv = CONTAINER_OF(b, struct backend_vol, base);
    const struct vol_info *info = vol_info(bv->vol);

    ret->volume_id = info->id;
    ret->size_bytes = info->size_bytes;
    ret->read_only = info->read_only;
    memcpy(ret->uuid, info->uuid, sizeof(ret->uuid));
    vol_space(bv->vol, &ret->space_bytes, &ret->space_free_bytes);
    ret->space_warn_bytes =
        ret->space_bytes / 100 * vol_engine_setting(bv->engine, SETTING_SPACE_WARN);
}

static co_fn int backend_read(struct block_backend *b, uint64_t off, uint32_t len, struct buf *dst,
                              uint32_t dst_off)
{
    return vol_read(vol_of(b), off, len, dst, dst_off);
}

static co_fn int backend_write(struct block_backend *b, uint64_t off, uint32_t len, struct buf *src,
                               uint32_t src_off)
{
    return vol_write(vol_of(b), off, len, src, src_off);
}

static co_fn int backend_zero(struct block_backend *b, uint64_t off, uint64_t len)
{
    return vol_zero(vol_of(b), off, len);
}

static co_fn int backend_discard(struct block_backend *b, uint64_t off, uint64_t len)
{
    return vol_discard(vol_of(b), off, len);
}

static co_fn int backend_caw(struct block_backend *b, uint64_t off, uint32_t len, struct buf *cmp,
                             uint32_t cmp_off, struct buf *src, uint32_t src_off,
                             uint32_t *ret_offset)
{
    return vol_compare_and_write(vol_of(b), off, len, cmp, cmp_off, src, src_off, ret_offset);
}

static co_fn int backend_hole(struct block_backend *b, uint64_t off, uint64_t len, bool *ret_hole,
                              uint64_t *ret_len)
{
    return vol_hole(vol_of(b), off, len, ret_hole, ret_len);
}

static co_fn int backend_flush(struct block_backend *b)
{
    return vol_flush(vol_of(b));
}

static co_fn int backend_refresh(struct block_backend *b)
{
    return vol_refresh(vol_of(b));
}

static co_fn int backend_confirm(struct block_backend *b)
{
    return vol_engine_confirm(CONTAINER_OF(b, struct backend_vol, base)->engine);
}

static co_fn void backend_close(struct block_backend *b)
{
    vol_close(vol_of(b));
    mem_free(CONTAINER_OF(b, struct backend_vol, base));
}

static const struct block_backend_ops backend_vol_ops = {
    .info = backend_info,
    .read = backend_read,
    .write = backend_write,
    .zero = backend_zero,
    .discard = backend_discard,
    .compare_and_write = backend_caw,
    .hole = backend_hole,
    .flush = backend_flush,
    .refresh = backend_refresh,
    .confirm = backend_confirm,
    .close = backend_close,
};

co_fn int block_backend_vol_open(struct vol_engine *e, uint64_t volume_id,
                                 struct block_backend **ret)
{
    struct vol *vol;
    int rc = vol_open(e, volume_id, &vol);

    if (rc < 0)
        return rc;
    struct backend_vol *b = MEM_NEW(struct backend_vol);
    b->base.ops = &backend_vol_ops;
    b->engine = e;
    b->vol = vol;
    *ret = &b->base;
    return 0;
}
