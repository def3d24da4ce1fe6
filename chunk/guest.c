/* SPDX-License-Identifier: Apache-2.0
 *
 * Journals on another device. A *host* (a fast device) has slots in every region, each with room
 * for the two anchors and the ring of one other device's region; the device that has them is its
 * *guest*. The guest's superblock names the host and the slot, the host's names the guest in its
 * table: a journal is used only if both say so, so that a change that ended half way leaves a
 * guest that is refused, and never two in one slot. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/chunkd.h"
#include "chunk/internal.h"

bool super_is_guest(const struct super_block *sb)
{
    return !mem_is_zero(sb->journal_disk, sizeof(sb->journal_disk));
}

int guest_check(const struct super_block *sb, const char *host_path, const struct super_block *host)
{
    if (memcmp(sb->journal_disk, host->disk_uuid, 16) != 0)
        return err_set(ERR_REFUSED, "its journals are not on %s", host_path);
    if (sb->journal_slot >= host->guests ||
        memcmp(host->guest[sb->journal_slot], sb->disk_uuid, 16) != 0)
        return err_set(ERR_FORMAT,
                       "its journals on %s are not its own: it was removed, or formatting it did "
                       "not come to its end",
                       host_path);
    if (sb->workers != host->workers || sb->journal_bytes != host->journal_bytes ||
        sb->journal_unit != host->journal_unit)
        return err_set(ERR_FORMAT, "its journals on %s have another size", host_path);
    return 0;
}

int guest_place(const struct super_block *sb, const struct super_block *host, uint32_t worker,
                struct geometry *g)
{
    struct geometry at;
    int rc = geometry_compute(host, worker, &at);

    if (rc < 0)
        return rc;
    g->anchors_off =
        at.guests_off + sb->journal_slot * (ANCHORS_BYTES + (uint64_t)host->journal_bytes);
    g->journal_off = g->anchors_off + ANCHORS_BYTES;
    return 0;
}

/* ---- formatting ---- */

/* A device that had a slot and is formatted anew gives it back first: nothing on it counts any
 * more. */
static int slot_return(struct guest_format *gf, const char *path)
{
    struct super_block *former = mem_alloc(sizeof(*former));
    int rc = 0;

    if (super_read(path, former) == 0)
        rc = guest_leave(former, gf->path, gf->host);
    mem_free(former);
    return rc;
}

int guest_leave(const struct super_block *sb, const char *host_path, struct super_block *host)
{
    uint32_t slot = sb->journal_slot;

    if (slot >= host->guests || memcmp(host->guest[slot], sb->disk_uuid, 16) != 0)
        return 0;
    memset(host->guest[slot], 0, 16);
    return super_write(host_path, host);
}

static int slot_find(struct guest_format *gf)
{
    for (gf->slot = 0; gf->slot < gf->host->guests; gf->slot++) {
        if (mem_is_zero(gf->host->guest[gf->slot], 16))
            return 0;
    }
    if (gf->host->guests == 0)
        return err_set(ERR_REFUSED,
                       "%s has no places for journals of other devices: it must be formatted with "
                       "--guest-rings",
                       gf->path);
    return err_set(ERR_NOSPACE, "all %" PRIu32 " places for journals on %s are taken",
                   gf->host->guests, gf->path);
}

static int host_fits(const struct guest_format *gf, const struct chunk_format_conf *conf)
{
    const struct super_block *host = gf->host;

    if (conf->guests > 0)
        return err_set(ERR_INVAL, "a device whose journals are on %s can't have those of others",
                       gf->path);
    if (conf->journal_bytes != 0 && conf->journal_bytes != host->journal_bytes)
        return err_set(ERR_INVAL, "journals on %s have %" PRIu64 " bytes", gf->path,
                       host->journal_bytes);
    if (conf->workers != 0 && conf->workers != host->workers)
        return err_set(ERR_INVAL, "%s is formatted for %" PRIu32 " workers", gf->path,
                       host->workers);
    if (!mem_is_zero(conf->server_uuid, 16) &&
        memcmp(conf->server_uuid, host->server_uuid, 16) != 0)
        return err_set(ERR_REFUSED, "%s belongs to another chunk server", gf->path);
    return 0;
}

int guest_format_begin(struct guest_format *gf, const char *path,
                       const struct chunk_format_conf *conf)
{
    int rc = 0;

    gf->path = conf->journal_on;
    gf->host = conf->journal_super;
    if (gf->host == NULL) {
        gf->host = gf->read = mem_alloc(sizeof(*gf->read));
        rc = disk_open(gf->path, DISK_EXCLUSIVE, &gf->guard);
        if (rc == 0)
            rc = super_read(gf->path, gf->host);
    }
    if (rc == 0)
        rc = host_fits(gf, conf);
    if (rc == 0)
        rc = slot_return(gf, path);
    if (rc == 0)
        rc = slot_find(gf);
    return rc == 0 ? disk_open(gf->path, 0, &gf->disk) : rc;
}

int guest_format_anchors(struct guest_format *gf, const struct super_block *sb)
{
    int rc = 0;

    for (uint32_t w = 0; w < sb->workers && rc == 0; w++) {
        struct geometry g;

        rc = guest_place(sb, gf->host, w, &g);
        if (rc == 0)
            rc = anchors_format(gf->disk, sb, &g);
    }
    return rc == 0 ? disk_flush(gf->disk) : rc;
}

int guest_format_commit(struct guest_format *gf, const struct super_block *sb)
{
    int rc;

    memcpy(gf->host->guest[gf->slot], sb->disk_uuid, 16);
    rc = super_write(gf->path, gf->host);
    if (rc < 0) /* it may be there or not; the slot is not given out while this program runs */
        log_warn("guest.host_not_written", "disk=%s why=\"%s\"", gf->path, err_text(rc));
    return rc;
}

void guest_format_end(struct guest_format *gf)
{
    if (gf->disk != NULL)
        disk_close(gf->disk);
    if (gf->guard != NULL)
        disk_close(gf->guard);
    mem_free(gf->read);
}
