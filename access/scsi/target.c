/* SPDX-License-Identifier: Apache-2.0
 *
 * Targets, logical units, nexuses and their unit attentions: see scsi.h. */
#include <stdio.h>
#include <string.h>
#include "access/scsi/scsi_int.h"
#include "common/base/assert.h"
#include "common/base/mem.h"

void scsi_target_init(struct scsi_target *t, const char *name)
{
    memset(t, 0, sizeof(*t));
    snprintf(t->name, sizeof(t->name), "%s", name);
    list_init(&t->nexuses);
    co_cond_init(&t->changed);
}

void scsi_target_fini(struct scsi_target *t)
{
    ASSERT(t->lun_count == 0);
    ASSERT(list_empty(&t->nexuses));
}

/* ---- logical units ---- */

struct scsi_lun *scsi_lun_add(struct scsi_target *t, uint16_t number)
{
    struct scsi_lun *lun = MEM_NEW(struct scsi_lun);

    ASSERT(number < SCSI_LUNS_MAX && t->luns[number] == NULL);
    lun->target = t;
    lun->number = number;
    list_init(&lun->cmds);
    co_cond_init(&lun->ended);
    t->luns[number] = lun;
    t->lun_count++;
    LIST_FOREACH (n, &t->nexuses, struct scsi_nexus, link)
        n->ua[number] = 0;
    scsi_target_attention(t, NULL, SCSI_UA_LUNS_CHANGED, NULL);
    return lun;
}

uint32_t scsi_space_sets(uint64_t bytes)
{
    return (uint32_t)MIN(bytes / SCSI_BLOCK_BYTES >> SCSI_THRESHOLD_EXPONENT, (uint64_t)UINT32_MAX);
}

/* Is little room left? What was little stays so until there is clearly more. */
static bool lun_space_low(const struct scsi_lun *lun)
{
    const struct block_backend_info *info = &lun->info;
    uint64_t more = lun->space_low ? info->space_bytes / 64 : 0;

    return info->space_warn_bytes != 0 && info->space_free_bytes <= info->space_warn_bytes + more;
}

static void scsi_lun_refresh(struct scsi_lun *lun)
{
    lun->backend->ops->info(lun->backend, &lun->info);
    lun->blocks = lun->info.size_bytes / SCSI_BLOCK_BYTES;
    lun->space_low = lun_space_low(lun);
}

/* The threshold as a share of the room: disks that come and go don't change it. */
static uint64_t lun_warn_percent(const struct scsi_lun *lun)
{
    return lun->info.space_warn_bytes / MAX(lun->info.space_bytes / 100, (uint64_t)1);
}

/* Tells nexuses what is not as it was. That the room is known for the first time is no news. */
static void scsi_lun_update(struct scsi_lun *lun)
{
    uint64_t blocks = lun->blocks, percent = lun_warn_percent(lun);
    bool known = lun->info.space_bytes != 0;
    bool low = lun->space_low;

    scsi_lun_refresh(lun);
    if (lun->blocks != blocks)
        scsi_target_attention(lun->target, lun, SCSI_UA_CAPACITY, NULL);
    if (known && lun_warn_percent(lun) != percent)
        scsi_target_attention(lun->target, lun, SCSI_UA_MODE, NULL);
    if (lun->space_low && !low)
        scsi_target_attention(lun->target, lun, SCSI_UA_SPACE_LOW, NULL);
}

void scsi_lun_attach(struct scsi_lun *lun, struct block_backend *b, struct pr_unit *pr)
{
    ASSERT(lun->backend == NULL);
    lun->backend = b;
    lun->pr = pr;
    if (pr != NULL)
        list_push_back(&pr->luns, &lun->pr_link);
    scsi_lun_refresh(lun);
}

void scsi_lun_unlink(struct scsi_lun *lun)
{
    struct scsi_target *t = lun->target;

    if (lun->removed)
        return;
    ASSERT(t->luns[lun->number] == lun);
    t->luns[lun->number] = NULL;
    t->lun_count--;
    lun->removed = true;
    scsi_target_attention(t, NULL, SCSI_UA_LUNS_CHANGED, NULL);
}

co_fn void scsi_lun_remove(struct scsi_lun *lun)
{
    scsi_lun_unlink(lun);
    while (!list_empty(&lun->cmds) || lun->pins > 0)
        co_cond_wait_always(&lun->ended);
    if (lun->pr != NULL) {
        list_del(&lun->pr_link);
        pr_unit_put(lun->pr);
    }
    if (lun->backend != NULL)
        lun->backend->ops->close(lun->backend);
    mem_free(lun);
}

