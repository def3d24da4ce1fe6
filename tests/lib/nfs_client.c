/* SPDX-License-Identifier: Apache-2.0
 *
 * See nfs_client.h. */
#include "tests/lib/nfs_client.h"

#include <string.h>
#include "common/base/assert.h"

co_fn void nfs_open(struct nfs_client *c, const char *addr)
{
    c->repeat = 0;
    onc_open(&c->onc, addr);
}

void nfs_close(struct nfs_client *c)
{
    onc_close(&c->onc);
}

/* ---- arguments ---- */

static void begin(struct nfs_client *c, struct xdr_out *out, uint32_t procedure)
{
    if (c->repeat != 0)
        c->onc.xid = c->repeat - 1;
    c->repeat = 0;
    onc_begin(&c->onc, out, NFS_PROGRAM, NFS_V3, procedure);
}

static void put_h(struct xdr_out *out, const struct nh *h)
{
    xdr_put_opaque(out, h->bytes, h->len);
}

static void begin_h(struct nfs_client *c, struct xdr_out *out, uint32_t procedure,
                    const struct nh *h)
{
    begin(c, out, procedure);
    put_h(out, h);
}

static void begin_at(struct nfs_client *c, struct xdr_out *out, uint32_t procedure,
                     const struct nh *dir, const char *name)
{
    begin_h(c, out, procedure, dir);
    xdr_put_string(out, name);
}

static void put_time(struct xdr_out *out, uint64_t ns)
{
    xdr_put_u32(out, (uint32_t)(ns / NSEC_PER_SEC));
    xdr_put_u32(out, (uint32_t)(ns % NSEC_PER_SEC));
}

static void put_set(struct xdr_out *out, const struct nset *set)
{
    static const struct nset nothing;

    set = set != NULL ? set : &nothing;
    xdr_put_bool(out, set->mode_set);
    if (set->mode_set)
        xdr_put_u32(out, set->mode);
    xdr_put_bool(out, set->uid_set);
    if (set->uid_set)
        xdr_put_u32(out, set->uid);
    xdr_put_bool(out, set->gid_set);
    if (set->gid_set)
        xdr_put_u32(out, set->gid);
    xdr_put_bool(out, set->size_set);
    if (set->size_set)
        xdr_put_u64(out, set->size);
    xdr_put_u32(out, set->atime_server ? 1 : 0);
    xdr_put_u32(out, set->mtime_set ? 2 : 0);
    if (set->mtime_set)
        put_time(out, set->mtime);
}

/* ---- results ---- */

/* Sends, receives; the status is taken. */
static co_fn uint32_t ask(struct nfs_client *c, struct xdr_out *out, struct onc_answer *a)
{
    onc_ask(&c->onc, out, a);
    return xdr_u32(&a->in);
}

static uint32_t end(struct onc_answer *a, uint32_t status)
{
    ASSERT(!a->in.bad && a->in.left == 0);
    onc_answer_free(a);
    return status;
}

static uint64_t take_time(struct xdr_in *in)
{
    uint64_t seconds = xdr_u32(in), ns = xdr_u32(in);

    ASSERT(ns < (uint64_t)NSEC_PER_SEC);
    return seconds * NSEC_PER_SEC + ns;
}

static void take_attr(struct xdr_in *in, struct nattr *ret)
{
    struct nattr a = {.there = true};

    a.type = xdr_u32(in);
    a.mode = xdr_u32(in);
    a.nlink = xdr_u32(in);
    a.uid = xdr_u32(in);
    a.gid = xdr_u32(in);
    a.size = xdr_u64(in);
    a.used = xdr_u64(in);
    a.rdev = xdr_u64(in);
    a.fsid = xdr_u64(in);
    a.fileid = xdr_u64(in);
    a.atime = take_time(in);
    a.mtime = take_time(in);
    a.ctime = take_time(in);
    ASSERT(a.type >= 1 && a.type <= 7 && a.mode <= 07777);
    if (ret != NULL)
        *ret = a;
}

static void take_post_attr(struct xdr_in *in, struct nattr *ret)
{
    if (ret != NULL)
        ret->there = false;
    if (xdr_bool(in))
        take_attr(in, ret);
}

