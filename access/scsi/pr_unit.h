/* SPDX-License-Identifier: Apache-2.0
 *
 * The reservations of one volume, shared by all logical units over it in this process, and where
 * they are kept. A change is complete once the store has it, the units here obey it, the nexuses
 * that it concerns are told, and no command that it forbids is in flight any more. */
#ifndef ZBS_ACCESS_SCSI_PR_UNIT_H
#define ZBS_ACCESS_SCSI_PR_UNIT_H

#include "access/scsi/pr.h"
#include "common/base/list.h"
#include "common/co/co.h"
#include "common/co/sync.h"

struct scsi_cmd;
struct scsi_lun;
struct scsi_nexus;

/* Keeps one record (pr_encode) per volume. Versions grow with each change; 0: no record yet. */
struct pr_store {
    void *arg;
    /* *ret: mem_free; *ret_len 0 with version 0. */
    co_fn int (*load)(void *arg, uint64_t volume_id, uint8_t **ret, size_t *ret_len,
                      uint64_t *ret_version);
    /* Replaces the record of that version. 0 once it can't be lost. ERR_STALE: another was faster.
     * Other errors: it is not known whether it was replaced. */
    co_fn int (*replace)(void *arg, uint64_t volume_id, uint64_t version, const uint8_t *record,
                         size_t len, uint64_t *ret_version);
    /* Waits until no other process that serves the volume begins, or has in flight, anything that
     * the record of this version forbids. */
    co_fn int (*settle)(void *arg, uint64_t version);
    /* Waits until it is certain that others can't have settled a change that is not known here. */
    co_fn int (*fresh)(void *arg);
};

struct pr_registry {
    const struct pr_store *store; /* NULL: memory alone, nothing outlives the registry */
    struct list units;
};

struct pr_unit {
    struct list link; /* registry->units */
    struct pr_registry *registry;
    uint64_t volume_id;
    uint32_t refs;
    bool changing; /* one change at a time */
    struct co_cond changed;
    struct pr_state state;
    uint64_t version; /* of the record that state is; 0: nothing was ever reserved */
    bool loaded;
    struct list luns;                    /* struct scsi_lun, pr_link */
    uint32_t guests[PR_ACCESS_READ + 1]; /* what they have in flight, by enum pr_access */
    struct co_cond guest_ended;
};

void pr_registry_init(struct pr_registry *r, const struct pr_store *store);
void pr_registry_fini(struct pr_registry *r); /* no units */

/* The reservations of a volume, read from the store if they are not here yet. */
co_fn int pr_unit_get(struct pr_registry *r, uint64_t volume_id, struct pr_unit **ret) MUST_CHECK;
void pr_unit_put(struct pr_unit *u);
bool pr_unit_persistent(const struct pr_unit *u); /* does it survive this process? */

/* Would this command end with RESERVATION CONFLICT? */
bool pr_unit_refuses(const struct pr_unit *u, const struct scsi_cmd *c);

/* Carries out a PERSISTENT RESERVE OUT for the command `self`. A negative code: of the store. */
co_fn int pr_unit_out(struct pr_unit *u, const struct pr_command *cmd, const struct scsi_cmd *self,
                      enum pr_answer *ret) MUST_CHECK;

/* RESERVE(6), RELEASE(6), and LOGICAL UNIT RESET, which also ends the commands of every unit of the
 * volume and tells their nexuses, here and in other processes. */
enum pr_legacy { PR_LEGACY_RESERVE, PR_LEGACY_RELEASE, PR_LEGACY_RESET };
co_fn int pr_unit_legacy(struct pr_unit *u, enum pr_legacy what, const struct pr_nexus *who,
                         const struct scsi_cmd *self, enum pr_answer *ret) MUST_CHECK;
/* SET TARGET PORT GROUPS: this target port is the optimized one from now on; 0: none is chosen. */
co_fn int pr_unit_optimize(struct pr_unit *u, uint16_t port,
                           const struct scsi_cmd *self) MUST_CHECK;
/* The nexus ends, and what it reserved by RESERVE(6) with it, if the store answers within the
 * caller's deadline. */
co_fn void pr_unit_nexus_gone(struct pr_unit *u, const struct pr_nexus *who);

/* Waits until what is known here may be relied on for the command. A negative code: it must not be
 * executed. */
co_fn int pr_unit_fresh(const struct pr_unit *u, const struct scsi_cmd *c) MUST_CHECK;

/* Around an I/O of a client that has no nexus, as those of NBD have none: it can't register, so
 * every reservation is somebody else's. PR_ACCESS_EXCLUSIVE or PR_ACCESS_READ. ERR_RESERVED: it is
 * not to be begun, nor ended. Other codes as those of pr_unit_fresh. */
co_fn int pr_unit_guest_begin(struct pr_unit *u, enum pr_access access) MUST_CHECK;
void pr_unit_guest_end(struct pr_unit *u, enum pr_access access);

/* The record may have been changed by another process: reads and obeys it, and returns once nothing
 * that it forbids is in flight here. */
co_fn int pr_registry_changed(struct pr_registry *r, uint64_t volume_id) MUST_CHECK;

#endif