void scsi_target_volume_changed(struct scsi_target *t, uint64_t volume_id)
{
    for (uint32_t i = 0; i < SCSI_LUNS_MAX; i++) {
        struct scsi_lun *lun = t->luns[i];

        if (lun != NULL && lun->backend != NULL && lun->info.volume_id == volume_id)
            scsi_lun_update(lun);
    }
}

void scsi_target_space_changed(struct scsi_target *t)
{
    for (uint32_t i = 0; i < SCSI_LUNS_MAX; i++) {
        if (t->luns[i] != NULL && t->luns[i]->backend != NULL)
            scsi_lun_update(t->luns[i]);
    }
}

/* ---- nexuses ---- */

void scsi_nexus_init(struct scsi_nexus *n, struct scsi_target *t, const char *peer, uint16_t port,
                     const char *initiator)
{
    memset(n, 0, sizeof(*n));
    n->target = t;
    n->port = port;
    snprintf(n->peer, sizeof(n->peer), "%s", peer);
    n->id.port = port;
    snprintf(n->id.initiator, sizeof(n->id.initiator), "%s", initiator);
    for (uint32_t i = 0; i < SCSI_LUNS_MAX; i++)
        n->ua[i] = SCSI_UA_POWER_ON;
    list_push_back(&t->nexuses, &n->link);
}

co_fn void scsi_nexus_leave(struct scsi_nexus *n)
{
    for (uint32_t i = 0; i < SCSI_LUNS_MAX; i++) {
        struct scsi_lun *lun = n->target->luns[i];

        if (lun == NULL || lun->pr == NULL)
            continue;
        lun->pins++;
        pr_unit_nexus_gone(lun->pr, &n->id);
        lun->pins--;
        co_cond_broadcast(&lun->ended);
    }
}

void scsi_nexus_fini(struct scsi_nexus *n)
{
    list_del(&n->link);
}

void scsi_target_attention(struct scsi_target *t, struct scsi_lun *only, enum scsi_ua ua,
                           const struct scsi_nexus *except)
{
    LIST_FOREACH (n, &t->nexuses, struct scsi_nexus, link) {
        if (except != NULL && n == except)
            continue;
        for (uint32_t i = 0; i < SCSI_LUNS_MAX; i++) {
            if (t->luns[i] != NULL && (only == NULL || t->luns[i] == only))
                n->ua[i] |= (uint16_t)ua;
        }
    }
}

bool scsi_nexus_take_ua(struct scsi_nexus *n, uint16_t lun, uint8_t *ret_asc, uint8_t *ret_ascq)
{
    static const struct {
        enum scsi_ua ua;
        uint8_t asc, ascq;
    } table[] = {
        {SCSI_UA_POWER_ON, 0x29, 0x00},
        {SCSI_UA_RESET, 0x29, 0x03},
        {SCSI_UA_NEXUS_LOSS, 0x29, 0x07},
        {SCSI_UA_CLEARED, 0x2f, 0x00},
        {SCSI_UA_LUNS_CHANGED, 0x3f, 0x0e},
        {SCSI_UA_CAPACITY, 0x2a, 0x09},
        {SCSI_UA_MODE, 0x2a, 0x01},
        {SCSI_UA_RESERVATIONS_PREEMPTED, 0x2a, 0x03},
        {SCSI_UA_RESERVATIONS_RELEASED, 0x2a, 0x04},
        {SCSI_UA_REGISTRATIONS_PREEMPTED, 0x2a, 0x05},
        {SCSI_UA_ACCESS_STATE, 0x2a, 0x06},
        {SCSI_UA_SPACE_LOW, 0x38, 0x07},
    };
    uint16_t pending = n->ua[lun];

    if (LIKELY(pending == 0))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (!(pending & table[i].ua))
            continue;
        n->ua[lun] &= (uint16_t)~table[i].ua;
        *ret_asc = table[i].asc;
        *ret_ascq = table[i].ascq;
        return true;
    }
    return false;
}

/* ---- addressing ---- */

int scsi_lun_decode(const uint8_t lun[8])
{
    for (unsigned i = 2; i < 8; i++) {
        if (lun[i] != 0)
            return -1;
    }
    switch (lun[0] >> 6) {
    case 0: /* peripheral device, bus 0 */
        return lun[0] == 0 ? lun[1] : -1;
    case 1: /* flat space */
        return (lun[0] & 0x3f) << 8 | lun[1];
    default:
        return -1;
    }
}

void scsi_lun_encode(uint16_t number, uint8_t dst[8])
{
    memset(dst, 0, 8);
    if (number < 256) {
        dst[1] = (uint8_t)number;
    } else {
        dst[0] = (uint8_t)(0x40 | number >> 8);
        dst[1] = (uint8_t)number;
    }
}
