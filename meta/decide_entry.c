/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions about names: removing, moving and adding them. */
#include <inttypes.h>
#include <string.h>
#include "common/base/err.h"
#include "meta/decide_tree.h"
#include "meta/view_tree.h"

#define CHANGE_NAMES (PERMISSION_WRITE | PERMISSION_EXECUTE)

static int check_not_dots(const char *name)
{
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return err_set(ERR_INVAL, "'%s' is not a name that can be changed", name);
    return 0;
}

/* May this name be taken away? */
static int check_remove(const Zbs__Meta__Credentials *c, const struct dir_entry *e)
{
    struct permission_of dir = permission_of(e->dir);
    struct permission_who buf;

    if (!permission_may_remove(permission_who(c, &buf), &dir, e->inode->uid))
        return err_set(ERR_PERM, "'%s' belongs to uid %u, in a sticky directory", e->name,
                       e->inode->uid);
    return 0;
}

/* A name that is to be removed or moved. */
static int decide_victim(const struct decide *d, uint64_t dir_id, const char *name,
                         const Zbs__Meta__Credentials *who, struct dir_entry **ret)
{
    struct inode *dir;
    int rc = decide_dir(d, dir_id, who, CHANGE_NAMES, &dir);

    if (rc == 0)
        rc = check_not_dots(name);
    if (rc == 0)
        rc = decide_entry(d, dir, name, ret);
    if (rc == 0)
        rc = check_remove(who, *ret);
    return rc;
}

/* May it lose this name? And which volumes go with its last one: ids in the pad. */
static int decide_goes(const struct decide *d, const struct dir_entry *e, uint64_t **volumes,
                       size_t *n_volumes)
{
    const struct inode *i = e->inode;
    uint64_t ids[] = {i->volume_id, i->candidate};

    if (i->entries.count > 0)
        return err_set(ERR_NOT_EMPTY, "directory '%s' is not empty", e->name);
    *volumes = PAD_NEW_ARRAY(d->pad, uint64_t, ARRAY_SIZE(ids));
    *n_volumes = 0;
    for (size_t k = 0; k < ARRAY_SIZE(ids) && i->nlink == 1; k++) {
        int rc = ids[k] != 0 ? decide_exported(d, state_volume(d->st, ids[k])) : 0;

        if (rc < 0)
            return rc;
        if (ids[k] != 0)
            (*volumes)[(*n_volumes)++] = ids[k];
    }
    return 0;
}

int decide_inode_remove(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__InodeRemoveRequest *rq = (const void *)d->rq;
    Zbs__Metalog__EntryRemove *m;
    struct dir_entry *e;
    int rc = decide_victim(d, rq->dir_id, rq->name, rq->who, &e);

    if (rc != 0)
        return rc;
    if (rq->directory && !inode_is_dir(e->inode))
        return err_set(ERR_NOT_DIR, "'%s' is not a directory", rq->name);
    if (!rq->directory && inode_is_dir(e->inode))
        return err_set(ERR_IS_DIR, "'%s' is a directory", rq->name);
    m = PAD_NEW(d->pad, Zbs__Metalog__EntryRemove);
    zbs__metalog__entry_remove__init(m);
    rc = decide_goes(d, e, &m->volumes, &m->n_volumes);
    if (rc < 0)
        return rc;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_ENTRY_REMOVE);
    (*ret)->entry_remove = m;
    m->dir_id = rq->dir_id;
    m->name = rq->name;
    m->time_ns = (uint64_t)d->w->wall_ns;
    return 0;
}

/* ---- renaming ---- */

/* The errors are those of rename(2), which clients pass on. */
static int check_replace(const Zbs__Meta__Credentials *who, const struct inode *i,
                         const struct dir_entry *replaced)
{
    int rc = check_remove(who, replaced);

    if (rc < 0)
        return rc;
    if (inode_is_dir(i) && !inode_is_dir(replaced->inode))
        return err_set(ERR_NOT_DIR, "'%s' is not a directory", replaced->name);
    if (!inode_is_dir(i) && inode_is_dir(replaced->inode))
        return err_set(ERR_IS_DIR, "'%s' is a directory", replaced->name);
    return 0;
}

/* A directory gets another '..': that is a change of it, too. */
static int check_reparent(const Zbs__Meta__Credentials *c, const struct inode *i,
                          const struct inode *to, const struct dir_entry *replaced)
{
    struct permission_of of = permission_of(i);
    struct permission_who buf;

    if (inode_is_below(to, i))
        return err_set(ERR_INVAL, "a directory can't be moved below itself");
    if ((permission_bits(permission_who(c, &buf), &of) & PERMISSION_WRITE) == 0)
        return err_set(ERR_ACCESS, "directory %" PRIu64 " may not be written", i->id);
    if (replaced == NULL && to->nlink >= FILE_LINKS_MAX)
        return err_set(ERR_TOO_LARGE, "directory %" PRIu64 " has %u directories, the most allowed",
                       to->id, to->nlink - 2);
    return 0;
}

