/* SPDX-License-Identifier: Apache-2.0
 *
 * See nfsworld.h. */
#include "tests/lib/nfsworld.h"

#include "access/nfs/rpc_int.h"
#include "meta/apply.h"
#include "meta/codec.h"
#include "meta/decide_tree.h"
#include "tests/lib/frontworld.h"

#define VOLUME_MAX (4u << 20)   /* larger ones can't be opened */
#define REPLY_MAX  (64u << 20)  /* bytes of one reply, unpacked */
#define SESSION    UINT64_C(77) /* of the server with meta */

/* ---- meta ---- */

struct way {
    enum meta_method method;
    decide_fn decide; /* NULL: a question */
    answer_fn answer; /* NULL: what applying the record gave */
};

/* There is no other session that could be told. */
static int answer_recall(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__FileRecallRequest *rq = (const void *)d->rq;
    struct inode *i;
    int rc = decide_file(d, rq->inode_id, &i);

    if (rc == 0)
        ((Zbs__Meta__FileRecallReply *)reply)->writers = file_leases(d->st, i);
    return rc;
}

static const struct way ways[] = {
    {META_SHARE_CREATE, decide_share_create, NULL},
    {META_SHARE_LIST, NULL, answer_share_list},
    {META_POOL_LIST, NULL, answer_pool_list},
    {META_INODE_GET, NULL, answer_inode_get},
    {META_LOOKUP, NULL, answer_lookup},
    {META_INODE_CREATE, decide_inode_create, answer_inode_create},
    {META_INODE_REMOVE, decide_inode_remove, NULL},
    {META_INODE_RENAME, decide_inode_rename, answer_inode_rename},
    {META_INODE_LINK, decide_inode_link, NULL},
    {META_INODE_SET, decide_inode_set, NULL},
    {META_DIR_LIST, NULL, answer_dir_list},
    {META_PATH_GET, NULL, answer_path_get},
    {META_FILE_WRITE, decide_file_write, answer_file},
    {META_FILE_VOLUME, decide_file_volume, answer_file},
    {META_FILE_ATTACH, decide_file_attach, answer_file},
    {META_FILE_GROW, decide_file_grow, answer_file},
    {META_FILE_WRITTEN, decide_file_written, answer_file},
    {META_FILE_ZERO, decide_file_zero, answer_file},
    {META_FILE_ZEROED, decide_file_zeroed, answer_file},
    {META_FILE_LEASE, decide_file_lease, answer_file_lease},
    {META_FILE_RETURN, decide_file_return, NULL},
    {META_FILE_RECALL, NULL, answer_recall},
    {META_LOCK_SET, decide_lock_set, NULL},
    {META_LOCK_CLEAR, decide_lock_clear, NULL},
    {META_LOCK_TEST, NULL, answer_lock_test},
    {META_LOCK_FORGET, decide_lock_forget, NULL},
};

static const struct way *way_of(enum meta_method method)
{
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        if (ways[i].method == method)
            return &ways[i];
    }
    return NULL;
}

/* Decides, applies, answers; the packed reply is in the pad. */
static int execute(struct nfsworld *w, const struct way *way, const ProtobufCMessage *rq,
                   ProtobufCMessage *reply, struct pad *pad, struct packed *ret)
{
    struct world world = {.wall_ns = w->wall_ns += 1000};
    struct decide d = {.st = &w->st, .w = &world, .rq = rq, .pad = pad};
    Zbs__Metalog__Record *record = NULL;
    int rc = way->decide != NULL ? way->decide(&d, &record) : 0;

    if (rc == 0 && record != NULL) {
        rc = apply_record(&w->st, record, NULL, pad, ret);
        ASSERT(rc == 0);
    }
    if (rc == 0 && ret->bytes == NULL && way->answer != NULL) {
        rc = way->answer(&d, reply);
        if (rc == 0)
            *ret = view_pack(reply, pad);
    }
    return rc;
}

static co_fn int meta(void *arg, enum meta_method method, const ProtobufCMessage *rq,
                      struct rpc_reply *r)
{
    const ProtobufCMessageDescriptor *type = zbs__meta__meta__descriptor.methods[method].output;
    const struct way *way = way_of(method);
    struct nfsworld *w = arg;
    struct packed packed = {0};
    ProtobufCMessage *reply;
    struct pad pad;
    int rc;

