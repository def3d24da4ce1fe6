/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated cluster whose access servers serve a share by NFS, and a client of each. Included by
 * tests only, so everything is static. */
#ifndef ZBS_TESTS_ACCESS_NFS_WORLD_H
#define ZBS_TESTS_ACCESS_NFS_WORLD_H

#include "tests/lib/nfs_client.h"
#include "tests/unit/access/vol_world.h"

#define SHARE "share"
#define OK(x) CHECK((x) == NFS3_OK)

static char nfs_addrs[HOSTS][32], portmap_addrs[HOSTS][32];

static void nfs_world_init(struct vworld *w)
{
    struct sim_conf conf = {.seed = 1};

    world_init(w, &conf, 256 * MIB);
    for (uint32_t i = 0; i < HOSTS; i++) {
        snprintf(nfs_addrs[i], sizeof(nfs_addrs[i]), "%s:2049", w->nodes[i].addr);
        snprintf(portmap_addrs[i], sizeof(portmap_addrs[i]), "%s:111", w->nodes[i].addr);
        w->nodes[i].access.nfs_listen = nfs_addrs[i];
        w->nodes[i].access.portmap_listen = portmap_addrs[i];
    }
}

/* Creates it, or (replace) sets its clients anew. */
static void share_put(struct vworld *w, const char *name, Zbs__Meta__ShareClient *client,
                      bool replace)
{
    Zbs__Meta__Share share = ZBS__META__SHARE__INIT;
    Zbs__Meta__ShareCreateRequest make = ZBS__META__SHARE_CREATE_REQUEST__INIT;
    Zbs__Meta__ShareSetRequest set = ZBS__META__SHARE_SET_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    char pool[] = "pool";
    int rc;

    meta_client_mutation(w->mc, &m);
    share.name = (char *)(uintptr_t)name;
    share.pool = pool;
    share.clients = &client;
    share.n_clients = 1;
    share.anonymous_uid = share.anonymous_gid = 65534;
    make.mutation = set.mutation = &m;
    make.share = set.share = &share;
    rc = replace ? meta_ask(w, META_SHARE_SET, &set.base, &r)
                 : meta_ask(w, META_SHARE_CREATE, &make.base, &r);
    ASSERTF(rc == 0, "%s", err_text(rc));
    rpc_reply_free(&r);
}

static void share_make(struct vworld *w, const char *name, const char *network, bool read_only,
                       Zbs__Meta__ShareClient__Squash squash)
{
    Zbs__Meta__ShareClient client = ZBS__META__SHARE_CLIENT__INIT;

    client.network = (char *)(uintptr_t)network;
    client.read_only = read_only;
    client.squash = squash;
    share_put(w, name, &client, false);
}

/* Waits for the cluster, makes the pool and a share for everybody without squashing. */
static void share_begin(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, 64 * MIB) == 0);
    share_make(w, SHARE, "127.1.0.0/16", false, ZBS__META__SHARE_CLIENT__SQUASH__NONE);
}

/* A client of the access server of a host, with the handle of the share's root. */
static void client_open(struct nfs_client *c, uint32_t host, uint32_t uid, struct nh *root)
{
    nfs_open(c, nfs_addrs[host]);
    c->onc.uid = c->onc.gid = uid;
    c->onc.xid = (uint32_t)env_random() & 0xffffff; /* as clients do that begin anew */
    CHECK(nfs_mount_path(c, "/" SHARE, root) == MNT3_OK);
}

static void run_script(int (*script)(struct vworld *w))
{
    struct vworld w;

    nfs_world_init(&w);
    world_run(&w, script, SEC(600));
    world_fini(&w);
}

#endif
