/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions about inodes: making one, and changing what one is like. */
#include <inttypes.h>
#include <string.h>
#include "common/base/err.h"
#include "meta/decide_tree.h"
#include "meta/view_tree.h"

static uint64_t time_of(const struct decide *d, const Zbs__Meta__InodeAttrs__Time *t,
                        uint64_t otherwise)
{
    if (t == NULL)
        return otherwise;
    return t->server ? (uint64_t)d->w->wall_ns : t->ns;
}

/* ---- changing ---- */

static Zbs__Metalog__InodeSet *inode_set(const struct decide *d, const struct inode *i,
                                         Zbs__Metalog__Record **ret)
{
    Zbs__Metalog__InodeSet *m = PAD_NEW(d->pad, Zbs__Metalog__InodeSet);

    zbs__metalog__inode_set__init(m);
    m->inode_id = i->id;
    m->mode = i->mode;
    m->uid = i->uid;
    m->gid = i->gid;
    m->size = i->size;
    m->atime_ns = i->atime_ns;
    m->mtime_ns = i->mtime_ns;
    m->time_ns = (uint64_t)d->w->wall_ns;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_INODE_SET);
    (*ret)->inode_set = m;
    return m;
}

static int not_owner(const struct inode *i)
{
    return err_set(ERR_PERM, "inode %" PRIu64 " belongs to uid %u", i->id, i->uid);
}

/* An owner may give a file to another of its groups, and only uid 0 to another owner. Whoever
 * does: programs lose the rights of their former owner. */
static int set_owner(const struct permission_who *who, const struct inode *i,
                     const Zbs__Meta__InodeAttrs *attrs, Zbs__Metalog__InodeSet *m)
{
    uint32_t uid = attrs->uid != NULL ? attrs->uid->value : i->uid;
    uint32_t gid = attrs->gid != NULL ? attrs->gid->value : i->gid;

    if (attrs->uid == NULL && attrs->gid == NULL)
        return 0;
    if (who != NULL && who->uid != 0 &&
        (who->uid != i->uid || uid != i->uid || (gid != i->gid && !permission_in_group(who, gid))))
        return not_owner(i);
    m->uid = uid;
    m->gid = gid;
    if (!inode_is_dir(i))
        m->mode &= ~(MODE_SETUID | MODE_SETGID);
    return 0;
}

static int set_mode(const struct permission_who *who, const struct inode *i,
                    const Zbs__Meta__InodeAttrs *attrs, Zbs__Metalog__InodeSet *m)
{
    if (attrs->mode == NULL)
        return 0;
    if (!permission_is_owner(who, i->uid))
        return not_owner(i);
    m->mode = attrs->mode->value & MODE_BITS;
    if (!inode_is_dir(i) && !permission_in_group(who, m->gid))
        m->mode &= ~MODE_SETGID;
    return 0;
}

static int set_times(const struct decide *d, const struct permission_who *who,
                     const struct inode *i, const Zbs__Meta__InodeAttrs *attrs,
                     Zbs__Metalog__InodeSet *m)
{
    struct permission_of of = permission_of(i);
    bool chosen = (attrs->atime != NULL && !attrs->atime->server) ||
                  (attrs->mtime != NULL && !attrs->mtime->server);

    if (attrs->atime == NULL && attrs->mtime == NULL)
        return 0;
    if (!permission_is_owner(who, i->uid)) {
        if (chosen)
            return not_owner(i);
        if ((permission_bits(who, &of) & PERMISSION_WRITE) == 0)
            return err_set(ERR_ACCESS, "inode %" PRIu64 " may not be written", i->id);
    }
    m->atime_ns = time_of(d, attrs->atime, i->atime_ns);
    m->mtime_ns = time_of(d, attrs->mtime, m->mtime_ns);
    return 0;
}

static int set_size(const struct decide *d, const struct permission_who *who, const struct inode *i,
                    const Zbs__Meta__InodeAttrs *attrs, Zbs__Metalog__InodeSet *m)
{
    struct permission_of of = permission_of(i);

    if (attrs->size == NULL)
        return 0;
    if (inode_is_dir(i))
        return err_set(ERR_IS_DIR, "a directory's size can't be set");
    if (i->type != ZBS__META__INODE_TYPE__INODE_REG)
        return err_set(ERR_INVAL, "only a file's size can be set");
    if ((permission_io_bits(who, &of) & PERMISSION_WRITE) == 0)
        return err_set(ERR_ACCESS, "file %" PRIu64 " may not be written", i->id);
    if (attrs->size->value > FILE_BYTES_MAX)
        return err_set(ERR_TOO_LARGE, "a file has at most 64 TiB");
    m->size = attrs->size->value;
    if (who != NULL && who->uid != 0)
        m->mode &= ~permission_lost_by_write(i->mode);
    m->mtime_ns = (uint64_t)d->w->wall_ns;
    return m->size < i->size ? check_file_leases(d->st, i) : check_file_tail(i, m->size);
}

