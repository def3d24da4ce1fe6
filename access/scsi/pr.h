/* SPDX-License-Identifier: Apache-2.0
 *
 * Persistent reservations (SPC-4 5.12) as a pure module: who is registered with a logical unit,
 * who holds its reservation, what a PERSISTENT RESERVE OUT makes of that, and which commands
 * conflict with it. Nothing here suspends or knows of sessions; pr_unit.h connects it to them. */
#ifndef ZBS_ACCESS_SCSI_PR_H
#define ZBS_ACCESS_SCSI_PR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/base/attr.h"

#define PR_REGISTRANTS_MAX 128u
#define PR_INITIATOR_MAX   248u /* iSCSI name, ",i,0x", ISID, NUL */
#define PR_PORT_ALL        0u   /* registered through every target port (ALL_TG_PT) */

enum pr_type {
    PR_NONE = 0,
    PR_WRITE_EXCLUSIVE = 1,
    PR_EXCLUSIVE_ACCESS = 3,
    PR_WRITE_EXCLUSIVE_RO = 5, /* registrants only */
    PR_EXCLUSIVE_ACCESS_RO = 6,
    PR_WRITE_EXCLUSIVE_AR = 7, /* all registrants hold it */
    PR_EXCLUSIVE_ACCESS_AR = 8,
};

/* What a command does as far as reservations go; the first is the safe choice. */
enum pr_access {
    PR_ACCESS_EXCLUSIVE, /* changes something, or is refused to others for another reason */
    PR_ACCESS_READ,      /* reads the medium */
    PR_ACCESS_ALWAYS,    /* conflicts with another's RESERVE(6) only, or has rules of its own */
    PR_ACCESS_IDENTITY,  /* never conflicts */
};

struct pr_nexus {
    uint16_t port;                    /* relative target port; PR_PORT_ALL in registrations */
    char initiator[PR_INITIATOR_MAX]; /* name of the initiator port */
};

struct pr_registrant {
    struct pr_nexus nexus;
    uint64_t key;
    bool holder; /* of a reservation of one holder; with "all registrants" no flag is set */
};

struct pr_state {
    uint32_t generation; /* PRGENERATION */
    uint8_t type;        /* enum pr_type; PR_NONE: not reserved */
    bool aptpl;          /* what the last registration asked for */
    uint32_t resets;     /* of the unit: how others learn of one */
    uint16_t optimized;  /* target port that SET TARGET PORT GROUPS chose (alua.h); 0: none */
    bool legacy;         /* RESERVE(6) of SPC-2; no registrations beside it */
    struct pr_nexus legacy_nexus;
    uint32_t count;
    struct pr_registrant *regs; /* in order of registration */
};

void pr_state_init(struct pr_state *s);
void pr_state_fini(struct pr_state *s);
void pr_state_copy(struct pr_state *dst, const struct pr_state *src); /* dst: initialised */

/* The registration of a nexus; NULL: none. */
struct pr_registrant *pr_find(const struct pr_state *s, const struct pr_nexus *who);
bool pr_type_valid(unsigned type);
bool pr_type_all(unsigned type); /* all registrants */
/* Does this registration hold the reservation (alone, or with all others)? */
bool pr_holds(const struct pr_state *s, const struct pr_registrant *r);
/* Would a command of this kind, coming through this nexus, end with RESERVATION CONFLICT? */
bool pr_conflicts(const struct pr_state *s, const struct pr_nexus *who, enum pr_access access);
bool pr_nexus_equal(const struct pr_nexus *registered, const struct pr_nexus *who);

enum pr_answer {
    PR_GOOD,
    PR_CONFLICT,
    PR_INVALID_RELEASE, /* another type than the reservation's */
    PR_NO_ROOM,         /* too many registrations */
    PR_INVALID_KEY,     /* SERVICE ACTION RESERVATION KEY can't be that */
    PR_INVALID_OTHER,   /* the other nexus can't be that */
};

/* RESERVE(6) and RELEASE(6): PR_GOOD or PR_CONFLICT. */
enum pr_answer pr_legacy_reserve(struct pr_state *s, const struct pr_nexus *who);
enum pr_answer pr_legacy_release(struct pr_state *s, const struct pr_nexus *who);
/* LOGICAL UNIT RESET: ends a RESERVE(6); registrations and reservations stay. */
void pr_reset(struct pr_state *s);

/* Ends whatever is reserved, and all registrations. */
void pr_clear(struct pr_state *s);

/* ---- PERSISTENT RESERVE OUT ---- */

enum pr_action {
    PR_REGISTER = 0,
    PR_RESERVE = 1,
    PR_RELEASE = 2,
    PR_CLEAR = 3,
    PR_PREEMPT = 4,
    PR_PREEMPT_AND_ABORT = 5,
    PR_REGISTER_AND_IGNORE = 6,
    PR_REGISTER_AND_MOVE = 7,
};

struct pr_command {
    enum pr_action action;
    uint8_t type; /* a valid one where the action has one */
    uint64_t key, action_key;
    bool aptpl, all_ports, unregister;
    struct pr_nexus who;
    const struct pr_nexus
        *others; /* SPEC_I_PT: registered too; REGISTER AND MOVE: the new holder */
    uint32_t other_count;
};

enum pr_attention {
    PR_RESERVATIONS_PREEMPTED,
    PR_RESERVATIONS_RELEASED,
    PR_REGISTRATIONS_PREEMPTED
};

/* What has to be told to a nexus, and done to its commands, because of a change. */
struct pr_effect {
    struct pr_nexus nexus;
    enum pr_attention attention;
    bool abort;
};

struct pr_effects {
    uint32_t count;
    struct pr_effect *list; /* pr_effects_fini frees it */
};

/* Carries the command out. The state changes only if the answer is PR_GOOD. */
enum pr_answer pr_out(struct pr_state *s, const struct pr_command *cmd, struct pr_effects *fx);
void pr_effects_fini(struct pr_effects *fx);

/* ---- as bytes, for who keeps it ---- */

/* *ret: mem_free. */
size_t pr_encode(const struct pr_state *s, uint8_t **ret);
/* dst: initialised. ERR_FORMAT, with dst unchanged. */
int pr_decode(struct pr_state *dst, const uint8_t *bytes, size_t len) MUST_CHECK;

/* ---- names ---- */

/* "NAME,i,0xISID" of an initiator port. */
void pr_initiator_name(char dst[PR_INITIATOR_MAX], const char *name, const uint8_t isid[6]);
/* A TransportID of an iSCSI initiator port (SPC-4 7.6.4.6). Its length, or 0: not one. */
uint32_t pr_transport_id_parse(const uint8_t *p, uint32_t len, char dst[PR_INITIATOR_MAX]);
/* Length written; dst holds PR_INITIATOR_MAX + 8 bytes. */
uint32_t pr_transport_id_put(uint8_t *dst, const char *initiator);

#endif
