/* SPDX-License-Identifier: Apache-2.0
 *
 * Procedures that list a directory: READDIR, READDIRPLUS. An entry's cookie is meta's, for as long
 * as the entry has its name, so a listing goes on behind it whatever was made or removed meanwhile,
 * and cookies need no verifier. "." and ".." are not among meta's entries: they have cookies below
 * any that meta gives. */
#include "access/nfs/nfs_int.h"

#define COOKIE_SELF   1u
#define COOKIE_PARENT 2u

#define ANSWER_MAX    (128u * 1024) /* bytes, whatever the client asks for */
#define END_BYTES     8u            /* no entry follows; eof */
#define ENTRY_MIN     28u           /* bytes of an entry with a short name */
#define ENTRYPLUS_MIN 160u          /* the same with attributes and handle */

struct listing {
    struct onc_call *call;
    struct nfs_handle dir;
    uint64_t cookie;
    uint32_t limit, names_limit; /* bytes of the results; of names and cookies alone */
    bool plus;
    size_t start; /* of the results in call->out, behind the status */
    uint32_t names_bytes, entries;
};

static void put_plus(struct listing *l, uint64_t inode_id, const Zbs__Meta__Inode *inode)
{
    struct nfs_server *s = nfs_server_of(l->call);
    struct nfs_attr attr;

    if (inode != NULL) { /* without its bytes: the files can't learn it */
        nfs_attr_from_inode(&attr, inode);
        nfs_files_amend(s->files, &attr);
    }
    nfs_put_post_attr(&l->call->out, inode != NULL ? &attr : NULL);
    xdr_put_bool(&l->call->out, true);
    nfs_put_handle(l->call, l->dir.fh.share_id, inode_id);
}

/* False: it does not fit any more. */
static bool put_entry(struct listing *l, uint64_t inode_id, const char *name, uint64_t cookie,
                      const Zbs__Meta__Inode *inode)
{
    struct xdr_out *out = &l->call->out;
    size_t before = out->len;

    xdr_put_bool(out, true);
    xdr_put_u64(out, inode_id);
    xdr_put_string(out, name);
    xdr_put_u64(out, cookie);
    l->names_bytes += (uint32_t)(out->len - before);
    if (l->plus)
        put_plus(l, inode_id, inode);
    if (out->len - l->start + END_BYTES > l->limit ||
        (l->names_bytes > l->names_limit && l->entries > 0)) {
        xdr_cut(out, before);
        return false;
    }
    l->entries++;
    return true;
}

/* What fits of the directory's entries. True: all. */
static bool put_entries(struct listing *l, const Zbs__Meta__DirListReply *m)
{
    uint64_t parent = m->dir->parent != 0 ? m->dir->parent : m->dir->id;

    if (l->cookie < COOKIE_SELF && !put_entry(l, m->dir->id, ".", COOKIE_SELF, m->dir))
        return false;
    if (l->cookie < COOKIE_PARENT && !put_entry(l, parent, "..", COOKIE_PARENT, NULL))
        return false;
    for (size_t i = 0; i < m->n_entries; i++) {
        const Zbs__Meta__DirEntry *e = m->entries[i];

        if (!put_entry(l, e->inode_id, e->name, e->cookie, e->inode))
            return false;
    }
    return true;
}

static void put_listing(struct listing *l, const Zbs__Meta__DirListReply *m)
{
    static const uint8_t verifier[NFS3_VERIFIER_BYTES];
    struct onc_call *call = l->call;
    size_t before = call->out.len;
    bool all;

    nfs_put_status(call, NFS3_OK);
    l->start = call->out.len;
    nfs_put_inode_attr(call, m->dir);
    xdr_put_fixed(&call->out, verifier, sizeof(verifier));
    all = put_entries(l, m);
    if (l->entries == 0 && !all) {
        xdr_cut(&call->out, before);
        nfs_put_status(call, NFS3ERR_TOOSMALL);
        nfs_put_inode_attr(call, m->dir);
        return;
    }
    xdr_put_bool(&call->out, false);
    xdr_put_bool(&call->out, all && m->end);
}

static co_fn int list(struct listing *l, const struct nfs_cred *who, struct rpc_reply *r)
{
    Zbs__Meta__DirListRequest rq = ZBS__META__DIR_LIST_REQUEST__INIT;
    Zbs__Meta__Credentials cred;
    uint32_t fit = l->limit / (l->plus ? ENTRYPLUS_MIN : ENTRY_MIN) + 1;

    nfs_cred_message(who, &cred);
    rq.dir_id = l->dir.fh.inode_id;
    rq.who = &cred;
    rq.after = l->cookie > COOKIE_PARENT ? l->cookie : 0;
    rq.max_entries = MIN(fit, DIR_LIST_MAX);
    rq.with_inodes = l->plus;
    return nfs_meta_call(nfs_server_of(l->call), META_DIR_LIST, &rq.base, r);
}

static co_fn enum onc_accept execute(struct listing *l)
{
    struct nfs_cred who;
    struct rpc_reply r;
    enum nfs_status status;

    if (l->call->args.bad)
        return ONC_GARBAGE_ARGS;
    l->limit = MIN(l->limit, ANSWER_MAX);
    rpc_reply_init(&r);
    status = nfs_admit(l->call, &l->dir, false, &who);
    if (status == NFS3_OK)
        status = nfs_status_of(list(l, &who, &r));
    if (status == NFS3_OK) {
        put_listing(l, (const Zbs__Meta__DirListReply *)r.msg);
    } else {
        nfs_put_status(l->call, status);
        nfs_put_inode_attr(l->call, NULL);
    }
    rpc_reply_free(&r);
    return ONC_SUCCESS;
}

static void take_where(struct listing *l)
{
    nfs_take_handle(l->call, &l->dir);
    l->cookie = xdr_u64(&l->call->args);
    (void)xdr_fixed(&l->call->args, NFS3_VERIFIER_BYTES);
}

co_fn enum onc_accept nfs_readdir(struct onc_call *call)
{
    struct listing l = {.call = call, .names_limit = UINT32_MAX};

    take_where(&l);
    l.limit = xdr_u32(&call->args);
    return execute(&l);
}

co_fn enum onc_accept nfs_readdirplus(struct onc_call *call)
{
    struct listing l = {.call = call, .plus = true};

    take_where(&l);
    l.names_limit = xdr_u32(&call->args);
    l.limit = xdr_u32(&call->args);
    return execute(&l);
}
