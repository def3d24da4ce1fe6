/* SPDX-License-Identifier: Apache-2.0
 *
 * The access server: the volume engine, its RPC service, and over it the iSCSI target, the NBD
 * server and the NFS server, started in this order and stopped in the reverse one. */
#include "access/accessd.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "access/iscsi/iscsi.h"
#include "access/nbd/nbd.h"
#include "access/nfs/nfs.h"
#include "access/guest.h"
#include "access/reserve.h"
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/co/sync.h"
#include "common/env/env.h"
#include "common/rpc/rpc.h"
#include "proto/access.pb-c.h"

#define EXPORTS_PAUSE (200 * NSEC_PER_MSEC)

struct accessd {
    bool served; /* engine_ready was called */
    const struct accessd_conf *conf;
    struct meta_client *meta;
    struct vol_engine *engine;
    struct rpc_server *server;
    struct rpc_service services[2]; /* ended by an empty one */
    const struct rpc_service *instances[1];
    struct iscsi_target *iscsi;
    struct nbd_server *nbd;
    struct net_tls *nbd_tls; /* NULL: NBD_TLS_OFF */
    struct nfs_server *nfs;
    struct reserve_meta reserve;
    struct pr_store pr_store;
    struct pr_registry nbd_reservations; /* as NBD's volumes obey them */
    struct co_group bg;
    struct co_cond exports_changed;
    uint64_t exports_wanted, exports_have;
};

/* ---- exports ---- */

static void on_exports_changed(void *arg, uint64_t version)
{
    struct accessd *d = arg;

    d->exports_wanted = version;
    co_cond_signal(&d->exports_changed);
}

static void on_space_changed(void *arg)
{
    struct accessd *d = arg;

    if (d->iscsi)
        iscsi_target_space_changed(d->iscsi);
}

static void on_volume_changed(void *arg, uint64_t volume_id)
{
    struct accessd *d = arg;

    if (d->iscsi)
        iscsi_target_volume_changed(d->iscsi, volume_id);
    if (d->nfs)
        nfs_server_volume_changed(d->nfs, volume_id);
}

struct portals {
    struct iscsi_portal list[256];
    size_t count;
};

static void portal_add(void *arg, const char *portal, bool leaving)
{
    struct portals *p = arg;

    if (p->count < ARRAY_SIZE(p->list))
        p->list[p->count++] = (struct iscsi_portal){portal, leaving};
}

static void on_portals_changed(void *arg)
{
    struct accessd *d = arg;
    struct portals portals = {.count = 0};

    if (!d->iscsi)
        return;
    vol_engine_portals(d->engine, portal_add, &portals);
    iscsi_target_portals_update(d->iscsi, portals.list, portals.count);
}

/* Called by the target only: the newest answer is the last. */
static int exports_fetch(void *arg)
{
    struct accessd *d = arg;
    Zbs__Meta__ExportsGetRequest req = ZBS__META__EXPORTS_GET_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rpc_reply_init(&r);
    rc = meta_call(d->meta, META_EXPORTS_GET, &req.base, true, &r);
    if (rc == 0) {
        const Zbs__Meta__ExportsGetReply *a = (const Zbs__Meta__ExportsGetReply *)r.msg;

        iscsi_target_exports_update(d->iscsi, a);
        if (a->version != d->exports_have)
            log_info("exports.update", "version=%" PRIu64 " targets=%zu", a->version, a->n_targets);
        d->exports_have = a->version;
    }
    rpc_reply_free(&r);
    return rc;
}

/* What initiators sent before may have been sent again over another path since. */
static void on_session_expired(void *arg)
{
    struct accessd *d = arg;

    if (d->iscsi)
        iscsi_target_drop(d->iscsi, "the session with meta expired");
    if (d->nbd)
        nbd_server_drop(d->nbd, "the session with meta expired");
    if (d->nfs)
        nfs_server_drop(d->nfs, "the session with meta expired");
}

static void on_file_recalled(void *arg, uint64_t inode_id, uint64_t lease)
{
    struct accessd *d = arg;

    if (d->nfs)
        nfs_server_recalled(d->nfs, inode_id, lease);
}

