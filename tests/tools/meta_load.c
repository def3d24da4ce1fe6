/* SPDX-License-Identifier: Apache-2.0
 *
 * A large cluster as its meta servers see it, without its disks: chunk servers that only register
 * and send heartbeats, one access session that takes leases, volumes of 1 TiB whose extents are
 * allocated and never written. Grows in stages; after each it prints one JSON line with what calls
 * cost then, and waits until the file DIR/<stage> exists, so that the caller can look at the
 * servers and restart them.
 *
 *   meta_load --meta ADDRS --dir DIR --stages EXTENTS[,EXTENTS…] [--chunks N] [--depth N]
 *             [--pids PID,PID,…] */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/base/err.h"
#include "common/base/hist.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/units.h"
#include "common/cluster/layout.h"
#include "common/cluster/meta_client.h"
#include "common/env/env_real.h"

#define STAGES_MAX     16u
#define CHUNKS_MAX     256u
#define PIDS_MAX       8u
#define SLOTS          4096u /* extents of a volume */
#define GRANT_SLOTS    64u
#define PROBES         200u
#define HOST_DISK      (256ull << 40)
#define POLL           (20 * NSEC_PER_MSEC)
#define STANDBYS_POLLS 15000u /* five minutes */

struct fake_chunk {
    struct load *load;
    uint32_t number, id;
    bool registered;
    uint32_t heartbeat_ms;
};

struct load {
    const char *meta, *dir;
    uint64_t stages[STAGES_MAX];
    uint32_t n_stages, n_chunks, depth;
    int pids[PIDS_MAX];
    uint32_t n_pids;
    struct meta_client *mc;
    struct fake_chunk chunks[CHUNKS_MAX];
    uint64_t session;
    uint32_t renew_ms;
    char cluster_id[64];
    struct co_group bg;
    uint64_t *volumes; /* ids */
    uint32_t n_volumes;
    uint64_t extents; /* allocated */
    uint64_t ticket, target;
    int rc;
    char why[256];
};

static void load_fail(struct load *l, int rc)
{
    if (l->rc == 0)
        snprintf(l->why, sizeof(l->why), "%s", err_text(rc));
    l->rc = rc;
}

/* ---- servers that are only talk ---- */

static int chunk_register(struct fake_chunk *c)
{
    Zbs__Meta__ChunkRegisterRequest rq = ZBS__META__CHUNK_REGISTER_REQUEST__INIT;
    Zbs__Chunk__Disk disk = ZBS__CHUNK__DISK__INIT, *disks[] = {&disk};
    uint8_t uuid[16] = {0xfa, (uint8_t)(c->number >> 8), (uint8_t)c->number};
    char host[32], addr[32];
    struct rpc_reply r;
    int rc;

    snprintf(host, sizeof(host), "far-%u", c->number);
    snprintf(addr, sizeof(addr), "127.0.0.1:%u", 20000 + c->number);
    disk.uuid = rq.uuid = (ProtobufCBinaryData){.data = uuid, .len = sizeof(uuid)};
    disk.path = (char *)"/dev/none";
    disk.size_bytes = HOST_DISK;
    rq.chunk_id = c->id;
    rq.incarnation = 1;
    rq.addr = addr;
    rq.host = host;
    rq.workers = 1;
    rq.disks = disks;
    rq.n_disks = 1;
    rq.cluster_id = c->load->cluster_id;
    rpc_reply_init(&r);
    rc = meta_call(c->load->mc, META_CHUNK_REGISTER, &rq.base, true, &r);
    if (rc == 0) {
        const Zbs__Meta__ChunkRegisterReply *a = (const void *)r.msg;

        c->id = a->chunk_id;
        c->heartbeat_ms = a->heartbeat_ms;
        snprintf(c->load->cluster_id, sizeof(c->load->cluster_id), "%s", a->cluster_id);
        c->registered = true;
    }
    rpc_reply_free(&r);
    return rc;
}

static int chunk_heartbeat(struct fake_chunk *c)
{
    Zbs__Meta__ChunkHeartbeatRequest rq = ZBS__META__CHUNK_HEARTBEAT_REQUEST__INIT;
    Zbs__Chunk__Disk disk = ZBS__CHUNK__DISK__INIT, *disks[] = {&disk};
    struct rpc_reply r;
    int rc;

    disk.path = (char *)"/dev/none";
    disk.size_bytes = HOST_DISK;
    rq.chunk_id = c->id;
    rq.incarnation = 1;
    rq.disks = disks;
    rq.n_disks = 1;
    rpc_reply_init(&r);
    rc = meta_call(c->load->mc, META_CHUNK_HEARTBEAT, &rq.base, true, &r);
    if (rc == 0 && ((const Zbs__Meta__ChunkHeartbeatReply *)(const void *)r.msg)->register_)
        c->registered = false;
    rpc_reply_free(&r);
    return rc;
}

