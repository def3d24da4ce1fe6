/* SPDX-License-Identifier: Apache-2.0
 *
 * MOUNT version 3 (RFC 1813, appendix I): the handle of a share's directory for a path, and who has
 * asked for one. That list is for people only, and this access server's: access is decided with
 * each call. */
#include "access/nfs/nfs_int.h"

#define MOUNTS_MAX 4096u /* the oldest is forgotten */

/* ---- the list ---- */

/* A peer's address without its port. */
static char *client_of(const struct onc_call *call)
{
    const char *peer = onc_call_peer(call), *colon = strrchr(peer, ':');
    char *client = mem_strdup(peer);

    if (colon != NULL)
        client[colon - peer] = '\0';
    return client;
}

static void mount_free(struct nfs_server *s, struct nfs_mount *m)
{
    list_del(&m->link);
    s->mount_count--;
    mem_free(m->path);
    mem_free(m->client);
    mem_free(m);
}

/* path NULL: all of this client. */
static void forget(struct nfs_server *s, const char *client, const char *path)
{
    LIST_FOREACH_SAFE (m, &s->mounts, struct nfs_mount, link) {
        if (strcmp(m->client, client) == 0 && (path == NULL || strcmp(m->path, path) == 0))
            mount_free(s, m);
    }
}

static void note(struct onc_call *call, const char *path)
{
    struct nfs_server *s = nfs_server_of(call);
    struct nfs_mount *m = MEM_NEW(struct nfs_mount);

    m->client = client_of(call);
    m->path = mem_strdup(path);
    forget(s, m->client, path);
    list_push_back(&s->mounts, &m->link);
    if (++s->mount_count > MOUNTS_MAX)
        mount_free(s, LIST_ENTRY(s->mounts.next, struct nfs_mount, link));
    log_info("nfs.mount", "client=%s path=%s", m->client, path);
}

void nfs_mounts_free(struct nfs_server *s)
{
    LIST_FOREACH_SAFE (m, &s->mounts, struct nfs_mount, link)
        mount_free(s, m);
}

/* ---- paths ---- */

struct mount_path {
    char text[MOUNT_PATH_MAX + 1]; /* "/SHARE/dir/dir", each '/' once, none at the end */
    size_t share_len;              /* of SHARE */
    enum mount_status status;
};

static void simplify(char *text)
{
    char *to = text;

    for (const char *from = text; *from != '\0'; from++) {
        if (*from != '/' || (from[1] != '/' && from[1] != '\0'))
            *to++ = *from;
    }
    *to = '\0';
}

static void take_path(struct onc_call *call, struct mount_path *ret)
{
    uint32_t len;
    const uint8_t *data = xdr_opaque(&call->args, ONC_RECORD_BYTES, &len);

    ret->status = MNT3ERR_NOENT;
    if (len > MOUNT_PATH_MAX)
        ret->status = MNT3ERR_NAMETOOLONG;
    if (data == NULL || len > MOUNT_PATH_MAX || len == 0 || data[0] != '/' ||
        memchr(data, '\0', len) != NULL)
        return;
    memcpy(ret->text, data, len);
    ret->text[len] = '\0';
    simplify(ret->text);
    if (ret->text[0] == '\0')
        return;
    ret->share_len = strcspn(ret->text + 1, "/");
    ret->status = MNT3_OK;
}

/* ---- MNT ---- */

static co_fn enum mount_status resolve(struct onc_call *call, struct mount_path *path,
                                       uint64_t *ret_inode)
{
    Zbs__Meta__PathGetRequest rq = ZBS__META__PATH_GET_REQUEST__INIT;
    const Zbs__Meta__Inode *inode;
    enum mount_status status = MNT3_OK;
    struct rpc_reply r;
    int rc;

    rq.path = path->text;
    rc = nfs_meta_call(nfs_server_of(call), META_PATH_GET, &rq.base, &r);
    if (rc == 0) {
        inode = (const Zbs__Meta__Inode *)r.msg;
        *ret_inode = inode->id;
        if (inode->type != ZBS__META__INODE_TYPE__INODE_DIR)
            status = MNT3ERR_NOTDIR;
    } else {
        status =
            rc == ERR_NOTFOUND ? MNT3ERR_NOENT : (rc == ERR_NOT_DIR ? MNT3ERR_NOTDIR : MNT3ERR_IO);
    }
    rpc_reply_free(&r);
    return status;
}