int decide_inode_set(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__InodeSetRequest *rq = (const void *)d->rq;
    Zbs__Meta__InodeAttrs none = ZBS__META__INODE_ATTRS__INIT;
    const Zbs__Meta__InodeAttrs *attrs = rq->attrs != NULL ? rq->attrs : &none;
    struct permission_who buf;
    const struct permission_who *who = permission_who(rq->who, &buf);
    Zbs__Metalog__InodeSet *m;
    struct inode *i;
    int rc = decide_inode(d, rq->inode_id, &i);

    if (rc < 0)
        return rc;
    if (rq->guard && rq->guard_ctime_ns != i->ctime_ns)
        return err_set(ERR_MISCOMPARE, "inode %" PRIu64 " was changed meanwhile", i->id);
    m = inode_set(d, i, ret);
    rc = set_size(d, who, i, attrs, m);
    if (rc == 0)
        rc = set_owner(who, i, attrs, m);
    if (rc == 0)
        rc = set_mode(who, i, attrs, m);
    if (rc == 0)
        rc = set_times(d, who, i, attrs, m);
    /* Who writes without asking has to see that a write takes these bits. */
    if (rc == 0 && (permission_lost_by_write(m->mode) & ~i->mode) != 0)
        rc = check_file_leases(d->st, i);
    return rc;
}

/* ---- making ---- */

static int check_create(const Zbs__Meta__InodeCreateRequest *rq)
{
    bool link = rq->type == ZBS__META__INODE_TYPE__INODE_LNK;

    if (rq->type <= ZBS__META__INODE_TYPE__INODE_NONE ||
        rq->type > ZBS__META__INODE_TYPE__INODE_FIFO)
        return err_set(ERR_INVAL, "%d is not a type of inodes", (int)rq->type);
    if (rq->how != ZBS__META__INODE_CREATE_REQUEST__HOW__GUARDED &&
        rq->type != ZBS__META__INODE_TYPE__INODE_REG)
        return err_set(ERR_INVAL, "only a file may exist already");
    if (rq->how == ZBS__META__INODE_CREATE_REQUEST__HOW__EXCLUSIVE && rq->verifier.len != 8)
        return err_set(ERR_INVAL, "an exclusive creation's verifier has 8 bytes");
    if (rq->target.len > SYMLINK_BYTES_MAX)
        return err_set(ERR_NAME_TOO_LONG, "a symbolic link has at most %u bytes",
                       SYMLINK_BYTES_MAX);
    if (link != (rq->target.len > 0) || (link && memchr(rq->target.data, 0, rq->target.len)))
        return err_set(ERR_INVAL, "a symbolic link has a target, and nothing else has");
    return 0;
}

/* The name exists: is that what was asked for? */
static int create_found(const struct decide *d, const struct inode *dir, const struct inode *i,
                        Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__InodeCreateRequest *rq = (const void *)d->rq;
    struct permission_who buf;
    Zbs__Metalog__InodeSet *m;

    *ret = NULL;
    if (rq->how == ZBS__META__INODE_CREATE_REQUEST__HOW__EXCLUSIVE && i->exclusive &&
        memcmp(i->verifier, rq->verifier.data, sizeof(i->verifier)) == 0)
        return 0;
    if (rq->how != ZBS__META__INODE_CREATE_REQUEST__HOW__UNCHECKED ||
        i->type != ZBS__META__INODE_TYPE__INODE_REG)
        return err_set(ERR_EXISTS, "'%s' exists already in directory %" PRIu64, rq->name, dir->id);
    if (rq->attrs == NULL || rq->attrs->size == NULL)
        return 0;
    m = inode_set(d, i, ret);
    m->dir_id = dir->id;
    return set_size(d, permission_who(rq->who, &buf), i, rq->attrs, m);
}

static uint32_t mode_default(Zbs__Meta__InodeType type)
{
    if (type == ZBS__META__INODE_TYPE__INODE_LNK)
        return 0777;
    return type == ZBS__META__INODE_TYPE__INODE_DIR ? 0700 : 0600;
}

