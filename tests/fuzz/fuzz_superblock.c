/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzzes what the chunk server reads from a device: superblocks, anchors, staging area, journal,
 * bitmap, heads, maps (device.h). The engine starts (or refuses to), opens, reads, writes, checks
 * and flushes what it finds, starts again, and must not crash, hang or leak. */
#include "tests/fuzz/device.h"

static void use_extent(struct engine *e, uint64_t id, uint64_t epoch)
{
    struct read_result *r = mem_alloc(sizeof(*r));
    struct write_args a = {.id = id, .v = {epoch, 1u << 30}, .kind = W_ZERO};
    struct missing_change c = {.replica = 3, .start = true, .everything = true};
    struct write_result res;
    struct open_info oi;

    if (engine_open(e, id, epoch, 1, &oi) == 0) {
        open_info_free(&oi);
        for (uint32_t b = 0; b < MODEL_BLOCKS; b++) {
            if (engine_read(e, id, epoch, model_block(b) * BLOCK_BYTES, BLOCK_BYTES, r) == 0)
                buf_put(r->buf);
        }
        a.off = 512;
        a.len = 2 * BLOCK_BYTES;
        if (engine_write(e, &a, &res) == 0)
            (void)!engine_missing_change(e, id, epoch, &c, 1);
    }
    mem_free(r);
}

static int use_main(void *arg)
{
    struct engine_conf conf = {.workers = 1};
    struct super_block *sb = mem_alloc(sizeof(*sb));
    struct engine *e = engine_new(&conf);
    struct replica_info info[16];
    bool more;

    (void)arg;
    if (super_read(DISK, sb) == 0 && engine_dev_add(e, DISK, sb) == 0) {
        uint32_t n = engine_list(e, 0, info, ARRAY_SIZE(info), &more);
        int rc = engine_check(e);

        for (uint32_t i = 0; i < n; i++)
            use_extent(e, info[i].id, info[i].epoch < UINT64_MAX ? info[i].epoch + 1 : 1);
        if (n > 1 && engine_delete(e, UINT64_MAX, info[0].id, UINT64_MAX) == 0)
            rc = engine_create(e, 1u << 30, 1, 1, 1);
        if (rc == 0)
            (void)!engine_flush(e);
    }
    mem_free(sb);
    engine_stop(e);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sim_proc *p;
    struct sim *s;

    log_threshold = LOG_LV_ERROR + 1;
    s = device_world(data, size, &p);
    for (int i = 0; i < 2; i++)
        device_proc(s, p, use_main, NULL);
    sim_free(s);
    return 0;
}
