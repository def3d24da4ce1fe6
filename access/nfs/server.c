/* SPDX-License-Identifier: Apache-2.0
 *
 * The NFS server as a whole: its programs, start, end. */
#include <openssl/sha.h>
#include "access/nfs/nfs_int.h"

static const struct onc_procedure procedures[NFS3_PROCEDURES] = {
    [NFS3_NULL] = {.name = "NULL"},
    [NFS3_GETATTR] = {.name = "GETATTR", .handler = nfs_getattr},
    [NFS3_SETATTR] = {.name = "SETATTR", .handler = nfs_setattr},
    [NFS3_LOOKUP] = {.name = "LOOKUP", .handler = nfs_lookup},
    [NFS3_ACCESS] = {.name = "ACCESS", .handler = nfs_access},
    [NFS3_READLINK] = {.name = "READLINK", .handler = nfs_readlink},
    [NFS3_READ] = {.name = "READ", .handler = nfs_read},
    [NFS3_WRITE] = {.name = "WRITE", .bulk = nfs_write_head, .handler = nfs_write},
    [NFS3_CREATE] = {.name = "CREATE", .handler = nfs_create},
    [NFS3_MKDIR] = {.name = "MKDIR", .handler = nfs_mkdir},
    [NFS3_SYMLINK] = {.name = "SYMLINK", .handler = nfs_symlink},
    [NFS3_MKNOD] = {.name = "MKNOD", .handler = nfs_mknod},
    [NFS3_REMOVE] = {.name = "REMOVE", .handler = nfs_remove},
    [NFS3_RMDIR] = {.name = "RMDIR", .handler = nfs_rmdir},
    [NFS3_RENAME] = {.name = "RENAME", .handler = nfs_rename},
    [NFS3_LINK] = {.name = "LINK", .handler = nfs_link},
    [NFS3_READDIR] = {.name = "READDIR", .handler = nfs_readdir},
    [NFS3_READDIRPLUS] = {.name = "READDIRPLUS", .handler = nfs_readdirplus},
    [NFS3_FSSTAT] = {.name = "FSSTAT", .handler = nfs_fsstat},
    [NFS3_FSINFO] = {.name = "FSINFO", .handler = nfs_fsinfo},
    [NFS3_PATHCONF] = {.name = "PATHCONF", .handler = nfs_pathconf},
    [NFS3_COMMIT] = {.name = "COMMIT", .handler = nfs_commit},
};

const struct onc_program nfs_program = {
    .number = NFS_PROGRAM,
    .version = NFS_V3,
    .name = "nfs",
    .procedures = procedures,
    .procedure_count = NFS3_PROCEDURES,
};

static const struct onc_program *const served[] = {&nfs_program, &nfs_mount_program,
                                                   &nfs_lock_program, &nfs_status_program, NULL};
/* Over UDP: what a client needs around its mount. NFS is for TCP: a WRITE would be so many packets
 * that one of them is always lost. */
static const struct onc_program *const served_udp[] = {&nfs_mount_program, &nfs_lock_program,
                                                       &nfs_status_program, NULL};
static const struct onc_program *const mapped[] = {&nfs_portmap_program, NULL};

/* Clients write again what they had written unstably when the verifier changes. All that was
 * answered is durable, so it never does: not by a restart, not on another access server. */
static void verifier_set(struct nfs_server *s)
{
    uint8_t digest[SHA256_DIGEST_LENGTH];

    SHA256((const uint8_t *)s->cluster_id, strlen(s->cluster_id), digest);
    memcpy(s->verifier, digest, sizeof(s->verifier));
}

static co_fn int listen_at(struct nfs_server *s, const char *name, const char *addr,
                           const struct onc_program *const *programs, struct onc_server **ret)
{
    struct onc_conf conf = {
        .listen = addr,
        .name = name,
        .programs = programs,
        .arg = s,
        .connections = s->conf.connections,
        .calls = s->conf.calls,
        .memory_bytes = s->conf.memory_bytes,
        .stop_timeout_ms = s->conf.stop_timeout_ms,
    };

    return onc_server_start(&conf, ret);
}

