/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests about names: each client has a directory of its own, so each has one right answer, also
 * when it is repeated. See files_int.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "tests/sim/files_int.h"

#define SHARE "share"

const char *files_name(uint32_t number)
{
    static const char *const names[NAMES] = {"a", "b", "c", "d", "e"};

    return names[number];
}

/* ---- drawing one ---- */

static struct sfile *file_new(struct fclient *cl)
{
    struct files *fs = cl->fs;
    struct sfile *f = &fs->files[fs->n_files++];

    *f = (struct sfile){.shared = files_draw(fs, 2) == 0, .space = fs->c->n_spaces++};
    f->small = (uint32_t)files_draw(fs, 3) * 15;
    return f;
}

static void losing(struct sfile *f)
{
    f->going = f->links == 1;
}

void names_prepare(struct fclient *cl, struct request *rq)
{
    struct sfile *from, *to;

    rq->name = (uint32_t)files_draw(cl->fs, NAMES);
    rq->to = (uint32_t)files_draw(cl->fs, NAMES);
    from = cl->names[rq->name];
    to = cl->names[rq->to];
    if (rq->kind == REQUEST_CREATE && cl->fs->n_files == FILES_MAX)
        rq->kind = REQUEST_LIST;
    if (rq->kind == REQUEST_CREATE) {
        rq->expected = from != NULL ? ERR_EXISTS : 0;
        rq->file = from != NULL ? NULL : file_new(cl);
    } else if (rq->kind == REQUEST_REMOVE) {
        rq->expected = from != NULL ? 0 : ERR_NOTFOUND;
        if (from != NULL)
            losing(from);
    } else if (rq->kind == REQUEST_RENAME) {
        rq->expected = from != NULL ? 0 : ERR_NOTFOUND;
        if (from != NULL && to != NULL && to != from)
            losing(to);
    } else if (rq->kind == REQUEST_LINK) {
        rq->file = from;
        rq->expected = from == NULL ? 0 : to != NULL ? ERR_EXISTS : 0;
    }
}

/* ---- the share and the directories ---- */

static int share_make(struct fnode *n, const struct fclient *cl, uint64_t *ret_root)
{
    Zbs__Meta__ShareCreateRequest make = ZBS__META__SHARE_CREATE_REQUEST__INIT;
    Zbs__Meta__ShareListRequest list = ZBS__META__SHARE_LIST_REQUEST__INIT;
    Zbs__Meta__Share share = ZBS__META__SHARE__INIT;
    Zbs__Meta__Mutation m;
    struct rpc_reply r;
    int rc;

    files_mutation(cl, &m);
    m.number |= UINT64_C(1) << 63; /* a directory is made by the same request */
    share.name = (char *)SHARE;
    share.pool = (char *)"pool";
    make.mutation = &m;
    make.share = &share;
    rc = files_meta(n, META_SHARE_CREATE, &make.base, &r);
    rpc_reply_free(&r);
    if (rc < 0 && rc != ERR_EXISTS)
        return rc;
    rc = files_meta(n, META_SHARE_LIST, &list.base, &r);
    if (rc == 0)
        *ret_root = ((const Zbs__Meta__ShareListReply *)r.msg)->shares[0]->root;
    rpc_reply_free(&r);
    return rc;
}

static int inode_make(struct fnode *n, const struct fclient *cl, uint64_t dir, const char *name,
                      Zbs__Meta__InodeType type, uint64_t *ret)
{
    Zbs__Meta__InodeCreateRequest rq = ZBS__META__INODE_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation m;
    struct rpc_reply r;
    int rc;

    files_mutation(cl, &m);
    rq.mutation = &m;
    rq.dir_id = dir;
    rq.name = (char *)(uintptr_t)name;
    rq.type = type;
    rc = files_meta(n, META_INODE_CREATE, &rq.base, &r);
    if (rc == 0)
        *ret = ((const Zbs__Meta__InodeCreateReply *)r.msg)->inode->id;
    rpc_reply_free(&r);
    return rc;
}

static void directory_name(char dst[16], const struct fclient *cl)
{
    snprintf(dst, 16, "client-%u", cl->number);
}

