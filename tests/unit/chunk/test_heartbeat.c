/* SPDX-License-Identifier: Apache-2.0
 *
 * The chunk server's session with meta, played by a stand-in: registration, identity on the
 * disks, garbage and its confirmation, registering again, a meta that is away. */
#include "chunk/chunkd.h"
#include "chunk/engine.h"
#include "common/base/log.h"
#include "common/cluster/layout.h"
#include "common/cluster/meta_client.h"
#include "common/rpc/rpc.h"
#include "proto/chunk.pb-c.h"
#include "proto/meta.pb-c.h"
#include "tests/unit/common/sim_fixture.h"

#define META_ADDR  "127.1.0.9:7100"
#define CHUNK_ADDR "127.1.0.1:7200"
#define DISK       "/dev/a"
#define WORKERS    2u
#define GARBAGE    5u /* an extent that was created and is to go */

struct world {
    struct sim *s;
    struct sim_proc *chunk, *meta;
    struct chunkd_conf conf;
    bool formatted, up;
    /* what the stand-in saw */
    uint32_t registered, heartbeats;
    uint32_t id_asked; /* in the last registration */
    char cluster_asked[64];
    bool forget;  /* answer the next heartbeat with "register" */
    bool garbage; /* name GARBAGE in every heartbeat until it is confirmed */
    bool confirmed;
    bool failed;         /* the disk */
    bool lost;           /* GARBAGE, in the last heartbeat */
    uint32_t disk_state; /* there */
    uint64_t size_bytes;
};

/* ---- the stand-in ---- */

static int meta_leader(struct rpc_request *q)
{
    Zbs__Meta__LeaderReply *r = (Zbs__Meta__LeaderReply *)q->reply;

    r->addr = rpc_strdup(q, META_ADDR);
    r->self = true;
    r->term = 3;
    return 0;
}

static int meta_register(struct rpc_request *q)
{
    const Zbs__Meta__ChunkRegisterRequest *m = (const Zbs__Meta__ChunkRegisterRequest *)q->msg;
    Zbs__Meta__ChunkRegisterReply *r = (Zbs__Meta__ChunkRegisterReply *)q->reply;
    struct world *w = q->ctx;

    CHECK(m->uuid.len == 16 && m->workers == WORKERS && strcmp(m->addr, CHUNK_ADDR) == 0);
    CHECK(m->n_disks == 1 && strcmp(m->host, "host-1") == 0 && m->incarnation != 0);
    w->registered++;
    w->id_asked = m->chunk_id;
    snprintf(w->cluster_asked, sizeof(w->cluster_asked), "%s", m->cluster_id);
    w->size_bytes = m->disks[0]->size_bytes;
    r->chunk_id = 7;
    r->cluster_id = rpc_strdup(q, "cluster-a");
    r->heartbeat_ms = 50;
    return 0;
}

static int meta_heartbeat(struct rpc_request *q)
{
    const Zbs__Meta__ChunkHeartbeatRequest *m = (const Zbs__Meta__ChunkHeartbeatRequest *)q->msg;
    Zbs__Meta__ChunkHeartbeatReply *r = (Zbs__Meta__ChunkHeartbeatReply *)q->reply;
    struct world *w = q->ctx;

    CHECK(m->chunk_id == 7 && m->n_disks == 1);
    CHECK(w->failed || m->n_lost_extents == 0);
    w->lost = false;
    for (size_t i = 0; i < m->n_lost_extents; i++)
        w->lost = w->lost || m->lost_extents[i] == GARBAGE;
    w->disk_state = m->disks[0]->state;
    w->heartbeats++;
    for (size_t i = 0; i < m->n_deleted_extents; i++)
        w->confirmed = w->confirmed || m->deleted_extents[i] == GARBAGE;
    r->register_ = w->forget;
    w->forget = false;
    r->term = 3;
    if (w->garbage && !w->confirmed) {
        r->deletes = rpc_alloc(q, sizeof(*r->deletes));
        r->deletes[0] = rpc_alloc(q, sizeof(**r->deletes));
        zbs__chunk__delete_item__init(r->deletes[0]);
        r->deletes[0]->extent_id = GARBAGE;
        r->deletes[0]->epoch = 9;
        r->n_deletes = 1;
    }
    return 0;
}

static int meta_main(void *arg)
{
    struct rpc_method methods[META_METHODS] = {
        [META_LEADER] = {.handler = meta_leader},
        [META_CHUNK_REGISTER] = {.handler = meta_register},
        [META_CHUNK_HEARTBEAT] = {.handler = meta_heartbeat},
    };
    struct rpc_service services[2] = {{&zbs__meta__meta__descriptor, methods, arg}};
    const struct rpc_service *table[] = {services};
    struct rpc_server_conf conf = {
        .addr = META_ADDR, .self = "meta-1", .cluster_id = "", .incarnation = 1, .services = table};
    struct rpc_server *server;

    CHECK(rpc_server_start(&conf, &server) == 0);
    while (co_sleep(NSEC_PER_SEC) == 0)
        ;
    rpc_server_stop(server);
    return 0;
}

/* ---- the chunk server ---- */

static void on_ready(void *arg, const char *addr)
{
    (void)addr;
    ((struct world *)arg)->up = true;
}