/* Where the same server listens over TCP. */
static co_fn int listen_udp(struct nfs_server *s, const struct onc_server *tcp, const char *name,
                            const struct onc_program *const *programs, struct onc_udp **ret)
{
    struct onc_conf conf = {
        .listen = onc_server_addr(tcp), .name = name, .programs = programs, .arg = s};

    return onc_udp_start(&conf, ret);
}

static co_fn int listen_all(struct nfs_server *s)
{
    struct addr addr = {0};
    int rc = listen_at(s, "nfs", s->conf.listen, served, &s->onc);

    if (rc == 0)
        rc = addr_parse(onc_server_addr(s->onc), &addr);
    if (rc == 0)
        rc = listen_udp(s, s->onc, "nfs", served_udp, &s->udp);
    if (rc < 0)
        return rc;
    s->port = addr.port;
    if (s->conf.portmap_listen == NULL || s->conf.portmap_listen[0] == '\0')
        return 0;
    rc = listen_at(s, "portmap", s->conf.portmap_listen, mapped, &s->portmap);
    return rc < 0 ? rc : listen_udp(s, s->portmap, "portmap", mapped, &s->portmap_udp);
}

co_fn int nfs_server_start(const struct nfs_conf *conf, struct nfs_server **ret)
{
    struct nfs_server *s = MEM_NEW(struct nfs_server);
    int rc;

    s->conf = *conf;
    if (s->conf.client_portmap_port == 0)
        s->conf.client_portmap_port = PORTMAP_PORT;
    s->cluster_id = mem_strdup(conf->cluster_id);
    verifier_set(s);
    list_init(&s->mounts);
    list_init(&s->lock_waits);
    co_group_init(&s->lock_waiting);
    co_cond_init(&s->lock_wait_gone);
    nfs_shares_init(&s->shares);
    s->files = nfs_files_new(&conf->backend);
    rc = listen_all(s);
    if (rc < 0)
        nfs_server_stop(s);
    else
        *ret = s;
    return rc;
}

co_fn void nfs_server_stop(struct nfs_server *s)
{
    struct co_shield shield;

    co_shield_begin(&shield);
    if (s->portmap_udp != NULL)
        onc_udp_stop(s->portmap_udp);
    if (s->portmap != NULL)
        onc_server_stop(s->portmap);
    if (s->udp != NULL)
        onc_udp_stop(s->udp);
    if (s->onc != NULL)
        onc_server_stop(s->onc);
    s->onc = NULL; /* the session may expire, and status be asked for, while the files end */
    (void)co_group_close(&s->lock_waiting);
    nfs_shares_fini(&s->shares);
    nfs_files_free(s->files);
    co_shield_end(&shield);
    nfs_mounts_free(s);
    mem_free(s->cluster_id);
    mem_free(s);
}

struct nfs_files *nfs_server_files(struct nfs_server *s)
{
    return s->files;
}

const char *nfs_server_addr(const struct nfs_server *s)
{
    return onc_server_addr(s->onc);
}

const char *nfs_server_portmap_addr(const struct nfs_server *s)
{
    return s->portmap != NULL ? onc_server_addr(s->portmap) : "";
}

void nfs_server_drop(struct nfs_server *s, const char *why)
{
    if (s->onc != NULL)
        onc_server_drop(s->onc, why);
}

void nfs_server_volume_changed(struct nfs_server *s, uint64_t volume_id)
{
    nfs_files_volume_changed(s->files, volume_id);
}

void nfs_server_recalled(struct nfs_server *s, uint64_t inode_id, uint64_t lease)
{
    nfs_files_recalled(s->files, inode_id, lease);
}

void nfs_server_clients(const struct nfs_server *s,
                        void (*fn)(void *arg, const struct onc_client_view *v), void *arg)
{
    if (s->onc != NULL)
        onc_server_clients(s->onc, fn, arg);
}
