/* SPDX-License-Identifier: Apache-2.0
 *
 * Attributes: see attr.h. Sizes of structures are those of RFC 1813. */
#include "access/nfs/attr.h"

#define USED_UNIT 512u

void nfs_attr_from_inode(struct nfs_attr *ret, const Zbs__Meta__Inode *inode)
{
    *ret = (struct nfs_attr){
        .inode_id = inode->id,
        .share_id = inode->share_id,
        .size = inode->size,
        /* Blocks are counted by chunk servers only: the size stands for them. */
        .used = ROUND_UP(inode->size, USED_UNIT),
        .atime_ns = inode->atime_ns,
        .mtime_ns = inode->mtime_ns,
        .ctime_ns = inode->ctime_ns,
        .rdev = inode->rdev,
        .change = inode->change,
        .type = inode->type,
        .mode = inode->mode,
        .uid = inode->uid,
        .gid = inode->gid,
        .nlink = inode->nlink,
    };
}

void nfs_wcc_from_message(struct nfs_wcc *ret, const Zbs__Meta__InodeWcc *m)
{
    *ret = (struct nfs_wcc){0};
    if (m == NULL)
        return;
    ret->before_known = true;
    ret->size = m->size;
    ret->mtime_ns = m->mtime_ns;
    ret->ctime_ns = m->ctime_ns;
    ret->after_known = m->after != NULL;
    if (m->after != NULL)
        nfs_attr_from_inode(&ret->after, m->after);
}

/* ---- the wire ---- */

void nfs_put_time(struct xdr_out *out, uint64_t ns)
{
    xdr_put_u32(out, (uint32_t)(ns / NSEC_PER_SEC));
    xdr_put_u32(out, (uint32_t)(ns % NSEC_PER_SEC));
}

void nfs_put_attr(struct xdr_out *out, const struct nfs_attr *a)
{
    xdr_put_u32(out, a->type);
    xdr_put_u32(out, a->mode);
    xdr_put_u32(out, a->nlink);
    xdr_put_u32(out, a->uid);
    xdr_put_u32(out, a->gid);
    xdr_put_u64(out, a->size);
    xdr_put_u64(out, a->used);
    xdr_put_u64(out, a->rdev); /* specdata3: major, minor */
    xdr_put_u64(out, a->share_id);
    xdr_put_u64(out, a->inode_id);
    nfs_put_time(out, a->atime_ns);
    nfs_put_time(out, a->mtime_ns);
    nfs_put_time(out, a->ctime_ns);
}

void nfs_put_post_attr(struct xdr_out *out, const struct nfs_attr *a)
{
    xdr_put_bool(out, a != NULL);
    if (a != NULL)
        nfs_put_attr(out, a);
}

void nfs_put_wcc(struct xdr_out *out, const struct nfs_wcc *w)
{
    bool before = w != NULL && w->before_known;

    xdr_put_bool(out, before);
    if (before) {
        xdr_put_u64(out, w->size);
        nfs_put_time(out, w->mtime_ns);
        nfs_put_time(out, w->ctime_ns);
    }
    nfs_put_post_attr(out, w != NULL && w->after_known ? &w->after : NULL);
}

/* ---- sattr3 ---- */

enum time_how { DONT_CHANGE = 0, SET_TO_SERVER_TIME = 1, SET_TO_CLIENT_TIME = 2 };

static Zbs__Meta__InodeAttrs__U32 *take_u32(struct xdr_in *in, Zbs__Meta__InodeAttrs__U32 *u)
{
    zbs__meta__inode_attrs__u32__init(u);
    if (!xdr_bool(in))
        return NULL;
    u->value = xdr_u32(in);
    return u;
}

static Zbs__Meta__InodeAttrs__U64 *take_u64(struct xdr_in *in, Zbs__Meta__InodeAttrs__U64 *u)
{
    zbs__meta__inode_attrs__u64__init(u);
    if (!xdr_bool(in))
        return NULL;
    u->value = xdr_u64(in);
    return u;
}

static Zbs__Meta__InodeAttrs__Time *take_time(struct xdr_in *in, Zbs__Meta__InodeAttrs__Time *t)
{
    uint32_t how = xdr_u32(in), seconds, ns;

    zbs__meta__inode_attrs__time__init(t);
    if (how > SET_TO_CLIENT_TIME)
        in->bad = true;
    if (how == DONT_CHANGE)
        return NULL;
    t->server = how == SET_TO_SERVER_TIME;
    if (how == SET_TO_CLIENT_TIME) {
        seconds = xdr_u32(in);
        ns = xdr_u32(in);
        t->ns = (uint64_t)seconds * NSEC_PER_SEC + ns % NSEC_PER_SEC;
    }
    return t;
}

void nfs_take_sattr(struct xdr_in *in, struct nfs_sattr *ret)
{
    zbs__meta__inode_attrs__init(&ret->message);
    ret->message.mode = take_u32(in, &ret->mode);
    ret->message.uid = take_u32(in, &ret->uid);
    ret->message.gid = take_u32(in, &ret->gid);
    ret->message.size = take_u64(in, &ret->size);
    ret->message.atime = take_time(in, &ret->atime);
    ret->message.mtime = take_time(in, &ret->mtime);
    if (ret->message.mode != NULL)
        ret->mode.value &= 07777;
}
