/* SPDX-License-Identifier: Apache-2.0
 *
 * A SCSI target without a transport: logical units over back ends (access/block), I_T nexuses with
 * their unit attentions, and the commands of SPC-4 and SBC-3. A transport (access/iscsi) fills a
 * struct scsi_cmd and takes it through three steps:
 *
 *     scsi_cmd_start(cmd);            the CDB is checked; no data is needed for that
 *     if (!cmd->done) {
 *         ... fetch cmd->out_len bytes into cmd->out ...
 *         scsi_cmd_execute(cmd);      suspends
 *     }
 *     ... send cmd->in, status, sense, residual ...
 *     scsi_cmd_end(cmd);
 *
 * scsi_cmd_start is called in the order in which the transport delivers commands. Everything
 * belongs to one loop. The data path takes no lock and copies nothing: a read is received by the
 * back end in cmd->in, a write is handed down as it lies in cmd->out. */
#ifndef ZBS_ACCESS_SCSI_SCSI_H
#define ZBS_ACCESS_SCSI_SCSI_H

#include <stdbool.h>
#include "access/block/block.h"
#include "access/scsi/alua.h"
#include "access/scsi/pr_unit.h"
#include "access/scsi/sense.h"
#include "common/base/list.h"
#include "common/co/co.h"
#include "common/co/sync.h"

#define SCSI_BLOCK_BYTES        BLOCK_SECTOR_BYTES /* logical block */
#define SCSI_BLOCKS_PER_PHYS    8u                 /* physical block: 4 KiB */
#define SCSI_LBPPBE             3u                 /* log2 of the above */
#define SCSI_TRANSFER_BYTES_MAX (4u * 1024 * 1024)
#define SCSI_LUNS_MAX           256u
#define SCSI_CDB_MAX            16u
#define SCSI_SENSE_MAX          64u

/* ---- targets, logical units, nexuses ---- */

struct scsi_lun {
    struct scsi_target *target;
    uint16_t number;
    struct block_backend *backend; /* NULL: becoming ready */
    struct block_backend_info info;
    uint64_t blocks;
    bool removed;
    /* mode pages that can be changed; not saved */
    bool d_sense, swp;
    bool space_low; /* its nexuses were told */
    /* task set, in order of arrival */
    struct list cmds;
    uint32_t ordered; /* ORDERED commands among them */
    struct co_cond ended;
    uint32_t pins;      /* task management at work */
    struct pr_unit *pr; /* NULL: no reservations */
    struct list pr_link;
};

/* By the initiator, or because the volume is a snapshot. */
static inline bool scsi_lun_protected(const struct scsi_lun *lun)
{
    return lun->swp || lun->info.read_only;
}

struct scsi_target {
    char name[256]; /* iSCSI name */
    struct scsi_lun *luns[SCSI_LUNS_MAX];
    uint32_t lun_count;
    struct list nexuses;
    struct co_cond changed;         /* a lun was freed */
    const struct scsi_ports *ports; /* of the cluster; NULL: not known */
};

/* Conditions waiting to be reported to one nexus for one logical unit, in order of priority. */
enum scsi_ua {
    SCSI_UA_POWER_ON = 1,
    SCSI_UA_RESET = 2,
    SCSI_UA_NEXUS_LOSS = 4,
    SCSI_UA_CLEARED = 8, /* commands cleared by another initiator */
    SCSI_UA_LUNS_CHANGED = 16,
    SCSI_UA_CAPACITY = 32,
    SCSI_UA_MODE = 64,
    SCSI_UA_RESERVATIONS_PREEMPTED = 128,
    SCSI_UA_RESERVATIONS_RELEASED = 256,
    SCSI_UA_REGISTRATIONS_PREEMPTED = 512,
    SCSI_UA_ACCESS_STATE = 1024, /* another target port is optimized */
    SCSI_UA_SPACE_LOW = 2048,
};

/* How an EXTENDED COPY ended, for RECEIVE COPY RESULTS. */
#define SCSI_COPIES_HELD 8u
struct scsi_copy_result {
    uint16_t lun;
    uint8_t list_id, status;
    uint16_t segments;
    uint64_t bytes;
};

struct scsi_nexus {
    struct scsi_target *target;
    struct list link;
    uint16_t port;                 /* relative target port and port group through which it came */
    char peer[SCSI_PORT_ADDR_MAX]; /* address of the initiator */
    struct pr_nexus id;
    uint16_t ua[SCSI_LUNS_MAX];
    struct scsi_copy_result copies[SCSI_COPIES_HELD]; /* a ring */
    uint32_t copy_next;
};

void scsi_target_init(struct scsi_target *t, const char *name);
void scsi_target_fini(struct scsi_target *t); /* no luns, no nexuses */

/* Adds a logical unit without a back end (not ready). number: free, below SCSI_LUNS_MAX. */
struct scsi_lun *scsi_lun_add(struct scsi_target *t, uint16_t number);
/* Takes over the back end, and the reference to the reservations of its volume (NULL: none). */
void scsi_lun_attach(struct scsi_lun *lun, struct block_backend *b, struct pr_unit *pr);
/* Nobody finds it any more; commands that run are waited for; closes the back end, frees. */
co_fn void scsi_lun_remove(struct scsi_lun *lun);
/* The first half of scsi_lun_remove, without waiting. Idempotent. */
void scsi_lun_unlink(struct scsi_lun *lun);
/* A volume was resized: updates the capacity of its logical units, tells their nexuses. */
void scsi_target_volume_changed(struct scsi_target *t, uint64_t volume_id);
/* The same for all units, whose room has changed. */
void scsi_target_space_changed(struct scsi_target *t);

