/* SPDX-License-Identifier: Apache-2.0
 *
 * Checking a device that no chunk server uses: what it holds, what is wrong with it, and what can
 * be rebuilt from the rest. */
#ifndef ZBS_CHUNK_FSCK_H
#define ZBS_CHUNK_FSCK_H

#include <stdbool.h>
#include <stdint.h>
#include "common/co/co.h"

struct fsck_conf {
    bool repair;         /* what can be rebuilt; tried in memory first */
    bool data;           /* also reads all pages and checks them */
    const char *journal; /* the device that has its journals; NULL: itself */
    /* One line about something wrong; the text ends with the call. */
    void (*finding)(void *arg, const char *text);
    /* One line of explanation. */
    void (*note)(void *arg, const char *text);
    void *arg;
};
struct fsck_result {
    uint64_t findings; /* before the repair */
    uint64_t left;     /* after it; without a repair: the same */
    uint64_t extents, blocks, shared_blocks, pages;
    uint64_t lost_extents; /* void: their owners fill them anew */
    uint64_t bad_pages;    /* of data */
};
#define FSCK_FINDINGS_TOLD 200u /* of each kind of pass; all are counted */

/* Checks one device. Nothing is written to it unless conf->repair and the result of the repair, in
 * memory, is better than what was there. ERR_FORMAT: it is not one of ours, or of another version;
 * ERR_BUSY: it is in use. */
co_fn int fsck_device(const char *path, const struct fsck_conf *conf,
                      struct fsck_result *ret) MUST_CHECK;

#endif