static int setup(struct fnode *n, struct fclient *cl, struct answer *ret)
{
    char name[16];
    int rc = cl->fs->root != 0 ? 0 : share_make(n, cl, &cl->fs->root);

    directory_name(name, cl);
    if (rc == 0)
        rc = inode_make(n, cl, cl->fs->root, name, ZBS__META__INODE_TYPE__INODE_DIR, &ret->inode);
    return rc;
}

/* ---- attempts ---- */

static int remove_name(struct fnode *n, const struct fclient *cl, uint64_t dir, const char *name,
                       bool directory)
{
    Zbs__Meta__InodeRemoveRequest rq = ZBS__META__INODE_REMOVE_REQUEST__INIT;
    Zbs__Meta__Mutation m;
    struct rpc_reply r;
    int rc;

    files_mutation(cl, &m);
    rq.mutation = &m;
    rq.dir_id = dir;
    rq.name = (char *)(uintptr_t)name;
    rq.directory = directory;
    rc = files_meta(n, META_INODE_REMOVE, &rq.base, &r);
    rpc_reply_free(&r);
    return rc;
}

static int rename_name(struct fnode *n, const struct fclient *cl, const struct request *q)
{
    Zbs__Meta__InodeRenameRequest rq = ZBS__META__INODE_RENAME_REQUEST__INIT;
    Zbs__Meta__Mutation m;
    struct rpc_reply r;
    int rc;

    files_mutation(cl, &m);
    rq.mutation = &m;
    rq.from_dir_id = rq.to_dir_id = cl->dir;
    rq.from_name = (char *)(uintptr_t)files_name(q->name);
    rq.to_name = (char *)(uintptr_t)files_name(q->to);
    rc = files_meta(n, META_INODE_RENAME, &rq.base, &r);
    rpc_reply_free(&r);
    return rc;
}

static int link_name(struct fnode *n, const struct fclient *cl, const struct request *q)
{
    Zbs__Meta__InodeLinkRequest rq = ZBS__META__INODE_LINK_REQUEST__INIT;
    Zbs__Meta__Mutation m;
    struct rpc_reply r;
    int rc;

    if (q->file == NULL)
        return 0;
    files_mutation(cl, &m);
    rq.mutation = &m;
    rq.inode_id = q->file->inode;
    rq.dir_id = cl->dir;
    rq.name = (char *)(uintptr_t)files_name(q->to);
    rc = files_meta(n, META_INODE_LINK, &rq.base, &r);
    rpc_reply_free(&r);
    return rc;
}

static int list_names(struct fnode *n, const struct fclient *cl, struct answer *ret)
{
    Zbs__Meta__DirListRequest rq = ZBS__META__DIR_LIST_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rq.dir_id = cl->dir;
    rq.max_entries = 1 + NAMES;
    rc = files_meta(n, META_DIR_LIST, &rq.base, &r);
    if (rc == 0) {
        const Zbs__Meta__DirListReply *m = (const Zbs__Meta__DirListReply *)r.msg;

        ret->n_listed = (uint32_t)m->n_entries;
        for (size_t i = 0; i < m->n_entries; i++)
            for (uint32_t k = 0; k < NAMES; k++)
                if (strcmp(m->entries[i]->name, files_name(k)) == 0)
                    ret->listed[k] = m->entries[i]->inode_id;
    }
    rpc_reply_free(&r);
    return rc;
}

int names_attempt(struct fnode *n, struct fclient *cl, const struct request *rq, struct answer *ret)
{
    cl->fs->stats.names++;
    switch (rq->kind) {
    case REQUEST_SETUP:
        return setup(n, cl, ret);
    case REQUEST_CREATE:
        return inode_make(n, cl, cl->dir, files_name(rq->name), ZBS__META__INODE_TYPE__INODE_REG,
                          &ret->inode);
    case REQUEST_REMOVE:
        return remove_name(n, cl, cl->dir, files_name(rq->name), false);
    case REQUEST_RENAME:
        return rename_name(n, cl, rq);
    case REQUEST_LINK:
        return link_name(n, cl, rq);
    default:
        return list_names(n, cl, ret);
    }
}

/* ---- afterwards ---- */