/* peer: address that the initiator comes from; initiator: name of its port (pr_initiator_name). */
void scsi_nexus_init(struct scsi_nexus *n, struct scsi_target *t, const char *peer, uint16_t port,
                     const char *initiator);
/* Gives back what it holds only while it exists; its commands ended. Before scsi_nexus_fini. The
 * caller's deadline bounds it. */
co_fn void scsi_nexus_leave(struct scsi_nexus *n);
void scsi_nexus_fini(struct scsi_nexus *n); /* its commands ended */
void scsi_target_attention(struct scsi_target *t, struct scsi_lun *only, enum scsi_ua ua,
                           const struct scsi_nexus *except);

/* ---- commands ---- */

enum scsi_status {
    SCSI_GOOD = 0x00,
    SCSI_CHECK_CONDITION = 0x02,
    SCSI_BUSY = 0x08,
    SCSI_RESERVATION_CONFLICT = 0x18,
    SCSI_TASK_SET_FULL = 0x28,
    SCSI_TASK_ABORTED = 0x40,
};

enum scsi_attr { SCSI_UNTAGGED, SCSI_SIMPLE, SCSI_ORDERED, SCSI_HEAD_OF_QUEUE, SCSI_ACA };

enum scsi_residual { SCSI_RESIDUAL_NONE, SCSI_RESIDUAL_UNDERFLOW, SCSI_RESIDUAL_OVERFLOW };

struct scsi_cmd {
    /* filled by the transport */
    struct scsi_nexus *nexus;
    uint16_t lun_number; /* SCSI_LUNS_MAX or more: none such */
    uint8_t cdb[SCSI_CDB_MAX];
    enum scsi_attr attr;
    uint32_t out_expected;               /* bytes that the initiator will send */
    uint32_t in_expected;                /* bytes that it has room for */
    void (*aborted)(struct scsi_cmd *c); /* task management wants it to end soon */

    /* after scsi_cmd_start */
    bool done;        /* status and sense stand; not to be executed */
    uint32_t out_len; /* Data-Out bytes to fetch, <= out_expected */
    uint32_t in_cap;  /* most bytes that `in` will take: for admission */

    /* Data-Out, by the transport: out_len bytes from out->data on */
    struct buf *out;

    /* result */
    uint8_t status; /* enum scsi_status */
    struct scsi_sense sense;
    struct buf *in;  /* reference of the command */
    uint32_t in_len; /* bytes to send, <= in_expected */
    enum scsi_residual residual;
    uint32_t residual_bytes;
    bool abort_requested;
    bool begun; /* was given to the back end: a write can't be recalled */
    /* Not 0: the command gets no answer, and the transport ends the nexus's connection, so that
     * the initiator repeats it. Either it is not known whether it was executed, or it must not be
     * because it may be old. The error says why; its text is set. */
    int lost;

    /* of the target */
    struct scsi_lun *lun; /* NULL: none such */
    const struct scsi_row *row;
    struct list link; /* lun->cmds */
    uint64_t lba;
    uint32_t blocks;
    uint64_t wanted; /* bytes that the command itself moves; for residuals */
    uint32_t alloc_len;
    bool in_task_set;
    bool to_end; /* WRITE SAME up to the end of the unit */
};

/* Checks the CDB, the unit's state, ranges; reports unit attentions. Does not suspend. */
void scsi_cmd_start(struct scsi_cmd *c);
/* Runs it: sets status, sense, in, residual, or `lost`. Suspends; never fails otherwise. */
co_fn void scsi_cmd_execute(struct scsi_cmd *c);
/* Leaves the task set and drops the buffers. Idempotent. */
void scsi_cmd_end(struct scsi_cmd *c);
/* Ends a command that was not executed with a status that needs no sense (TASK SET FULL). */
void scsi_cmd_refuse(struct scsi_cmd *c, enum scsi_status status);
/* Ends a command that was not executed because its Data-Out did not arrive whole. */
void scsi_cmd_damaged(struct scsi_cmd *c);
/* Ends a command without an answer (see `lost`). */
void scsi_cmd_lose(struct scsi_cmd *c, int rc);
/* Is the command of this CDB refused as long as its unit has no back end? */
bool scsi_cdb_needs_medium(const uint8_t cdb[SCSI_CDB_MAX]);
/* Writes the sense data in the format that the unit's control page asks for; its length. */
uint32_t scsi_cmd_sense(const struct scsi_cmd *c, uint8_t dst[SCSI_SENSE_MAX]);
/* Is it a write of bytes / a read of bytes? For counters. */
bool scsi_cmd_is_read(const struct scsi_cmd *c);
bool scsi_cmd_is_write(const struct scsi_cmd *c);

/* ---- task management ---- */

/* Ends the unit's commands, those of `only` (NULL: of every nexus): marks them, then waits until
 * they have ended. The unit stays until then, even if it is removed meanwhile. */
co_fn void scsi_lun_abort(struct scsi_lun *lun, const struct scsi_nexus *only);
/* Logical unit reset: aborts everything, restores mode pages, attention for every nexus, on all
 * paths to the volume. The caller's deadline bounds how long other paths are waited for. */
co_fn void scsi_lun_reset(struct scsi_lun *lun);

/* ---- names of addressing ---- */

/* The eight bytes of a LUN field: its number, or -1 if no unit can have it. */
int scsi_lun_decode(const uint8_t lun[8]);
void scsi_lun_encode(uint16_t number, uint8_t dst[8]);

#endif
