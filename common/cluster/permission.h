/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may do what with an inode, by the rules of POSIX: mode bits, owner, groups, the sticky bit.
 * The meta servers decide with this about names and attributes, access servers about bytes. */
#ifndef ZBS_CLUSTER_PERMISSION_H
#define ZBS_CLUSTER_PERMISSION_H

#include <stdbool.h>
#include "common/base/attr.h"

#define PERMISSION_READ    4u
#define PERMISSION_WRITE   2u
#define PERMISSION_EXECUTE 1u /* of a directory: to use its names */

#define MODE_SETUID 04000u
#define MODE_SETGID 02000u
#define MODE_STICKY 01000u
#define MODE_BITS   07777u

/* After squashing. Everywhere here NULL means the system itself: all is permitted. */
struct permission_who {
    uint32_t uid, gid;
    const uint32_t *gids;
    size_t n_gids;
};
struct permission_of {
    uint32_t mode, uid, gid;
    bool directory;
};

/* What is permitted: PERMISSION_ bits. uid 0 may do everything but execute what nobody may. */
uint32_t permission_bits(const struct permission_who *who, const struct permission_of *of);
/* The same for reading and writing a file's bytes, which its owner always may: NFS knows no open
 * files, and a program may write to a file that it has just created as not writable. */
uint32_t permission_io_bits(const struct permission_who *who, const struct permission_of *of);
/* Is it the owner, or uid 0? */
bool permission_is_owner(const struct permission_who *who, uint32_t uid);
bool permission_in_group(const struct permission_who *who, uint32_t gid);
/* May an entry of a directory that may be written be removed? In a sticky one only by the owner of
 * either. */
bool permission_may_remove(const struct permission_who *who, const struct permission_of *dir,
                           uint32_t entry_uid);

/* Bits that a file's mode loses when its bytes are changed by somebody else than uid 0: what it
 * does with the rights of its owner or group was put there by one who may give them. MODE_SETGID of
 * a file that its group can't execute means something else, and stays. */
uint32_t permission_lost_by_write(uint32_t mode);

#endif