static int chunk_main(void *arg)
{
    struct world *w = arg;
    struct chunk_format_conf fc = {.workers = WORKERS};

    if (!w->formatted) {
        CHECK(chunk_format(DISK, &fc) == 0);
        w->formatted = true;
    }
    return chunkd_main(&w->conf);
}

static int identity_main(void *arg)
{
    struct super_block *sb = mem_alloc(sizeof(*sb));

    (void)arg;
    CHECK(super_read(DISK, sb) == 0);
    CHECK(sb->chunk_id == 7 && strcmp((char *)sb->cluster_id, "cluster-a") == 0);
    mem_free(sb);
    return 0;
}

static int create_one(uint64_t id)
{
    struct rpc_client_conf cc = {.addr = CHUNK_ADDR,
                                 .self = "tester",
                                 .cluster_id = "",
                                 .instance = extent_worker(id, WORKERS)};
    Zbs__Chunk__CreateItem item = ZBS__CHUNK__CREATE_ITEM__INIT, *items[] = {&item};
    Zbs__Chunk__CreateRequest req = ZBS__CHUNK__CREATE_REQUEST__INIT;
    struct rpc_client *c = rpc_client_new(&cc);
    struct rpc_reply r;
    int rc;

    item.extent_id = id;
    item.epoch = 9;
    req.items = items;
    req.n_items = 1;
    rpc_reply_init(&r);
    rc = rpc_call(c, &zbs__chunk__chunk__descriptor, 1, &req.base, NULL, &r);
    if (rc == 0)
        rc = ((Zbs__Chunk__CreateReply *)r.msg)->results[0]->rc;
    rpc_reply_free(&r);
    rpc_client_close(c);
    return rc;
}

static int create_garbage(void)
{
    return create_one(GARBAGE);
}

static void until(bool *flag)
{
    for (uint32_t i = 0; i < 100000 && !*flag; i++)
        (void)co_sleep(NSEC_PER_MSEC);
    CHECK(*flag);
}

static int story_main(void *arg)
{
    struct world *w = arg;
    uint32_t n;

    /* Meta is not there yet: the server serves, and keeps asking. */
    until(&w->up);
    CHECK(create_garbage() == 0);
    (void)co_sleep(3 * NSEC_PER_SEC);
    CHECK(w->registered == 0);
    sim_proc_start(w->meta, meta_main, w);
    while (w->heartbeats < 5)
        (void)co_sleep(NSEC_PER_MSEC);
    CHECK(w->registered == 1 && w->id_asked == 0 && w->cluster_asked[0] == 0);
    w->garbage = true;
    until(&w->confirmed);
    w->forget = true;
    while (w->registered < 2)
        (void)co_sleep(NSEC_PER_MSEC);
    CHECK(w->id_asked == 7 && strcmp(w->cluster_asked, "cluster-a") == 0);
    /* Its identity outlives it. */
    w->up = false;
    sim_proc_power_loss(w->chunk);
    sim_proc_start(w->chunk, chunk_main, w);
    while (w->registered < 3)
        (void)co_sleep(NSEC_PER_MSEC);
    CHECK(w->id_asked == 7);
    /* Meta comes and goes. */
    sim_proc_crash(w->meta);
    (void)co_sleep(2 * NSEC_PER_SEC);
    sim_proc_start(w->meta, meta_main, w);
    n = w->heartbeats;
    while (w->heartbeats < n + 3)
        (void)co_sleep(NSEC_PER_MSEC);
    /* Replicas on a disk that fails are told as lost. */
    CHECK(create_garbage() == 0);
    w->failed = true;
    sim_disk_fail(w->chunk, DISK, true);
    CHECK(create_one(GARBAGE + WORKERS) == ERR_IO);
    while (!w->lost || w->disk_state != DISK_FAILED)
        (void)co_sleep(NSEC_PER_MSEC);
    CHECK(create_garbage() == ERR_IO);
    sim_disk_fail(w->chunk, DISK, false);
    return 0;
}

static bool over(void *arg)
{
    return sim_control_running(arg) == 0;
}

static void test_session(void **state)
{
    struct world w = {.s = world_new(1)};

    (void)state;
    w.chunk = sim_proc_new(w.s, HOST_A, "chunk");
    w.meta = sim_proc_new(w.s, "127.1.0.9", "meta");
    sim_disk_create(w.chunk, DISK, 128 << 20);
    w.conf = (struct chunkd_conf){.listen = CHUNK_ADDR,
                                  .meta = META_ADDR,
                                  .host = "host-1",
                                  .disks = {DISK},
                                  .n_disks = 1,
                                  .ready = on_ready,
                                  .ready_arg = &w};
    sim_proc_start(w.chunk, chunk_main, &w);
    sim_control(w.s, HOST_B, "story", story_main, &w);
    assert_true(sim_run_until(w.s, over, w.s, SEC(1000)));
    assert_null(sim_proc_halted(w.chunk));
    sim_proc_stop(w.chunk);
    assert_int_equal(sim_proc_result(w.chunk), 0);
    assert_int_equal(proc_run(w.s, w.chunk, identity_main, NULL), 0);
    assert_true(w.size_bytes > 64 << 20);
    sim_free(w.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_session),
    };

    log_threshold = LOG_LV_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
