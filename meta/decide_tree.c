/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a tree: what inodes are like, and what is in a directory. And what all decisions about
 * trees need. */
#include <inttypes.h>
#include <string.h>
#include "common/base/err.h"
#include "meta/decide_tree.h"
#include "meta/view_tree.h"

/* ---- helpers ---- */

int decide_inode(const struct decide *d, uint64_t id, struct inode **ret)
{
    *ret = tree_inode(&d->st->tree, id);
    if (*ret == NULL)
        return err_set(ERR_STALE, "inode %" PRIu64 " does not exist any more", id);
    return 0;
}

struct permission_of permission_of(const struct inode *i)
{
    return (struct permission_of){
        .mode = i->mode, .uid = i->uid, .gid = i->gid, .directory = inode_is_dir(i)};
}

const struct permission_who *permission_who(const Zbs__Meta__Credentials *c,
                                            struct permission_who *buf)
{
    if (c == NULL)
        return NULL;
    *buf = (struct permission_who){.uid = c->uid,
                                   .gid = c->gid,
                                   .gids = c->gids,
                                   .n_gids = MIN(c->n_gids, (size_t)FILE_GROUPS_MAX)};
    return buf;
}

static bool may(const struct inode *i, const Zbs__Meta__Credentials *who, uint32_t want)
{
    struct permission_of of = permission_of(i);
    struct permission_who buf;

    return (permission_bits(permission_who(who, &buf), &of) & want) == want;
}

int decide_dir(const struct decide *d, uint64_t id, const Zbs__Meta__Credentials *who,
               uint32_t want, struct inode **ret)
{
    int rc = decide_inode(d, id, ret);

    if (rc < 0)
        return rc;
    if (!inode_is_dir(*ret))
        return err_set(ERR_NOT_DIR, "inode %" PRIu64 " is not a directory", id);
    if (!may(*ret, who, want))
        return err_set(ERR_ACCESS, "uid %u may not do this in directory %" PRIu64, who->uid, id);
    return 0;
}

int check_entry_name(const char *name)
{
    if (strlen(name) > FILE_NAME_MAX)
        return err_set(ERR_NAME_TOO_LONG, "a name has at most %u bytes", FILE_NAME_MAX);
    if (name[0] == 0 || strchr(name, '/') != NULL)
        return err_set(ERR_INVAL, "'%s' is not a name", name);
    return 0;
}

int decide_entry(const struct decide *d, const struct inode *dir, const char *name,
                 struct dir_entry **ret)
{
    int rc = check_entry_name(name);

    if (rc < 0)
        return rc;
    *ret = tree_entry(&d->st->tree, dir, name);
    if (*ret == NULL)
        return err_set(ERR_NOTFOUND, "there is no '%s' in directory %" PRIu64, name, dir->id);
    return 0;
}

/* ---- answers ---- */

int answer_inode_get(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__InodeGetRequest *rq = (const void *)d->rq;
    struct inode *i;
    int rc = decide_inode(d, rq->inode_id, &i);

    if (rc == 0)
        view_inode((Zbs__Meta__Inode *)reply, d->st, i);
    return rc;
}

/* What a name means in a directory, "." and ".." included. */
static int resolve(const struct decide *d, struct inode *dir, const char *name, struct inode **ret)
{
    struct dir_entry *e;
    int rc;

    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        *ret = name[1] == 0 ? dir : dir->parent;
        return 0;
    }
    rc = decide_entry(d, dir, name, &e);
    if (rc == 0)
        *ret = e->inode;
    return rc;
}

int answer_lookup(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__LookupRequest *rq = (const void *)d->rq;
    Zbs__Meta__LookupReply *m = (void *)reply;
    struct inode *dir, *i;
    int rc = decide_dir(d, rq->dir_id, rq->who, PERMISSION_EXECUTE, &dir);

    if (rc == 0)
        rc = resolve(d, dir, rq->name, &i);
    if (rc != 0)
        return rc;
    m->inode = view_inode_new(d->st, i, d->pad);
    m->dir = view_inode_new(d->st, dir, d->pad);
    return 0;
}

static Zbs__Meta__DirEntry *view_entry(const struct decide *d, const struct dir_entry *e,
                                       bool with_inode)
{
    Zbs__Meta__DirEntry *m = PAD_NEW(d->pad, Zbs__Meta__DirEntry);

    zbs__meta__dir_entry__init(m);
    m->name = (char *)e->name;
    m->inode_id = e->inode->id;
    m->cookie = e->cookie;
    if (with_inode) {
        m->inode = view_inode_new(d->st, e->inode, d->pad);
        m->inode->data = (ProtobufCBinaryData){0};
    }
    return m;
}

int answer_dir_list(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__DirListRequest *rq = (const void *)d->rq;
    Zbs__Meta__DirListReply *m = (void *)reply;
    uint32_t at, max = MIN(MAX(rq->max_entries, 1u), DIR_LIST_MAX);
    size_t bytes = 0;
    struct inode *dir;
    int rc = decide_dir(d, rq->dir_id, rq->who, PERMISSION_READ, &dir);
    bool with_inodes;

    if (rc < 0)
        return rc;
    /* the inodes' attributes are what may be seen through names */
    with_inodes = rq->with_inodes && may(dir, rq->who, PERMISSION_EXECUTE);
    at = inode_entries_after(dir, rq->after);
    max = MIN(max, dir->entries.count - at);
    m->dir = view_inode_new(d->st, dir, d->pad);
    m->entries = PAD_NEW_ARRAY(d->pad, Zbs__Meta__DirEntry *, max);
    while (m->n_entries < max && bytes < DIR_LIST_BYTES) {
        Zbs__Meta__DirEntry *e = view_entry(d, dir->entries.items[at++], with_inodes);

        m->entries[m->n_entries++] = e;
        bytes += zbs__meta__dir_entry__get_packed_size(e);
    }
    m->end = at == dir->entries.count;
    return 0;
}

int answer_path_get(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__PathGetRequest *rq = (const void *)d->rq;
    char *rest = pad_strdup(d->pad, rq->path), *name;
    const struct share *s;
    struct inode *i;

    while ((name = strsep(&rest, "/")) != NULL && name[0] == 0)
        ;
    s = name != NULL ? tree_share(&d->st->tree, name) : NULL;
    if (rq->path[0] != '/' || s == NULL)
        return err_set(ERR_NOTFOUND, "'%s' is not in a share: a path is /SHARE/DIRECTORY/FILE",
                       rq->path);
    i = tree_inode(&d->st->tree, s->root);
    while ((name = strsep(&rest, "/")) != NULL) {
        int rc = inode_is_dir(i) ? 0 : err_set(ERR_NOT_DIR, "not a directory");

        if (rc == 0 && name[0] != 0)
            rc = resolve(d, i, name, &i);
        if (rc < 0)
            return err_prefix(rc, "'%s'", rq->path);
    }
    view_inode((Zbs__Meta__Inode *)reply, d->st, i);
    return 0;
}