static int chunk_main(void *arg)
{
    struct fake_chunk *c = arg;

    while (!co_canceled()) {
        nsec_t begin = co_now();
        int rc = c->registered ? chunk_heartbeat(c) : chunk_register(c);

        (void)co_sleep_until(begin + (rc < 0 ? POLL : c->heartbeat_ms * NSEC_PER_MSEC));
    }
    return 0;
}

static int session_open(struct load *l)
{
    Zbs__Meta__SessionOpenRequest rq = ZBS__META__SESSION_OPEN_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rq.name = (char *)"meta-load";
    rq.incarnation = 1;
    rq.addr = (char *)"127.0.0.1:19999";
    rq.host = (char *)"far-0";
    rpc_reply_init(&r);
    rc = meta_call(l->mc, META_SESSION_OPEN, &rq.base, true, &r);
    if (rc == 0) {
        const Zbs__Meta__SessionOpenReply *a = (const void *)r.msg;

        l->session = a->session_id;
        l->renew_ms = a->renew_ms;
    }
    rpc_reply_free(&r);
    return rc;
}

static int session_renew(struct load *l)
{
    Zbs__Meta__SessionRenewRequest rq = ZBS__META__SESSION_RENEW_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rq.session_id = l->session;
    rq.view_version = UINT64_MAX;
    rpc_reply_init(&r);
    rc = meta_call(l->mc, META_SESSION_RENEW, &rq.base, true, &r);
    rpc_reply_free(&r);
    return rc;
}

static int session_main(void *arg)
{
    struct load *l = arg;

    while (!co_canceled()) {
        nsec_t begin = co_now();
        int rc = session_renew(l);

        if (rc == ERR_EXPIRED) /* on a machine that is busy with other things */
            rc = session_open(l);
        (void)co_sleep_until(begin + (rc < 0 ? POLL : l->renew_ms * NSEC_PER_MSEC));
    }
    return 0;
}

/* ---- growing ---- */

static int pool_create(struct load *l)
{
    Zbs__Meta__PoolCreateRequest rq = ZBS__META__POOL_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(l->mc, &m);
    rq.mutation = &m;
    rq.name = (char *)"far";
    rq.replicas = 3;
    rpc_reply_init(&r);
    rc = meta_call(l->mc, META_POOL_CREATE, &rq.base, true, &r);
    rpc_reply_free(&r);
    return rc;
}

static int volume_create(struct load *l, uint32_t number)
{
    Zbs__Meta__VolumeCreateRequest rq = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    char name[32];
    struct rpc_reply r;
    int rc;

    snprintf(name, sizeof(name), "v%06u", number);
    meta_client_mutation(l->mc, &m);
    rq.mutation = &m;
    rq.pool = (char *)"far";
    rq.name = name;
    rq.size_bytes = (uint64_t)SLOTS * EXTENT_BYTES;
    rpc_reply_init(&r);
    rc = meta_call(l->mc, META_VOLUME_CREATE, &rq.base, true, &r);
    if (rc == 0)
        l->volumes[number] = ((const Zbs__Meta__Volume *)(const void *)r.msg)->id;
    rpc_reply_free(&r);
    return rc;
}

static int slots_ask(struct load *l, uint64_t first, uint32_t count)
{
    Zbs__Meta__LeaseAcquireRequest rq = ZBS__META__LEASE_ACQUIRE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(l->mc, &m);
    rq.mutation = &m;
    rq.session_id = l->session;
    rq.volume_id = l->volumes[first / SLOTS];
    rq.first_slot = (uint32_t)(first % SLOTS);
    rq.count = count;
    rq.allocate = true;
    rpc_reply_init(&r);
    rc = meta_call(l->mc, META_LEASE_ACQUIRE, &rq.base, true, &r);
    rpc_reply_free(&r);
    return rc;
}

static int slots_allocate(struct load *l, uint64_t first, uint32_t count)
{
    int rc = slots_ask(l, first, count);

    while (rc == ERR_EXPIRED && co_sleep(POLL) == 0)
        rc = slots_ask(l, first, count);
    return rc;
}

static int volumes_runner(void *arg)
{
    struct load *l = arg;

    while (l->rc == 0 && l->ticket < l->target) {
        int rc = volume_create(l, (uint32_t)l->ticket++);

        if (rc < 0)
            load_fail(l, rc);
    }
    return 0;
}