    if (way == NULL)
        return err_set(ERR_UNSUPPORTED, "no such request here");
    pad_init(&pad);
    reply = pad_alloc(&pad, type->sizeof_message);
    protobuf_c_message_init(type, reply);
    rc = execute(w, way, rq, reply, &pad, &packed);
    if (rc == 0) {
        r->arena = arena_new(w->arenas, REPLY_MAX);
        r->msg =
            protobuf_c_message_unpack(type, arena_allocator(r->arena), packed.len, packed.bytes);
        ASSERT(r->msg != NULL);
    }
    pad_fini(&pad);
    return rc;
}

static void mutation(void *arg, Zbs__Meta__Mutation *ret)
{
    struct nfsworld *w = arg;

    zbs__meta__mutation__init(ret);
    ret->client = 1;
    ret->number = ++w->mutation;
}

static co_fn int open_volume(void *arg, uint64_t volume_id, struct block_backend **ret)
{
    struct nfsworld *w = arg;
    const struct volume *v = state_volume(&w->st, volume_id);

    if (v == NULL)
        return err_set(ERR_NOTFOUND, "no such volume");
    if (v->size_bytes > VOLUME_MAX)
        return err_set(ERR_IO, "too large for a test");
    *ret = block_backend_mem_new(volume_id, v->size_bytes);
    return 0;
}

static uint64_t session(void *arg)
{
    (void)arg;
    return SESSION;
}

static co_fn int lease(void *arg)
{
    (void)arg;
    return 0;
}

static void share_make(struct nfsworld *w)
{
    Zbs__Meta__ShareCreateRequest rq = ZBS__META__SHARE_CREATE_REQUEST__INIT;
    Zbs__Meta__Share share = ZBS__META__SHARE__INIT;
    Zbs__Meta__ShareClient all = ZBS__META__SHARE_CLIENT__INIT, *clients[] = {&all};
    char name[] = NFSW_SHARE, pool[] = "p", network[] = "*";
    struct rpc_reply r;

    all.network = network;
    all.squash = ZBS__META__SHARE_CLIENT__SQUASH__NONE;
    share.name = name;
    share.pool = pool;
    share.clients = clients;
    share.n_clients = 1;
    rq.share = &share;
    rpc_reply_init(&r);
    ASSERT(meta(w, META_SHARE_CREATE, &rq.base, &r) == 0);
    rpc_reply_free(&r);
}

/* ---- the process ---- */

static void world_begin(struct nfsworld *w)
{
    state_init(&w->st);
    state_pool_add(&w->st, w->st.next_pool_id++, "p")->replicas = 1;
    w->arenas = arena_pool_new();
    w->wall_ns = NSEC_PER_SEC;
    share_make(w);
    w->conf.listen = FRONT_HOST ":2049";
    w->conf.portmap_listen = FRONT_HOST ":111";
    w->conf.cluster_id = "cluster";
    w->conf.backend = (struct nfs_backend){.call = meta,
                                           .mutation = mutation,
                                           .open = open_volume,
                                           .session = session,
                                           .lease = lease,
                                           .arg = w};
}

static co_fn int world_main(void *arg)
{
    struct nfsworld *w = arg;
    uint64_t before = mem_heap_bytes(mem_heap_current());

    world_begin(w);
    ASSERT(nfs_server_start(&w->conf, &w->server) == 0);
    w->addr = nfs_server_addr(w->server);
    w->portmap_addr = nfs_server_portmap_addr(w->server);
    w->body(w);
    nfs_server_stop(w->server);
    arena_pool_close(w->arenas);
    state_fini(&w->st);
    ASSERT(mem_heap_bytes(mem_heap_current()) == before);
    return 0;
}

void nfsworld_run(struct nfsworld *w)
{
    frontworld_run(1, world_main, w);
}

co_fn void nfsworld_quiet(struct nfsworld *w)
{
    while (w->server->onc->stream.conn_count + w->server->portmap->stream.conn_count > 0)
        ASSERT(co_sleep(NSEC_PER_MSEC) == 0);
}
