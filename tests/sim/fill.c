/* SPDX-License-Identifier: Apache-2.0
 *
 * Full disks: clients write one page to each block of a place that is larger than a small disk, so
 * that every write needs space. See workload_int.h. */
#include "tests/sim/workload_int.h"

#include "common/base/units.h"
#include "common/env/env.h"

#define FILL_BASE     (128ull << 20)
#define FILL_BYTES    ((uint64_t)BLOCK_BYTES)
#define FILL_SECTORS  8
#define FILL_TOGETHER 8 /* blocks of one operation */
#define SPACE_BACK    (60 * NSEC_PER_SEC)

bool fill_wanted(const struct client *cl)
{
    const struct workload *w = cl->w;

    if (w->filling)
        return true;
    for (uint32_t i = 0; i < FILL_BLOCKS; i++)
        if (w->filled[i])
            return true;
    return false;
}

static uint64_t block_at(uint32_t n)
{
    return FILL_BASE + n * FILL_BYTES;
}

static int block_write(struct client *cl, struct vol *v, uint32_t n)
{
    struct range r = {.v = v, .first = block_at(n) / SECTOR_BYTES, .count = FILL_SECTORS};
    int rc;

    r.key = r.first;
    cl->w->filled[n] = true;
    rc = client_write(cl, &r);
    if (rc == ERR_NOSPACE)
        cl->w->filled[n] = false;
    return rc;
}

/* The whole of it; what was never written is zero anyway. */
static int block_discard(struct client *cl, struct vol *v, uint32_t n)
{
    struct range r = {.v = v, .first = block_at(n) / SECTOR_BYTES, .count = FILL_SECTORS};
    nsec_t former = client_begin(cl);
    uint64_t op = history_zero_call(cl->w->c->history, r.first, r.count);
    int rc = vol_discard(v, block_at(n), FILL_BYTES);

    client_changed(cl, op, &r, rc);
    if (rc == 0)
        cl->w->filled[n] = false;
    cl->w->stats.zeroes++;
    client_end(cl, former);
    return rc;
}

void fill_operation(struct client *cl, struct vol *v)
{
    uint32_t n = (uint32_t)client_draw(cl, FILL_BLOCKS), done = 0;
    bool filling = cl->w->filling;
    int rc = 0;

    for (uint32_t i = 0; i < FILL_BLOCKS && done < FILL_TOGETHER && rc == 0; i++) {
        uint32_t k = (n + i) % FILL_BLOCKS;

        if (cl->w->filled[k] == filling)
            continue;
        rc = filling ? block_write(cl, v, k) : block_discard(cl, v, k);
        done++;
    }
}

/* Of a block that has its space: needs none, so a full disk is no reason to refuse it. */
static void overwrite_check(struct client *cl, struct vol *v)
{
    for (uint32_t n = 0; n < FILL_BLOCKS; n++) {
        int rc = cl->w->filled[n] ? block_write(cl, v, n) : 0;

        if (rc < 0)
            cluster_fail(cl->w->c, "a block that has its space can't be written: %s", err_text(rc));
        if (cl->w->filled[n])
            return;
    }
}

static void space_check(struct client *cl, struct vol *v)
{
    nsec_t until = co_now() + SPACE_BACK;

    for (uint32_t n = 0; n < FILL_TOGETHER; n++) {
        int rc = block_write(cl, v, n);

        while (rc < 0 && co_now() < until && co_sleep(200 * NSEC_PER_MSEC) == 0)
            rc = block_write(cl, v, n);
        if (rc < 0)
            cluster_fail(cl->w->c, "no space though what filled the disks is discarded: %s",
                         err_text(rc));
    }
}

void fill_check(struct client *cl, struct vol *v)
{
    int rc = 0;

    for (uint32_t n = 0; n < FILL_BLOCKS && rc == 0; n++)
        rc = block_write(cl, v, n);
    if (rc < 0 && rc != ERR_NOSPACE)
        cluster_fail(cl->w->c, "a write to full disks was answered: %s", err_text(rc));
    overwrite_check(cl, v);
    for (uint32_t n = 0; n < FILL_BLOCKS; n++) {
        rc = block_discard(cl, v, n);
        if (rc < 0)
            cluster_fail(cl->w->c, "full disks can't be emptied: %s", err_text(rc));
    }
    space_check(cl, v);
}