static int extents_runner(void *arg)
{
    struct load *l = arg;

    while (l->rc == 0 && l->ticket < l->target) {
        uint64_t first = l->ticket;
        uint32_t count =
            (uint32_t)MIN(MIN(l->target - first, GRANT_SLOTS - first % GRANT_SLOTS), GRANT_SLOTS);
        int rc;

        l->ticket += count;
        rc = slots_allocate(l, first, count);
        if (rc < 0)
            load_fail(l, rc);
    }
    return 0;
}

static double cpu_seconds(const struct load *l)
{
    double sum = 0;

    for (uint32_t i = 0; i < l->n_pids; i++) {
        char path[64], text[1024];
        const char *p;
        unsigned long user = 0, kernel = 0;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/stat", l->pids[i]);
        f = fopen(path, "r");
        if (f == NULL)
            continue;
        text[fread(text, 1, sizeof(text) - 1, f)] = 0;
        fclose(f);
        p = strrchr(text, ')');
        if (p != NULL && sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                                &kernel) == 2)
            sum += (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
    }
    return sum;
}

/* Log entries so far, as the leader tells; *ret_behind: meta servers that have not applied them. */
static uint64_t log_index(struct load *l, uint32_t *ret_behind)
{
    Zbs__Meta__ClusterStatusRequest rq = ZBS__META__CLUSTER_STATUS_REQUEST__INIT;
    struct rpc_reply r;
    uint64_t index = 0;

    *ret_behind = 0;
    rpc_reply_init(&r);
    if (meta_call(l->mc, META_CLUSTER_STATUS, &rq.base, true, &r) == 0) {
        const Zbs__Meta__ClusterStatusReply *a = (const void *)r.msg;

        for (size_t i = 0; i < a->n_metas; i++)
            index = MAX(index, a->metas[i]->applied);
        for (size_t i = 0; i < a->n_metas; i++)
            *ret_behind += a->metas[i]->applied + 2 < index; /* what is on its way does not count */
    }
    rpc_reply_free(&r);
    return index;
}

/* Standbys apply what a burst has left them; calls are measured afterwards. */
static void standbys_wait(struct load *l)
{
    uint32_t behind = 1;

    for (uint32_t i = 0; i < STANDBYS_POLLS && behind > 0; i++) {
        (void)co_sleep(POLL);
        (void)log_index(l, &behind);
    }
    if (behind > 0)
        load_fail(l, err_set(ERR_TIMEOUT, "meta servers stay behind the leader"));
}

/* Up to `target`, with `depth` requests at a time; prints what that was worth. */
static void burst(struct load *l, const char *what, int (*runner)(void *), uint64_t from,
                  uint64_t target, uint64_t requests)
{
    uint32_t behind;
    uint64_t index = log_index(l, &behind);
    double cpu = cpu_seconds(l);
    nsec_t begin = co_now(), took;
    struct co_group group;

    l->ticket = from;
    l->target = target;
    co_group_init(&group);
    for (uint32_t i = 0; i < l->depth; i++)
        co_spawn(&group, what, runner, l);
    (void)co_group_join(&group);
    took = MAX(co_now() - begin, 1);
    index = MAX(log_index(l, &behind) - index, 1ul);
    printf(", \"%s\": {\"per_s\": %.0f, \"requests_per_log_entry\": %.1f, \"cpu_us\": %.2f}", what,
           (double)(target - from) * NSEC_PER_SEC / (double)took, (double)requests / (double)index,
           (cpu_seconds(l) - cpu) * 1e6 / (double)(target - from));
}

/* ---- what a call costs now ---- */

static int one_heartbeat(struct load *l, uint32_t i)
{
    return chunk_heartbeat(&l->chunks[i % l->n_chunks]);
}

static int one_renewal(struct load *l, uint32_t i)
{
    (void)i;
    return session_renew(l);
}

static int one_placement(struct load *l, uint32_t i)
{
    (void)i;
    return slots_allocate(l, l->extents++, 1);
}

static int one_status(struct load *l, uint32_t i)
{
    uint32_t behind;

    (void)i;
    return log_index(l, &behind) > 0 ? 0 : ERR_AGAIN;
}

static void probe(struct load *l, const char *what, int (*call)(struct load *l, uint32_t i))
{
    double cpu = cpu_seconds(l);
    struct hist h;

    hist_init(&h);
    for (uint32_t i = 0; i < PROBES && l->rc == 0; i++) {
        nsec_t begin = co_now();
        int rc = call(l, i);

        if (rc < 0)
            load_fail(l, rc);
        hist_add(&h, (uint64_t)(co_now() - begin));
    }
    printf(", \"%s\": {\"p50_us\": %.1f, \"p99_us\": %.1f, \"cpu_us\": %.1f}", what,
           (double)hist_percentile(&h, 50) / 1e3, (double)hist_percentile(&h, 99) / 1e3,
           (cpu_seconds(l) - cpu) * 1e6 / PROBES);
}

