/* SPDX-License-Identifier: Apache-2.0
 *
 * Permission: see permission.h. */
#include "common/cluster/permission.h"

static bool is_root(const struct permission_who *who)
{
    return who == NULL || who->uid == 0;
}

bool permission_in_group(const struct permission_who *who, uint32_t gid)
{
    if (is_root(who) || who->gid == gid)
        return true;
    for (size_t i = 0; i < who->n_gids; i++) {
        if (who->gids[i] == gid)
            return true;
    }
    return false;
}

uint32_t permission_bits(const struct permission_who *who, const struct permission_of *of)
{
    const uint32_t all = PERMISSION_READ | PERMISSION_WRITE | PERMISSION_EXECUTE;

    if (who == NULL)
        return all;
    if (is_root(who))
        return of->directory || (of->mode & 0111) != 0 ? all : all & ~PERMISSION_EXECUTE;
    if (who->uid == of->uid)
        return of->mode >> 6 & all;
    if (permission_in_group(who, of->gid))
        return of->mode >> 3 & all;
    return of->mode & all;
}

uint32_t permission_io_bits(const struct permission_who *who, const struct permission_of *of)
{
    uint32_t bits = permission_bits(who, of);

    return permission_is_owner(who, of->uid) ? bits | PERMISSION_READ | PERMISSION_WRITE : bits;
}

bool permission_is_owner(const struct permission_who *who, uint32_t uid)
{
    return is_root(who) || who->uid == uid;
}

bool permission_may_remove(const struct permission_who *who, const struct permission_of *dir,
                           uint32_t entry_uid)
{
    return (dir->mode & MODE_STICKY) == 0 || permission_is_owner(who, dir->uid) ||
           permission_is_owner(who, entry_uid);
}

uint32_t permission_lost_by_write(uint32_t mode)
{
    return mode & (MODE_SETUID | ((mode & 0010) != 0 ? MODE_SETGID : 0));
}