static void take_wcc(struct xdr_in *in, struct nattr *ret)
{
    if (xdr_bool(in)) {
        (void)xdr_u64(in);
        (void)take_time(in);
        (void)take_time(in);
    }
    take_post_attr(in, ret);
}

static void take_h(struct xdr_in *in, struct nh *ret)
{
    uint32_t len;
    const uint8_t *data = xdr_opaque(in, 64, &len);

    ASSERT(data != NULL);
    if (ret == NULL)
        return;
    memset(ret, 0, sizeof(*ret));
    memcpy(ret->bytes, data, len);
    ret->len = len;
}

/* ---- MOUNT ---- */

co_fn uint32_t nfs_mount_path(struct nfs_client *c, const char *path, struct nh *ret)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    onc_begin(&c->onc, &out, MOUNT_PROGRAM, MOUNT_V3, MOUNT3_MNT);
    xdr_put_string(&out, path);
    status = ask(c, &out, &a);
    if (status == MNT3_OK) {
        take_h(&a.in, ret);
        ASSERT(xdr_u64(&a.in) == (UINT64_C(1) << 32 | ONC_AUTH_SYS)); /* one flavor */
    }
    return end(&a, status);
}

/* ---- one inode ---- */

co_fn uint32_t nfs_do_getattr(struct nfs_client *c, const struct nh *h, struct nattr *ret)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    begin_h(c, &out, NFS3_GETATTR, h);
    status = ask(c, &out, &a);
    if (status == NFS3_OK)
        take_attr(&a.in, ret);
    return end(&a, status);
}

co_fn uint32_t nfs_do_setattr(struct nfs_client *c, const struct nh *h, const struct nset *set,
                              uint64_t guard, struct nattr *ret)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    begin_h(c, &out, NFS3_SETATTR, h);
    put_set(&out, set);
    xdr_put_bool(&out, guard != 0);
    if (guard != 0)
        put_time(&out, guard);
    status = ask(c, &out, &a);
    take_wcc(&a.in, ret);
    return end(&a, status);
}

co_fn uint32_t nfs_do_lookup(struct nfs_client *c, const struct nh *dir, const char *name,
                             struct nh *ret, struct nattr *attr)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    begin_at(c, &out, NFS3_LOOKUP, dir, name);
    status = ask(c, &out, &a);
    if (status == NFS3_OK) {
        take_h(&a.in, ret);
        take_post_attr(&a.in, attr);
    }
    take_post_attr(&a.in, NULL);
    return end(&a, status);
}

co_fn uint32_t nfs_do_access(struct nfs_client *c, const struct nh *h, uint32_t wanted,
                             uint32_t *ret)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    begin_h(c, &out, NFS3_ACCESS, h);
    xdr_put_u32(&out, wanted);
    status = ask(c, &out, &a);
    take_post_attr(&a.in, NULL);
    if (status == NFS3_OK)
        *ret = xdr_u32(&a.in);
    return end(&a, status);
}

co_fn uint32_t nfs_do_readlink(struct nfs_client *c, const struct nh *h, char *buf)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status, len;
    const uint8_t *data;

    begin_h(c, &out, NFS3_READLINK, h);
    status = ask(c, &out, &a);
    take_post_attr(&a.in, NULL);
    if (status == NFS3_OK) {
        data = xdr_opaque(&a.in, 1024, &len);
        ASSERT(data != NULL);
        memcpy(buf, data, len);
        buf[len] = '\0';
    }
    return end(&a, status);
}

/* ---- bytes ---- */

co_fn uint32_t nfs_do_read(struct nfs_client *c, const struct nh *h, uint64_t off, uint32_t len,
                           void *ret, uint32_t *ret_len, bool *ret_eof)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status, got, count;
    const uint8_t *data;

    begin_h(c, &out, NFS3_READ, h);
    xdr_put_u64(&out, off);
    xdr_put_u32(&out, len);
    status = ask(c, &out, &a);
    take_post_attr(&a.in, NULL);
    if (status == NFS3_OK) {
        count = xdr_u32(&a.in);
        *ret_eof = xdr_bool(&a.in);
        data = xdr_opaque(&a.in, len, &got);
        ASSERT(data != NULL && got == count);
        memcpy(ret, data, got);
        *ret_len = got;
    }
    return end(&a, status);
}

