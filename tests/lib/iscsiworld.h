/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated host with an iSCSI target over memory, and a body of code beside it: the frame of
 * the tests of access/iscsi. */
#ifndef ZBS_TESTS_ISCSIWORLD_H
#define ZBS_TESTS_ISCSIWORLD_H

#include "access/iscsi/iscsi.h"
#include "tests/lib/iscsi_ini.h"

#define IW_IQN           "iqn.2024-01.example:one"
#define IW_IQN_CHAP      "iqn.2024-01.example:chap"
#define IW_INI           "iqn.2024-01.example:initiator"
#define IW_SECOND_PORTAL "127.1.0.2:3260"
#define IW_SIZE          (64u * 1024 * 1024)
#define IW_VOLUMES       8u
#define IW_NORMAL                                                                                  \
    "MaxRecvDataSegmentLength=65536\nInitialR2T=No\nImmediateData=Yes\n"                           \
    "MaxBurstLength=262144\nFirstBurstLength=65536\nMaxOutstandingR2T=4\n"

struct iscsiworld {
    /* set by the test */
    void (*body)(struct iscsiworld *w);
    void *arg;
    struct iscsi_conf conf; /* listen, open and arg (the world) are filled in */
    uint64_t seed;          /* 0: 1 */
    /* for the body */
    struct iscsi_target *target;
    const char *addr;
    struct block_backend *backends[IW_VOLUMES]; /* open ones, by volume id */
    uint32_t opens_to_fail;                     /* that many calls of open fail first */
    nsec_t open_takes;
};

/* Two targets: IW_IQN with LUNs 0 (volume 1) and 1 (volume 2), IW_IQN_CHAP with LUN 0 (volume 3),
 * user "alice", secret "secretsecret12", for IW_INI only. Two portals: the target's own and
 * IW_SECOND_PORTAL, where nobody is. without: leave out the second LUN. */
void iscsiworld_export(struct iscsiworld *w, bool without_second_lun);
/* No targets at all. */
void iscsiworld_export_nothing(struct iscsiworld *w);

/* Runs the body in a fresh world, with the exports made; stops the target afterwards unless the
 * body did (and set w->target to NULL). */
void iscsiworld_run(struct iscsiworld *w);

#endif