static int check_move(const struct decide *d, const struct dir_entry *from, const struct inode *to,
                      const struct dir_entry *replaced)
{
    const Zbs__Meta__InodeRenameRequest *rq = (const void *)d->rq;
    int rc = 0;

    if (from->dir->share != to->share)
        return err_set(ERR_INVAL, "a file can't be moved to another share");
    if (inode_is_dir(from->inode) && to != from->dir)
        rc = check_reparent(rq->who, from->inode, to, replaced);
    if (rc == 0 && replaced != NULL)
        rc = check_replace(rq->who, from->inode, replaced);
    return rc;
}

int decide_inode_rename(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__InodeRenameRequest *rq = (const void *)d->rq;
    const struct dir_entry *replaced;
    Zbs__Metalog__EntryMove *m;
    struct dir_entry *from;
    struct inode *to;
    int rc = decide_victim(d, rq->from_dir_id, rq->from_name, rq->who, &from);

    if (rc == 0)
        rc = decide_dir(d, rq->to_dir_id, rq->who, CHANGE_NAMES, &to);
    if (rc == 0)
        rc = check_entry_name(rq->to_name);
    if (rc == 0)
        rc = check_not_dots(rq->to_name);
    if (rc != 0)
        return rc;
    *ret = NULL;
    replaced = tree_entry(&d->st->tree, to, rq->to_name);
    if (replaced != NULL && replaced->inode == from->inode)
        return 0; /* two names of one inode: nothing is to be done */
    m = PAD_NEW(d->pad, Zbs__Metalog__EntryMove);
    zbs__metalog__entry_move__init(m);
    rc = check_move(d, from, to, replaced);
    if (rc == 0 && replaced != NULL)
        rc = decide_goes(d, replaced, &m->volumes, &m->n_volumes);
    if (rc < 0)
        return rc;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_ENTRY_MOVE);
    (*ret)->entry_move = m;
    m->from_dir_id = rq->from_dir_id;
    m->from_name = rq->from_name;
    m->to_dir_id = rq->to_dir_id;
    m->to_name = rq->to_name;
    m->time_ns = (uint64_t)d->w->wall_ns;
    return 0;
}

/* Of one that did nothing. */
int answer_inode_rename(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__InodeRenameRequest *rq = (const void *)d->rq;
    Zbs__Meta__InodeRenameReply *m = (void *)reply;
    const struct inode *from = tree_inode(&d->st->tree, rq->from_dir_id);
    const struct inode *to = tree_inode(&d->st->tree, rq->to_dir_id);

    m->from_dir = view_wcc_before(from, d->pad);
    m->from_dir->after = view_inode_new(d->st, from, d->pad);
    m->to_dir = view_wcc_before(to, d->pad);
    m->to_dir->after = view_inode_new(d->st, to, d->pad);
    return 0;
}

/* ---- links ---- */

static int check_link(const struct inode *i, const struct inode *dir)
{
    if (inode_is_dir(i))
        return err_set(ERR_PERM, "a directory has one name");
    if (i->share != dir->share)
        return err_set(ERR_INVAL, "a file's names are all in one share");
    if (i->nlink >= FILE_LINKS_MAX)
        return err_set(ERR_TOO_LARGE, "inode %" PRIu64 " has %u names, the most allowed", i->id,
                       i->nlink);
    return 0;
}

int decide_inode_link(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__InodeLinkRequest *rq = (const void *)d->rq;
    Zbs__Metalog__EntryAdd *m;
    struct inode *i, *dir;
    int rc = decide_inode(d, rq->inode_id, &i);

    if (rc == 0)
        rc = check_entry_name(rq->name);
    if (rc == 0)
        rc = check_not_dots(rq->name);
    if (rc == 0)
        rc = decide_dir(d, rq->dir_id, rq->who, CHANGE_NAMES, &dir);
    if (rc == 0)
        rc = check_link(i, dir);
    if (rc != 0)
        return rc;
    if (tree_entry(&d->st->tree, dir, rq->name) != NULL)
        return err_set(ERR_EXISTS, "'%s' exists already in directory %" PRIu64, rq->name, dir->id);
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_ENTRY_ADD);
    (*ret)->entry_add = m = PAD_NEW(d->pad, Zbs__Metalog__EntryAdd);
    zbs__metalog__entry_add__init(m);
    m->inode_id = i->id;
    m->dir_id = dir->id;
    m->name = rq->name;
    m->time_ns = (uint64_t)d->w->wall_ns;
    return 0;
}