static void take_verifier(struct xdr_in *in, uint8_t *ret)
{
    const uint8_t *data = xdr_fixed(in, NFS3_VERIFIER_BYTES);

    ASSERT(data != NULL);
    if (ret != NULL)
        memcpy(ret, data, NFS3_VERIFIER_BYTES);
}

co_fn uint32_t nfs_do_write(struct nfs_client *c, const struct nh *h, uint64_t off,
                            const void *data, uint32_t len, uint32_t stable, uint8_t *verifier)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    begin_h(c, &out, NFS3_WRITE, h);
    xdr_put_u64(&out, off);
    xdr_put_u32(&out, len);
    xdr_put_u32(&out, stable);
    xdr_put_opaque(&out, data, len);
    status = ask(c, &out, &a);
    take_wcc(&a.in, NULL);
    if (status == NFS3_OK) {
        ASSERT(xdr_u32(&a.in) == len && xdr_u32(&a.in) >= stable);
        take_verifier(&a.in, verifier);
    }
    return end(&a, status);
}

co_fn uint32_t nfs_do_commit(struct nfs_client *c, const struct nh *h, uint8_t *verifier)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    begin_h(c, &out, NFS3_COMMIT, h);
    xdr_put_u64(&out, 0);
    xdr_put_u32(&out, 0);
    status = ask(c, &out, &a);
    take_wcc(&a.in, NULL);
    if (status == NFS3_OK)
        take_verifier(&a.in, verifier);
    return end(&a, status);
}

/* ---- making ---- */

static co_fn uint32_t made(struct nfs_client *c, struct xdr_out *out, struct nh *ret)
{
    struct onc_answer a;
    uint32_t status = ask(c, out, &a);

    if (status == NFS3_OK) {
        ASSERT(xdr_bool(&a.in));
        take_h(&a.in, ret);
        take_post_attr(&a.in, NULL);
    }
    take_wcc(&a.in, NULL);
    return end(&a, status);
}

co_fn uint32_t nfs_do_create(struct nfs_client *c, const struct nh *dir, const char *name,
                             uint32_t how, const struct nset *set, uint64_t verifier,
                             struct nh *ret)
{
    struct xdr_out out;

    begin_at(c, &out, NFS3_CREATE, dir, name);
    xdr_put_u32(&out, how);
    if (how == CREATE_EXCLUSIVE)
        xdr_put_u64(&out, verifier);
    else
        put_set(&out, set);
    return made(c, &out, ret);
}

co_fn uint32_t nfs_do_mkdir(struct nfs_client *c, const struct nh *dir, const char *name,
                            uint32_t mode, struct nh *ret)
{
    struct xdr_out out;

    begin_at(c, &out, NFS3_MKDIR, dir, name);
    put_set(&out, NSET_MODE(mode));
    return made(c, &out, ret);
}

co_fn uint32_t nfs_do_symlink(struct nfs_client *c, const struct nh *dir, const char *name,
                              const char *target, struct nh *ret)
{
    struct xdr_out out;

    begin_at(c, &out, NFS3_SYMLINK, dir, name);
    put_set(&out, NULL);
    xdr_put_string(&out, target);
    return made(c, &out, ret);
}

co_fn uint32_t nfs_do_mknod(struct nfs_client *c, const struct nh *dir, const char *name,
                            uint32_t type, uint64_t rdev, struct nh *ret)
{
    struct xdr_out out;

    begin_at(c, &out, NFS3_MKNOD, dir, name);
    xdr_put_u32(&out, type);
    if (type == 3 || type == 4 || type == 6 || type == 7)
        put_set(&out, NSET_MODE(0600));
    if (type == 3 || type == 4)
        xdr_put_u64(&out, rdev);
    return made(c, &out, ret);
}

/* ---- names ---- */

static co_fn uint32_t remove_by(struct nfs_client *c, uint32_t procedure, const struct nh *dir,
                                const char *name)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    begin_at(c, &out, procedure, dir, name);
    status = ask(c, &out, &a);
    take_wcc(&a.in, NULL);
    return end(&a, status);
}

co_fn uint32_t nfs_do_remove(struct nfs_client *c, const struct nh *dir, const char *name)
{
    return remove_by(c, NFS3_REMOVE, dir, name);
}

co_fn uint32_t nfs_do_rmdir(struct nfs_client *c, const struct nh *dir, const char *name)
{
    return remove_by(c, NFS3_RMDIR, dir, name);
}