/* The access list is asked first: who may not mount a share learns nothing of what is in it. */
static co_fn enum mount_status mount(struct onc_call *call, struct mount_path *path,
                                     struct nfs_fh *ret)
{
    struct nfs_server *s = nfs_server_of(call);
    const struct nfs_share *share;

    if (path->status != MNT3_OK)
        return path->status;
    if (nfs_shares_reread(s) < 0)
        return MNT3ERR_IO;
    share = nfs_share_by_name(s, path->text + 1, path->share_len);
    if (share == NULL)
        return MNT3ERR_NOENT;
    if (nfs_share_permit(share, onc_call_peer_addr(call)) == NULL)
        return MNT3ERR_ACCES;
    ret->share_id = share->id;
    ret->inode_id = share->root;
    if (path->text[1 + path->share_len] == '\0')
        return MNT3_OK;
    return resolve(call, path, &ret->inode_id);
}

static co_fn enum onc_accept on_mnt(struct onc_call *call)
{
    struct mount_path path;
    struct nfs_fh fh;
    enum mount_status status;

    take_path(call, &path);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    status = mount(call, &path, &fh);
    xdr_put_u32(&call->out, status);
    if (status != MNT3_OK)
        return ONC_SUCCESS;
    note(call, path.text);
    nfs_put_handle(call, fh.share_id, fh.inode_id);
    xdr_put_u32(&call->out, 1); /* flavors of credentials */
    xdr_put_u32(&call->out, ONC_AUTH_SYS);
    return ONC_SUCCESS;
}

/* ---- the others ---- */

static co_fn enum onc_accept on_dump(struct onc_call *call)
{
    LIST_FOREACH (m, &nfs_server_of(call)->mounts, struct nfs_mount, link) {
        xdr_put_bool(&call->out, true);
        xdr_put_string(&call->out, m->client);
        xdr_put_string(&call->out, m->path);
    }
    xdr_put_bool(&call->out, false);
    return ONC_SUCCESS;
}

static co_fn enum onc_accept on_umnt(struct onc_call *call)
{
    struct mount_path path;
    char *client;

    take_path(call, &path);
    if (call->args.bad)
        return ONC_GARBAGE_ARGS;
    client = client_of(call);
    if (path.status == MNT3_OK)
        forget(nfs_server_of(call), client, path.text);
    mem_free(client);
    return ONC_SUCCESS;
}

static co_fn enum onc_accept on_umntall(struct onc_call *call)
{
    char *client = client_of(call);

    forget(nfs_server_of(call), client, NULL);
    mem_free(client);
    return ONC_SUCCESS;
}

static void put_export(struct xdr_out *out, const struct nfs_share *share)
{
    char *path = mem_printf("/%s", share->name);

    xdr_put_bool(out, true);
    xdr_put_string(out, path);
    mem_free(path);
    for (size_t i = 0; i < share->client_count; i++) {
        xdr_put_bool(out, true);
        xdr_put_string(out, share->clients[i].text);
    }
    xdr_put_bool(out, false);
}

static co_fn enum onc_accept on_export(struct onc_call *call)
{
    struct nfs_server *s = nfs_server_of(call);

    if (nfs_shares_reread(s) < 0)
        return ONC_SYSTEM_ERR;
    for (size_t i = 0; i < s->shares.count; i++)
        put_export(&call->out, &s->shares.list[i]);
    xdr_put_bool(&call->out, false);
    return ONC_SUCCESS;
}

static const struct onc_procedure procedures[MOUNT3_PROCEDURES] = {
    [MOUNT3_NULL] = {.name = "NULL"},
    [MOUNT3_MNT] = {.name = "MNT", .handler = on_mnt},
    [MOUNT3_DUMP] = {.name = "DUMP", .handler = on_dump},
    [MOUNT3_UMNT] = {.name = "UMNT", .handler = on_umnt},
    [MOUNT3_UMNTALL] = {.name = "UMNTALL", .handler = on_umntall},
    [MOUNT3_EXPORT] = {.name = "EXPORT", .handler = on_export},
};

const struct onc_program nfs_mount_program = {
    .number = MOUNT_PROGRAM,
    .version = MOUNT_V3,
    .name = "mount",
    .procedures = procedures,
    .procedure_count = MOUNT3_PROCEDURES,
};