static void names_compare(struct fclient *cl, const struct answer *a)
{
    uint32_t expected = 0;

    for (uint32_t k = 0; k < NAMES; k++) {
        const struct sfile *f = cl->names[k];
        uint64_t inode = f != NULL ? f->inode : 0;

        expected += f != NULL;
        if (a->listed[k] != inode)
            cluster_fail(cl->fs->c,
                         "client-%u/%s is inode %" PRIu64 ", %" PRIu64 " is in the directory",
                         cl->number, files_name(k), inode, a->listed[k]);
    }
    if (a->n_listed != expected)
        cluster_fail(cl->fs->c, "client-%u has %u names, %u are in the directory", cl->number,
                     expected, a->n_listed);
}

static void unlink_file(struct fclient *cl, uint32_t name)
{
    cl->names[name]->links--;
    cl->names[name] = NULL;
}

void names_done(struct fclient *cl, const struct request *rq, const struct answer *a)
{
    if (rq->kind == REQUEST_SETUP)
        cl->dir = a->inode;
    if (rq->kind == REQUEST_LIST)
        names_compare(cl, a);
    if (rq->expected < 0)
        return;
    if (rq->kind == REQUEST_CREATE) {
        rq->file->inode = a->inode;
        rq->file->links = 1;
        cl->names[rq->name] = rq->file;
    } else if (rq->kind == REQUEST_REMOVE) {
        unlink_file(cl, rq->name);
    } else if (rq->kind == REQUEST_LINK && rq->file != NULL) {
        rq->file->links++;
        cl->names[rq->to] = rq->file;
    } else if (rq->kind == REQUEST_RENAME && cl->names[rq->to] != cl->names[rq->name]) {
        if (cl->names[rq->to] != NULL)
            unlink_file(cl, rq->to);
        cl->names[rq->to] = cl->names[rq->name];
        cl->names[rq->name] = NULL;
    }
}

/* ---- the end ---- */

static void snapshot_delete(struct fnode *n, const struct fclient *cl, const struct fsnapshot *s)
{
    Zbs__Meta__VolumeDeleteRequest rq = ZBS__META__VOLUME_DELETE_REQUEST__INIT;
    Zbs__Meta__Mutation m;
    struct rpc_reply r;
    int rc;

    files_mutation(cl, &m);
    rq.mutation = &m;
    rq.pool = (char *)"pool";
    rq.name = (char *)(uintptr_t)s->name;
    rc = files_meta(n, META_VOLUME_DELETE, &rq.base, &r);
    rpc_reply_free(&r);
    if (rc < 0)
        cluster_fail(cl->fs->c, "snapshot %s can't be deleted: %s", s->name, err_text(rc));
}

static int share_delete(struct fnode *n, const struct fclient *cl)
{
    Zbs__Meta__ShareDeleteRequest rq = ZBS__META__SHARE_DELETE_REQUEST__INIT;
    Zbs__Meta__Mutation m;
    struct rpc_reply r;
    int rc;

    files_mutation(cl, &m);
    rq.mutation = &m;
    rq.name = (char *)SHARE;
    rc = files_meta(n, META_SHARE_DELETE, &rq.base, &r);
    rpc_reply_free(&r);
    return rc;
}

static void client_remove_all(struct fnode *n, struct fclient *cl)
{
    char name[16];
    int rc = 0;

    for (uint32_t k = 0; k < NAMES && rc == 0; k++) {
        cl->rq.number = ++cl->requests;
        if (cl->names[k] != NULL)
            rc = remove_name(n, cl, cl->dir, files_name(k), false);
        cl->names[k] = NULL;
    }
    directory_name(name, cl);
    cl->rq.number = ++cl->requests;
    if (rc == 0 && cl->dir != 0)
        rc = remove_name(n, cl, cl->fs->root, name, true);
    if (rc < 0)
        cluster_fail(cl->fs->c, "the directory of client-%u can't be removed: %s", cl->number,
                     err_text(rc));
}

void names_remove_all(struct fnode *n)
{
    struct files *fs = n->n->cluster->files;
    struct fclient *cl = &fs->clients[0];
    int rc;

    for (uint32_t i = 0; i < fs->n_snapshots; i++) {
        cl->rq.number = ++cl->requests;
        snapshot_delete(n, cl, &fs->snapshots[i]);
    }
    for (uint32_t i = 0; i < FILES_CLIENTS; i++)
        client_remove_all(n, &fs->clients[i]);
    cl->rq.number = ++cl->requests;
    rc = fs->root != 0 ? share_delete(n, cl) : 0;
    if (rc < 0)
        cluster_fail(fs->c, "the share can't be deleted: %s", err_text(rc));
}