/* In a directory with the bit MODE_SETGID all get its group, and directories the bit. */
static int create_owner(const struct permission_who *who, const struct inode *dir,
                        const Zbs__Meta__InodeCreateRequest *rq, Zbs__Metalog__InodeAdd *m)
{
    const Zbs__Meta__InodeAttrs *attrs = rq->attrs;
    bool inherit = (dir->mode & MODE_SETGID) != 0;
    bool is_dir = rq->type == ZBS__META__INODE_TYPE__INODE_DIR;

    m->uid = who != NULL ? who->uid : dir->uid;
    m->gid = who != NULL && !inherit ? who->gid : dir->gid;
    m->mode = attrs != NULL && attrs->mode != NULL ? attrs->mode->value & MODE_BITS
                                                   : mode_default(rq->type);
    if (attrs != NULL && attrs->uid != NULL && attrs->uid->value != m->uid) {
        if (who != NULL && !permission_is_owner(who, attrs->uid->value))
            return err_set(ERR_PERM, "uid %u may not make files of uid %u", who->uid,
                           attrs->uid->value);
        m->uid = attrs->uid->value;
    }
    if (attrs != NULL && attrs->gid != NULL && attrs->gid->value != m->gid) {
        if (who != NULL && !permission_in_group(who, attrs->gid->value))
            return err_set(ERR_PERM, "uid %u may not make files of group %u", who->uid,
                           attrs->gid->value);
        m->gid = attrs->gid->value;
    }
    if (is_dir && inherit)
        m->mode |= MODE_SETGID;
    else if (!is_dir && !permission_in_group(who, m->gid))
        m->mode &= ~MODE_SETGID;
    return 0;
}

static int create_limits(const struct decide *d, const struct inode *dir,
                         const Zbs__Meta__InodeCreateRequest *rq)
{
    const Zbs__Meta__InodeAttrs *attrs = rq->attrs;

    if (d->st->tree.inodes.count >= INODES_MAX)
        return err_set(ERR_NOSPACE, "the cluster has %u files and directories, the most allowed",
                       INODES_MAX);
    if (rq->type == ZBS__META__INODE_TYPE__INODE_DIR && dir->nlink >= FILE_LINKS_MAX)
        return err_set(ERR_TOO_LARGE, "directory %" PRIu64 " has %u directories, the most allowed",
                       dir->id, dir->nlink - 2);
    if (attrs != NULL && attrs->size != NULL && attrs->size->value > FILE_BYTES_MAX)
        return err_set(ERR_TOO_LARGE, "a file has at most 64 TiB");
    return 0;
}

static int create_new(const struct decide *d, const struct inode *dir, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__InodeCreateRequest *rq = (const void *)d->rq;
    const Zbs__Meta__InodeAttrs *attrs = rq->attrs;
    Zbs__Metalog__InodeAdd *m = PAD_NEW(d->pad, Zbs__Metalog__InodeAdd);
    uint64_t now = (uint64_t)d->w->wall_ns;
    struct permission_who buf;
    int rc = create_limits(d, dir, rq);

    if (rc < 0)
        return rc;
    zbs__metalog__inode_add__init(m);
    m->dir_id = dir->id;
    m->name = rq->name;
    m->type = rq->type;
    rc = create_owner(permission_who(rq->who, &buf), dir, rq, m);
    if (rq->type == ZBS__META__INODE_TYPE__INODE_REG && attrs != NULL && attrs->size != NULL)
        m->size = attrs->size->value;
    if (rq->type == ZBS__META__INODE_TYPE__INODE_LNK)
        m->size = rq->target.len;
    m->atime_ns = time_of(d, attrs != NULL ? attrs->atime : NULL, now);
    m->mtime_ns = time_of(d, attrs != NULL ? attrs->mtime : NULL, now);
    m->time_ns = now;
    m->rdev = rq->rdev;
    m->data = rq->target;
    if (rq->how == ZBS__META__INODE_CREATE_REQUEST__HOW__EXCLUSIVE)
        m->verifier = rq->verifier;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_INODE_ADD);
    (*ret)->inode_add = m;
    return rc;
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

int decide_inode_create(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__InodeCreateRequest *rq = (const void *)d->rq;
    const struct dir_entry *e;
    struct inode *dir;
    int rc = check_create(rq);

    if (rc == 0)
        rc = check_entry_name(rq->name);
    if (rc == 0)
        rc = decide_dir(d, rq->dir_id, rq->who, PERMISSION_EXECUTE, &dir);
    if (rc != 0)
        return rc;
    if (is_dots(rq->name))
        return err_set(ERR_EXISTS, "'%s' exists in every directory", rq->name);
    e = tree_entry(&d->st->tree, dir, rq->name);
    if (e != NULL)
        return create_found(d, dir, e->inode, ret);
    rc = decide_dir(d, rq->dir_id, rq->who, PERMISSION_WRITE | PERMISSION_EXECUTE, &dir);
    return rc != 0 ? rc : create_new(d, dir, ret);
}

/* Of a creation that found what it asked for. */
int answer_inode_create(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__InodeCreateRequest *rq = (const void *)d->rq;
    Zbs__Meta__InodeCreateReply *m = (void *)reply;
    struct inode *dir;
    struct dir_entry *e;
    int rc = decide_dir(d, rq->dir_id, rq->who, PERMISSION_EXECUTE, &dir);

    if (rc == 0)
        rc = decide_entry(d, dir, rq->name, &e);
    if (rc != 0)
        return rc;
    m->inode = view_inode_new(d->st, e->inode, d->pad);
    m->dir = view_wcc_before(dir, d->pad);
    m->dir->after = view_inode_new(d->st, dir, d->pad);
    return 0;
}