co_fn uint32_t nfs_do_rename(struct nfs_client *c, const struct nh *from, const char *from_name,
                             const struct nh *to, const char *to_name)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    begin_at(c, &out, NFS3_RENAME, from, from_name);
    put_h(&out, to);
    xdr_put_string(&out, to_name);
    status = ask(c, &out, &a);
    take_wcc(&a.in, NULL);
    take_wcc(&a.in, NULL);
    return end(&a, status);
}

co_fn uint32_t nfs_do_link(struct nfs_client *c, const struct nh *h, const struct nh *dir,
                           const char *name)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    begin_h(c, &out, NFS3_LINK, h);
    put_h(&out, dir);
    xdr_put_string(&out, name);
    status = ask(c, &out, &a);
    take_post_attr(&a.in, NULL);
    take_wcc(&a.in, NULL);
    return end(&a, status);
}

/* ---- directories ---- */

static void take_entry(struct xdr_in *in, bool plus, struct nentry *e)
{
    const uint8_t *name;
    uint32_t len;

    memset(e, 0, sizeof(*e));
    e->fileid = xdr_u64(in);
    name = xdr_opaque(in, 255, &len);
    ASSERT(name != NULL && len > 0);
    memcpy(e->name, name, len);
    e->cookie = xdr_u64(in);
    if (!plus)
        return;
    take_post_attr(in, &e->attr);
    if (xdr_bool(in))
        take_h(in, &e->h);
}

co_fn uint32_t nfs_do_readdir(struct nfs_client *c, const struct nh *dir, uint64_t cookie,
                              uint32_t bytes, bool plus, struct nentry *ret, uint32_t room,
                              uint32_t *ret_count, bool *ret_eof)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    begin_h(c, &out, plus ? NFS3_READDIRPLUS : NFS3_READDIR, dir);
    xdr_put_u64(&out, cookie);
    xdr_put_u64(&out, 0); /* verifier */
    xdr_put_u32(&out, bytes);
    if (plus)
        xdr_put_u32(&out, bytes);
    status = ask(c, &out, &a);
    ASSERT(status != NFS3_OK || a.in.left <= bytes);
    take_post_attr(&a.in, NULL);
    if (status != NFS3_OK)
        return end(&a, status);
    take_verifier(&a.in, NULL);
    for (*ret_count = 0; xdr_bool(&a.in); ++*ret_count) {
        ASSERT(*ret_count < room);
        take_entry(&a.in, plus, &ret[*ret_count]);
    }
    *ret_eof = xdr_bool(&a.in);
    return end(&a, status);
}

/* ---- the file system ---- */

co_fn uint32_t nfs_do_fsstat(struct nfs_client *c, const struct nh *h, uint64_t *total,
                             uint64_t *available)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    begin_h(c, &out, NFS3_FSSTAT, h);
    status = ask(c, &out, &a);
    take_post_attr(&a.in, NULL);
    if (status == NFS3_OK) {
        *total = xdr_u64(&a.in);
        (void)xdr_u64(&a.in);
        *available = xdr_u64(&a.in);
        (void)xdr_fixed(&a.in, 3 * 8 + 4);
    }
    return end(&a, status);
}

co_fn uint32_t nfs_do_fsinfo(struct nfs_client *c, const struct nh *h, uint32_t *rtmax,
                             uint64_t *maxfilesize)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    begin_h(c, &out, NFS3_FSINFO, h);
    status = ask(c, &out, &a);
    take_post_attr(&a.in, NULL);
    if (status == NFS3_OK) {
        *rtmax = xdr_u32(&a.in);
        (void)xdr_fixed(&a.in, 6 * 4);
        *maxfilesize = xdr_u64(&a.in);
        (void)xdr_fixed(&a.in, 8 + 4);
    }
    return end(&a, status);
}

co_fn uint32_t nfs_do_pathconf(struct nfs_client *c, const struct nh *h, uint32_t *name_max)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t status;

    begin_h(c, &out, NFS3_PATHCONF, h);
    status = ask(c, &out, &a);
    take_post_attr(&a.in, NULL);
    if (status == NFS3_OK) {
        (void)xdr_u32(&a.in);
        *name_max = xdr_u32(&a.in);
        (void)xdr_fixed(&a.in, 4 * 4);
    }
    return end(&a, status);
}