static co_fn int on_reservations_changed(void *arg, const uint64_t *volumes, size_t n)
{
    struct accessd *d = arg;
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0 && d->iscsi; i++)
        rc = iscsi_target_reservations_changed(d->iscsi, volumes[i]);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = pr_registry_changed(&d->nbd_reservations, volumes[i]);
    return rc;
}

static int exports_follow(void *arg)
{
    struct accessd *d = arg;
    bool fetched = false;

    while (!co_canceled()) {
        if (fetched && d->exports_have >= d->exports_wanted) {
            (void)co_cond_wait(&d->exports_changed);
            continue;
        }
        fetched = iscsi_target_refresh(d->iscsi) == 0;
        if (!fetched || d->exports_have < d->exports_wanted)
            (void)co_sleep(EXPORTS_PAUSE);
    }
    return 0;
}

static int backend_open(void *arg, uint64_t volume_id, struct block_backend **ret)
{
    struct accessd *d = arg;

    return block_backend_vol_open(d->engine, volume_id, ret);
}

static bool redirects(void *arg)
{
    struct accessd *d = arg;

    return vol_engine_setting(d->engine, SETTING_ISCSI_REDIRECT) != 0;
}

static nsec_t return_delay(void *arg)
{
    struct accessd *d = arg;

    return (nsec_t)vol_engine_setting(d->engine, SETTING_ISCSI_RETURN) * NSEC_PER_SEC;
}

/* ---- NBD exports: every volume, by POOL/VOLUME ---- */

static int nbd_open(void *arg, const char *name, struct block_backend **ret)
{
    struct accessd *d = arg;
    Zbs__Meta__VolumeGetRequest req = ZBS__META__VOLUME_GET_REQUEST__INIT;
    struct rpc_reply r;
    char *pool = mem_strdup(name), *slash = strchr(pool, '/');
    uint64_t id = 0;
    int rc = slash ? 0 : err_set(ERR_NOTFOUND, "an export is named POOL/VOLUME");

    if (rc == 0) {
        *slash = '\0';
        req.pool = pool;
        req.name = slash + 1;
        rpc_reply_init(&r);
        rc = meta_call(d->meta, META_VOLUME_GET, &req.base, true, &r);
        if (rc == 0)
            id = ((const Zbs__Meta__Volume *)r.msg)->id;
        rpc_reply_free(&r);
    }
    mem_free(pool);
    if (rc == 0)
        rc = block_backend_vol_open(d->engine, id, ret);
    return rc < 0 ? rc : guest_backend_open(&d->nbd_reservations, *ret, ret);
}

struct nbd_listing {
    int (*fn)(void *fn_arg, const char *name);
    void *fn_arg;
    char pool[64], name[128]; /* the last one */
};

static int nbd_list_page(struct nbd_listing *l, const Zbs__Meta__VolumeListReply *page)
{
    int rc = 0;

    for (size_t i = 0; i < page->n_volumes && rc == 0; i++) {
        char full[sizeof(l->pool) + sizeof(l->name)];

        snprintf(l->pool, sizeof(l->pool), "%s", page->volumes[i]->pool);
        snprintf(l->name, sizeof(l->name), "%s", page->volumes[i]->name);
        snprintf(full, sizeof(full), "%s/%s", l->pool, l->name);
        rc = l->fn(l->fn_arg, full);
    }
    return rc;
}

static int nbd_list(void *arg, int (*fn)(void *fn_arg, const char *name), void *fn_arg)
{
    struct accessd *d = arg;
    struct nbd_listing l = {.fn = fn, .fn_arg = fn_arg};
    bool more = true;
    int rc = 0;

    while (more && rc == 0) {
        Zbs__Meta__VolumeListRequest req = ZBS__META__VOLUME_LIST_REQUEST__INIT;
        struct rpc_reply r;

        req.after_pool = l.pool;
        req.after_name = l.name;
        rpc_reply_init(&r);
        rc = meta_call(d->meta, META_VOLUME_LIST, &req.base, true, &r);
        if (rc == 0) {
            const Zbs__Meta__VolumeListReply *page = (const Zbs__Meta__VolumeListReply *)r.msg;

            more = page->more && page->n_volumes > 0;
            rc = nbd_list_page(&l, page);
        }
        rpc_reply_free(&r);
    }
    return rc;
}

/* ---- NFS: shares and files ---- */

