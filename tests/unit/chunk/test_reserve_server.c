/* SPDX-License-Identifier: Apache-2.0
 *
 * Reserved replicas as a chunk server's callers see them: made so, or changed while they are open;
 * what is promised counts as used, and is told apart. */
#define DISK_BYTES ((uint64_t)600 << 20) /* each worker has room for one reserved extent */
#include "tests/unit/chunk/server_world.h"

#define ID    1u
#define WHOLE ((uint64_t)BLOCKS_PER_EXTENT * BLOCK_BYTES)

static int create_reserved(struct server_world *w, uint64_t id)
{
    Zbs__Chunk__CreateItem item = ZBS__CHUNK__CREATE_ITEM__INIT, *items[] = {&item};
    Zbs__Chunk__CreateRequest req = ZBS__CHUNK__CREATE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    item.extent_id = id;
    item.epoch = 1;
    item.reserve = true;
    req.items = items;
    req.n_items = 1;
    rc = sw_call(sw_client(w, id), CREATE, &req.base, NULL, &r);
    if (rc == 0)
        rc = ((Zbs__Chunk__CreateReply *)r.msg)->results[0]->rc;
    rpc_reply_free(&r);
    return rc;
}

static int reserve(struct server_world *w, uint64_t id, uint64_t epoch, bool on)
{
    Zbs__Chunk__ReplicaReserveRequest req = ZBS__CHUNK__REPLICA_RESERVE_REQUEST__INIT;

    req.extent_id = id;
    req.epoch = epoch;
    req.reserve = on;
    return sw_do(sw_client(w, id), REPLICA_RESERVE, &req.base);
}

static bool open_reserved(struct server_world *w, uint64_t epoch, uint32_t *ret_credits)
{
    Zbs__Chunk__OpenItem item = ZBS__CHUNK__OPEN_ITEM__INIT, *items[] = {&item};
    Zbs__Chunk__OpenRequest req = ZBS__CHUNK__OPEN_REQUEST__INIT;
    const Zbs__Chunk__OpenResult *o;
    struct rpc_reply r;
    bool reserved;

    item.extent_id = ID;
    item.epoch = epoch;
    item.credit_blocks = 2;
    req.items = items;
    req.n_items = 1;
    CHECK(sw_call(sw_client(w, ID), OPEN, &req.base, NULL, &r) == 0);
    o = ((Zbs__Chunk__OpenReply *)r.msg)->results[0];
    CHECK(o->result->rc == 0);
    reserved = o->reserved;
    *ret_credits = o->credit_blocks;
    rpc_reply_free(&r);
    return reserved;
}

static bool listed_reserved(struct server_world *w)
{
    Zbs__Chunk__ListReplicasRequest req = ZBS__CHUNK__LIST_REPLICAS_REQUEST__INIT;
    const Zbs__Chunk__ListReplicasReply *m;
    struct rpc_reply r;
    bool reserved;

    CHECK(sw_call(sw_client(w, ID), LIST, &req.base, NULL, &r) == 0);
    m = (Zbs__Chunk__ListReplicasReply *)r.msg;
    CHECK(m->n_replicas == 1 && m->replicas[0]->extent_id == ID);
    reserved = m->replicas[0]->reserved;
    rpc_reply_free(&r);
    return reserved;
}

/* Returns what is promised. */
static uint64_t promised(struct server_world *w, uint64_t *ret_used)
{
    struct sw_disk d;

    CHECK(sw_disk(w, disk_paths[0], &d) && d.used_bytes <= d.size_bytes);
    *ret_used = d.used_bytes;
    return d.reserved_bytes;
}

/* Another extent of the same worker. */
static uint64_t neighbour(void)
{
    uint64_t id = ID + 1;

    while (extent_worker(id, WORKERS) != extent_worker(ID, WORKERS))
        id++;
    return id;
}

static int story(void *arg)
{
    struct server_world *w = arg;
    uint64_t used, thin_used, other = neighbour();
    uint32_t credits;

    CHECK(sw_start(w));
    CHECK(create_reserved(w, ID) == 0 && listed_reserved(w));
    CHECK(create_reserved(w, other) == ERR_NOSPACE);
    CHECK(open_reserved(w, 2, &credits) && credits == BLOCKS_PER_EXTENT);
    CHECK(promised(w, &used) == WHOLE);
    CHECK(sw_write(w, ID, 2, 1, 0, 65536, 3) == 0);
    CHECK(promised(w, &used) == WHOLE - BLOCK_BYTES);

    CHECK(reserve(w, ID, 1, false) == ERR_STALE);
    CHECK(reserve(w, ID, 2, false) == 0 && promised(w, &thin_used) == 0);
    CHECK(thin_used == used - (WHOLE - BLOCK_BYTES) && !listed_reserved(w));
    CHECK(!open_reserved(w, 3, &credits) && credits == 2);
    CHECK(reserve(w, ID, 3, true) == 0);
    CHECK(promised(w, &used) == WHOLE - BLOCK_BYTES);

    CHECK(sw_start(w)); /* killed, and begins anew */
    CHECK(promised(w, &used) == WHOLE - BLOCK_BYTES && listed_reserved(w));
    CHECK(reserve(w, ID, 3, false) == ERR_NOT_OPEN);
    CHECK(open_reserved(w, 4, &credits) && credits == BLOCKS_PER_EXTENT - 1);
    CHECK(sw_create(w, other, 1) == 0 && sw_open(w, other, 2) == 0);
    CHECK(reserve(w, other, 2, true) == ERR_NOSPACE);
    CHECK(sw_read(w, ID, 4, 0, 65536) == 3);
    sw_close_clients(w);
    return 0;
}

static void test_server(void **state)
{
    struct server_world w;

    (void)state;
    sw_init(&w, 1, 1);
    sw_run(&w, story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_server)};

    log_threshold = LOG_LV_ERROR + 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
