/* SPDX-License-Identifier: Apache-2.0
 *
 * The iSCSI target (RFC 7143) of an access server: a portal that serves every target of meta's
 * export table. access/README.md describes its parts. Belongs to the loop that started it. */
#ifndef ZBS_ACCESS_ISCSI_ISCSI_H
#define ZBS_ACCESS_ISCSI_ISCSI_H

#include "access/scsi/scsi.h"
#include "proto/meta.pb-c.h"

struct iscsi_target;

struct iscsi_conf {
    const char *listen;         /* portal "127.1.0.1:3260"; port 0: a free one; copied */
    const char *listen_virtual; /* an address that moves between hosts; NULL, "": none; copied */
    uint32_t connections;       /* most at once; 0: 256 */
    uint32_t window;            /* commands of a session in flight; 0: 128 */
    uint32_t memory_bytes;      /* payload of a connection beyond first bursts; 0: 32 MiB */
    uint32_t login_timeout_ms;  /* from connect to full feature phase; 0: 15,000 */
    uint32_t ping_ms;           /* idle time before a NOP-In, and again until its end; 0: 30,000 */
    uint32_t logout_timeout_ms; /* at a stop, for initiators to log out; 0: 1,000 */
    /* Opens the back end of a volume. May suspend. Repeated once a second until it succeeds. */
    co_fn int (*open)(void *arg, uint64_t volume_id, struct block_backend **ret);
    /* Asks meta for its export table and passes it to iscsi_target_exports_update. May suspend;
     * one call at a time. NULL: nobody is asked. */
    co_fn int (*refresh)(void *arg);
    /* Are initiators sent to the portal of their own host? NULL: they are not. */
    bool (*redirects)(void *arg);
    /* With redirects: how long that portal has to have been there before a session elsewhere is
     * asked to return to it; 0, or NULL: never. */
    nsec_t (*return_delay)(void *arg);
    void *arg;
    /* Persistent reservations: units have none without them (a store that all front ends of a
     * volume share, or a registry of memory where this process is the only one). */
    bool reservations;
    const struct pr_store *pr_store; /* NULL: memory; copied pointer */
};

/* Listens and serves in the background. No targets until the first exports_update. */
co_fn int iscsi_target_start(const struct iscsi_conf *conf, struct iscsi_target **ret) MUST_CHECK;
/* Asks initiators to log out, waits a little, closes what is left, frees. */
co_fn void iscsi_target_stop(struct iscsi_target *t);
const char *iscsi_target_addr(const struct iscsi_target *t); /* with the real port */

/* Takes over a new export table: targets and units come and go, initiators are told. An entry
 * that can't be served (bad name, LUN too high) is logged and left out. Does not suspend. */
void iscsi_target_exports_update(struct iscsi_target *t, const Zbs__Meta__ExportsGetReply *exports);

struct iscsi_portal {
    const char *addr;
    bool leaving; /* initiators are to go elsewhere; it still serves */
};
/* Takes over which portals the cluster has; those of access servers that are gone left out. Does
 * not suspend. */
void iscsi_target_portals_update(struct iscsi_target *t, const struct iscsi_portal *portals,
                                 size_t n);

/* Has the export table read anew by conf.refresh. A call is shared by all who ask before it
 * begins, and there are only a few in a second, however many ask. 0: the table is at least as new
 * as the start of this function. Waits 2 s at most. */
co_fn int iscsi_target_refresh(struct iscsi_target *t) MUST_CHECK;

/* Ends every connection that exists, in whatever phase. Of the commands that they hold (read or
 * not read yet) only those that the back end has already are finished. Does not suspend. */
void iscsi_target_drop(struct iscsi_target *t, const char *why);

/* The reservations of a volume may have been changed by another process: 0 once they are obeyed.
 * ERR_AGAIN: the target stops. */
co_fn int iscsi_target_reservations_changed(struct iscsi_target *t, uint64_t volume_id) MUST_CHECK;

/* A volume was resized (or deleted: its commands fail from now on). Does not suspend. */
void iscsi_target_volume_changed(struct iscsi_target *t, uint64_t volume_id);

/* The room that is left for volumes changed. Does not suspend. */
void iscsi_target_space_changed(struct iscsi_target *t);

struct iscsi_session_view {
    const char *target, *initiator, *address;
    uint64_t reads, writes, read_bytes, write_bytes;
};
/* Calls fn for each normal session. fn must not suspend. */
void iscsi_target_sessions(struct iscsi_target *t,
                           void (*fn)(void *arg, const struct iscsi_session_view *v), void *arg);

#endif