static int files_call(void *arg, enum meta_method method, const ProtobufCMessage *request,
                      struct rpc_reply *r)
{
    struct accessd *d = arg;

    return meta_call(d->meta, method, request, true, r);
}

static void files_mutation(void *arg, Zbs__Meta__Mutation *ret)
{
    struct accessd *d = arg;

    meta_client_mutation(d->meta, ret);
}

static uint64_t files_session(void *arg)
{
    struct accessd *d = arg;

    return vol_engine_session(d->engine);
}

static int files_lease(void *arg)
{
    struct accessd *d = arg;

    return vol_engine_lease_wait(d->engine);
}

/* ---- status ---- */

struct status_fill {
    struct rpc_request *q;
    Zbs__Access__StatusReply *reply;
    size_t room;
};

static void initiator_count(void *arg, const struct iscsi_session_view *v)
{
    (void)v;
    ++*(size_t *)arg;
}

static void initiator_add(void *arg, const struct iscsi_session_view *v)
{
    struct status_fill *in = arg;
    Zbs__Access__InitiatorSession *s;

    if (in->reply->n_initiators == in->room)
        return;
    s = rpc_alloc(in->q, sizeof(*s));
    zbs__access__initiator_session__init(s);
    s->target = rpc_strdup(in->q, v->target);
    s->initiator = rpc_strdup(in->q, v->initiator);
    s->address = rpc_strdup(in->q, v->address);
    s->reads = v->reads;
    s->writes = v->writes;
    s->read_bytes = v->read_bytes;
    s->write_bytes = v->write_bytes;
    in->reply->initiators[in->reply->n_initiators++] = s;
}

static void initiators_fill(struct accessd *d, struct rpc_request *q,
                            Zbs__Access__StatusReply *reply)
{
    struct status_fill in = {q, reply, 0};

    if (!d->iscsi)
        return;
    iscsi_target_sessions(d->iscsi, initiator_count, &in.room);
    in.reply->initiators = rpc_alloc(q, sizeof(*in.reply->initiators) * MAX(in.room, (size_t)1));
    iscsi_target_sessions(d->iscsi, initiator_add, &in);
}

static void nfs_client_count(void *arg, const struct onc_client_view *v)
{
    (void)v;
    ++*(size_t *)arg;
}

static void nfs_client_add(void *arg, const struct onc_client_view *v)
{
    struct status_fill *in = arg;
    Zbs__Access__NfsClient *c = rpc_alloc(in->q, sizeof(*c));

    zbs__access__nfs_client__init(c);
    c->address = rpc_strdup(in->q, v->address);
    c->machine = rpc_strdup(in->q, v->machine);
    c->calls = v->calls;
    in->reply->nfs_clients[in->reply->n_nfs_clients++] = c;
}

static void nfs_clients_fill(struct accessd *d, struct rpc_request *q,
                             Zbs__Access__StatusReply *reply)
{
    struct status_fill in = {q, reply, 0};

    if (!d->nfs)
        return;
    nfs_server_clients(d->nfs, nfs_client_count, &in.room);
    reply->nfs_clients = rpc_alloc(q, sizeof(*reply->nfs_clients) * MAX(in.room, (size_t)1));
    nfs_server_clients(d->nfs, nfs_client_add, &in);
}

static void on_status(void *arg, struct rpc_request *q, void *reply)
{
    initiators_fill(arg, q, reply);
    nfs_clients_fill(arg, q, reply);
}

/* ---- life ---- */

/* The lock is held for as long as this process lives: whoever holds it next knows that we are
 * dead, and so do we of our former incarnation (PROTOCOL 12). */
static int lock_take(const struct accessd_conf *conf)
{
    char *path = mem_printf("%s/lock", conf->data_dir);
    int rc = env_lock_file(path);

    if (rc == ERR_BUSY)
        rc = err_set(rc, "another access server uses %s", conf->data_dir);
    mem_free(path);
    return rc;
}

