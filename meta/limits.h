/* SPDX-License-Identifier: Apache-2.0
 *
 * Every maximum of the meta server. */
#ifndef ZBS_META_LIMITS_H
#define ZBS_META_LIMITS_H

#include "common/base/limits.h"

#define POOLS_MAX            1024u
#define VOLUMES_MAX          65536u
#define CHUNKS_MAX           1024u
#define SESSIONS_MAX         1024u
#define TARGETS_MAX          4096u
#define LUNS_MAX             256u /* of one target; also the highest number + 1 */
#define INITIATORS_MAX       64u  /* of one target's allow-list */
#define NAME_BYTES_MAX       128u /* pools, volumes, servers, hosts */
#define ADDR_BYTES_MAX       127u
#define SETTING_NAME_MAX     64u
#define IQN_BYTES_MAX        223u
#define CHAP_SECRET_MIN      12u
#define CHAP_SECRET_MAX      64u
#define SLOT_REPLICAS_MAX    8u /* of one extent, members and absent ones */
#define VOLUME_BYTES_MIN     (1ull << 20)
#define DISKS_MAX            64u    /* of one chunk server */
#define DISK_ROOM            2u     /* percent of a disk that have to be free: else it is full */
#define GRANT_SLOTS_MAX      64u    /* in one LeaseAcquire */
#define BATCH_ITEMS_MAX      1024u  /* slots in a LeaseRelease, extents in an ExtentCreated */
#define RESULTS_MAX          16384u /* answers kept for retries (PROTOCOL 6.4) */
#define SNAPSHOT_GROUP_MAX   64u
#define SHARES_MAX           1024u
#define SHARE_CLIENTS_MAX    256u
#define INODES_MAX           (4u << 20)
#define FILE_VOLUMES_MAX     (1u << 20) /* not counted in VOLUMES_MAX; removed ones included */
#define FILE_VOLUME_NAME     "file-%016" PRIx64 /* of an inode's volume */
#define LOCK_HOLDERS_MAX     65536u
#define LOCK_RANGES_MAX      1024u /* of one holder, or one more */
#define LOCK_LIST_MAX        1000u
#define LOCK_CLIENT_MAX      255u
#define LOCK_OWNER_MAX       1024u
#define DIR_LIST_BYTES       (512u * 1024) /* in one answer, or a little more */
#define VOLUME_LIST_MAX      2000u
#define VOLUME_MAP_MAX       4096u
#define SWEEP_MAX            256u  /* extents in one VolumeSweep record */
#define DELETES_MAX          128u  /* deletions in one heartbeat's answer */
#define LOST_MAX             4096u /* lost replicas noted per chunk server */
#define TASKS_MAX            64u   /* in one renewal's answer */
#define TASK_SCAN_MAX        512u  /* slots looked at for them */
#define PEERS_MAX            16u
#define ENTRY_BYTES_MAX      (200u * 1024) /* of one log entry; a node holds 256 KiB */
#define LOG_BYTES_KEEP       (24ull << 20) /* of untrimmed log, even if log_keep allows more */
#define LOG_BYTES_MAX        (64ull << 20) /* beyond it no mutation is accepted */
#define APPENDS_MAX          4u            /* entries in flight */
#define SNAPSHOT_PIECE_BYTES (384u * 1024)

#endif