static void stage_wait(const struct load *l, uint32_t stage)
{
    char *path = mem_printf("%s/%u", l->dir, stage);

    while (access(path, F_OK) != 0)
        (void)co_sleep(POLL);
    mem_free(path);
}

static int stages_run(struct load *l)
{
    uint64_t most = l->stages[l->n_stages - 1] + (uint64_t)PROBES * l->n_stages;
    uint32_t volumes = (uint32_t)DIV_UP(most, SLOTS);

    l->volumes = MEM_NEW_ARRAY(uint64_t, volumes);
    printf("{\"extents\": 0");
    burst(l, "volumes", volumes_runner, 0, volumes, volumes);
    printf("}\n");
    for (uint32_t i = 0; i < l->n_stages && l->rc == 0; i++) {
        uint64_t target = MAX(l->stages[i], l->extents);

        printf("{\"extents\": %" PRIu64, target);
        burst(l, "allocate", extents_runner, l->extents, target,
              DIV_UP(target - l->extents, GRANT_SLOTS));
        l->extents = target;
        standbys_wait(l);
        probe(l, "heartbeat", one_heartbeat);
        probe(l, "renewal", one_renewal);
        probe(l, "placement", one_placement);
        probe(l, "status", one_status);
        printf("}\n");
        fflush(stdout);
        stage_wait(l, i);
    }
    return l->rc < 0 ? err_set(l->rc, "%s", l->why) : 0;
}

static int load_main(void *arg)
{
    struct load *l = arg;
    int rc = 0;

    co_group_init(&l->bg);
    l->mc = meta_client_new(l->meta, "meta_load");
    for (uint32_t i = 0; i < l->n_chunks && rc == 0; i++) {
        l->chunks[i] = (struct fake_chunk){.load = l, .number = i, .heartbeat_ms = 250};
        rc = chunk_register(&l->chunks[i]);
        co_spawn(&l->bg, "chunk", chunk_main, &l->chunks[i]);
    }
    if (rc == 0)
        rc = session_open(l);
    if (rc == 0) {
        co_spawn(&l->bg, "session", session_main, l);
        rc = pool_create(l);
    }
    if (rc == 0)
        rc = stages_run(l);
    if (rc < 0)
        fprintf(stderr, "meta_load: %s\n", err_text(rc));
    co_group_cancel(&l->bg);
    (void)co_group_join(&l->bg);
    meta_client_close(l->mc);
    mem_free(l->volumes);
    return rc;
}

/* ---- options ---- */

static uint32_t numbers(const char *text, uint64_t *ret, uint32_t max)
{
    uint32_t n = 0;
    char *end;

    while (n < max && *text != 0) {
        ret[n++] = strtoull(text, &end, 10);
        if (end == text || (*end != 0 && *end != ','))
            return 0;
        text = *end == ',' ? end + 1 : end;
    }
    return n;
}

static bool options_parse(struct load *l, int argc, char **argv)
{
    static const struct option options[] = {
        {"meta", 1, NULL, 'm'},
        {"dir", 1, NULL, 'd'},
        {"stages", 1, NULL, 's'},
        {"chunks", 1, NULL, 'c'},
        {"depth", 1, NULL, 'q'},
        {"pids", 1, NULL, 'p'},
        {0},
    };
    uint64_t pids[PIDS_MAX];
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (o) {
        case 'm':
            l->meta = optarg;
            break;
        case 'd':
            l->dir = optarg;
            break;
        case 's':
            l->n_stages = numbers(optarg, l->stages, STAGES_MAX);
            break;
        case 'c':
            l->n_chunks = (uint32_t)atoi(optarg);
            break;
        case 'q':
            l->depth = (uint32_t)atoi(optarg);
            break;
        case 'p':
            l->n_pids = numbers(optarg, pids, PIDS_MAX);
            for (uint32_t i = 0; i < l->n_pids; i++)
                l->pids[i] = (int)pids[i];
            break;
        default:
            return false;
        }
    }
    return l->meta != NULL && l->dir != NULL && l->n_stages > 0 && l->n_chunks >= 3 &&
           l->n_chunks <= CHUNKS_MAX && l->depth >= 1;
}

int main(int argc, char **argv)
{
    static struct load l = {.n_chunks = 16, .depth = 256};
    struct env_real_conf env = {.name = "meta_load"};

    if (!options_parse(&l, argc, argv)) {
        fprintf(stderr, "usage: meta_load --meta ADDRS --dir DIR --stages N,N… [--chunks N] "
                        "[--depth N] [--pids PID,…]\n");
        return 2;
    }
    log_set_service("meta_load");
    return env_real_run(&env, load_main, &l) < 0 ? 1 : 0;
}