static int engine_begin(struct accessd *d, uint64_t incarnation)
{
    const struct accessd_conf *conf = d->conf;
    struct vol_engine_conf ec = {
        .name = conf->name,
        .host = conf->host,
        .rack = conf->rack,
        .zone = conf->zone,
        .rpc_addr = conf->listen,
        .iscsi_portal = conf->iscsi_listen,
        .incarnation = incarnation,
        .former_is_dead = true,
        .meta = d->meta,
        .member_deadline_ms = conf->member_deadline_ms,
        .exports_changed = on_exports_changed,
        .space_changed = on_space_changed,
        .portals_changed = on_portals_changed,
        .volume_changed = on_volume_changed,
        .session_expired = on_session_expired,
        .file_recalled = on_file_recalled,
        .reservations_changed = on_reservations_changed,
        .arg = d,
    };
    int rc = vol_engine_start(&ec, &d->engine);

    if (rc == 0)
        vol_engine_set_initiators(d->engine, on_status, d);
    return rc;
}

static int server_begin(struct accessd *d, uint64_t incarnation)
{
    struct rpc_server_conf sc = {
        .addr = d->conf->listen,
        .self = d->conf->name,
        .cluster_id = "",
        .incarnation = incarnation,
        .n_instances = 1,
        .services = d->instances,
    };

    d->services[0] = *vol_engine_service(d->engine);
    d->instances[0] = d->services;
    return rpc_server_start(&sc, &d->server);
}

static bool is_set(const char *addr)
{
    return addr && addr[0];
}

static int iscsi_begin(struct accessd *d)
{
    struct iscsi_conf ic = {
        .listen = d->conf->iscsi_listen,
        .listen_virtual = d->conf->iscsi_virtual,
        .connections = d->conf->iscsi_connections,
        .open = backend_open,
        .refresh = exports_fetch,
        .redirects = redirects,
        .return_delay = return_delay,
        .arg = d,
        .reservations = true,
        .pr_store = &d->pr_store,
    };
    int rc;

    if (!is_set(d->conf->iscsi_listen))
        return 0;
    rc = iscsi_target_start(&ic, &d->iscsi);
    if (rc < 0)
        return rc;
    on_portals_changed(d);
    co_spawn(&d->bg, "exports", exports_follow, d);
    return 0;
}

static int nbd_begin(struct accessd *d)
{
    struct nbd_conf nc = {
        .listen = d->conf->nbd_listen,
        .listen_unix = d->conf->nbd_listen_unix,
        .tls = d->conf->nbd_tls,
        .tls_identity = d->nbd_tls,
        .open = nbd_open,
        .list = nbd_list,
        .arg = d,
    };

    if (!is_set(nc.listen) && !is_set(nc.listen_unix))
        return 0;
    return nbd_server_start(&nc, &d->nbd);
}

static int nfs_begin(struct accessd *d)
{
    struct nfs_conf nc = {
        .listen = d->conf->nfs_listen,
        .portmap_listen = d->conf->portmap_listen,
        .client_portmap_port = d->conf->nfs_client_portmap,
        .cluster_id = vol_engine_cluster_id(d->engine),
        .backend = {.call = files_call,
                    .mutation = files_mutation,
                    .open = backend_open,
                    .session = files_session,
                    .lease = files_lease,
                    .arg = d},
    };

    int rc;

    if (!is_set(nc.listen))
        return is_set(nc.portmap_listen)
                   ? err_set(ERR_INVAL, "portmap_listen is configured, nfs_listen is not")
                   : 0;
    rc = nfs_server_start(&nc, &d->nfs);
    if (rc == 0 && d->conf->files_ready)
        d->conf->files_ready(d->conf->engine_arg, nfs_server_files(d->nfs), d->meta);
    return rc;
}

static int accessd_begin(struct accessd *d)
{
    uint64_t incarnation = env_random() | 1;
    int rc = lock_take(d->conf);

    if (rc < 0)
        return rc;
    d->meta = meta_client_new(d->conf->meta, d->conf->name);
    rc = engine_begin(d, incarnation);
    if (rc < 0)
        return rc;
    rc = server_begin(d, incarnation);
    if (rc < 0)
        return rc;
    d->served = true;
    d->reserve = (struct reserve_meta){.meta = d->meta, .engine = d->engine};
    if (d->conf->engine_ready)
        d->conf->engine_ready(d->conf->engine_arg, d->engine);
    rc = iscsi_begin(d);
    if (rc == 0)
        rc = nbd_begin(d);
    return rc < 0 ? rc : nfs_begin(d);
}

static void accessd_end(struct accessd *d)
{
    struct co_shield shield;

    co_shield_begin(&shield);
    (void)co_group_close(&d->bg);
    if (d->iscsi)
        vol_engine_leave(d->engine); /* so that nobody who is asked to leave is sent back here */
    if (d->served && d->conf->engine_stopping)
        d->conf->engine_stopping(d->conf->engine_arg);
    if (d->nfs)
        nfs_server_stop(d->nfs);
    d->nfs = NULL;
    if (d->nbd)
        nbd_server_stop(d->nbd);
    d->nbd = NULL;
    if (d->iscsi)
        iscsi_target_stop(d->iscsi);
    d->iscsi = NULL;
    if (d->engine)
        vol_engine_drain(d->engine);
    if (d->server)
        rpc_server_stop(d->server);
    if (d->engine)
        vol_engine_stop(d->engine);
    if (d->meta)
        meta_client_close(d->meta);
    co_shield_end(&shield);
}

/* Nobody is to believe that connections are encrypted while they are not. */
static int nbd_tls_check(const struct accessd_conf *conf)
{
    bool on = conf->nbd_tls != NBD_TLS_OFF;

    if (on && !is_set(conf->nbd_listen))
        return err_set(ERR_INVAL, "nbd_tls is configured, nbd_listen is not");
    if (on && (!is_set(conf->nbd_tls_cert) || !is_set(conf->nbd_tls_key)))
        return err_set(ERR_INVAL, "nbd_tls needs nbd_tls_cert and nbd_tls_key");
    if (!on &&
        (is_set(conf->nbd_tls_cert) || is_set(conf->nbd_tls_key) || is_set(conf->nbd_tls_ca)))
        return err_set(ERR_INVAL, "nbd_tls_cert, nbd_tls_key and nbd_tls_ca mean nothing while "
                                  "nbd_tls is off");
    return 0;
}

static int nbd_tls_load(struct accessd *d)
{
    const struct net_tls_files files = {
        .cert = d->conf->nbd_tls_cert,
        .key = d->conf->nbd_tls_key,
        .ca = d->conf->nbd_tls_ca,
    };
    int rc = nbd_tls_check(d->conf);

    if (rc < 0 || d->conf->nbd_tls == NBD_TLS_OFF)
        return rc;
    rc = net_tls_new(&files, &d->nbd_tls);
    return rc < 0 ? err_prefix(rc, "TLS of NBD") : 0;
}

static int conf_check(const struct accessd_conf *conf)
{
    if (!conf->name || !conf->name[0] || !conf->listen || !conf->listen[0])
        return err_set(ERR_INVAL, "an access server needs a name and an address to listen at");
    if (!conf->meta || !conf->meta[0])
        return err_set(ERR_INVAL, "the addresses of the meta servers are not configured");
    /* Session, removal of a member and its logging have to fit in three seconds (PROTOCOL 12). */
    if (conf->member_deadline_ms > 2000)
        return err_set(ERR_INVAL,
                       "member_deadline_ms is %u: more than 2000 leaves no time within the three "
                       "seconds in which a failure must be over",
                       conf->member_deadline_ms);
    return 0;
}

int accessd_main(const struct accessd_conf *conf)
{
    struct accessd d = {.conf = conf};
    int rc = conf_check(conf);

    if (rc < 0)
        return rc;
    co_group_init(&d.bg);
    co_cond_init(&d.exports_changed);
    d.pr_store = reserve_meta_store(&d.reserve);
    pr_registry_init(&d.nbd_reservations, &d.pr_store);
    rc = nbd_tls_load(&d);
    if (rc == 0)
        rc = accessd_begin(&d);
    if (rc == 0) {
        log_info("access.ready", "name=%s rpc=%s iscsi=%s", conf->name, rpc_server_addr(d.server),
                 d.iscsi ? iscsi_target_addr(d.iscsi) : "-");
        if (conf->ready)
            conf->ready(conf->ready_arg, conf->listen);
        while (!co_canceled())
            (void)co_sleep_until(NSEC_NEVER);
    }
    accessd_end(&d);
    net_tls_free(d.nbd_tls);
    pr_registry_fini(&d.nbd_reservations);
    return rc == ERR_CANCELED ? 0 : rc;
}
