/* SPDX-License-Identifier: Apache-2.0
 *
 * Finds the meta leader and calls it: see meta_client.h. All addresses are asked at once who
 * leads; the first that says "I do" is called. Calls of one client share the search. */
#include "common/cluster/meta_client.h"

#include <stdio.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/co/sync.h"
#include "common/env/env.h"

#define ADDRS_MAX    16u
#define CALL_TIME    (5 * NSEC_PER_SEC)    /* without a deadline */
#define ATTEMPT_TIME NSEC_PER_SEC          /* of one call */
#define ASK_TIME     (300 * NSEC_PER_MSEC) /* of one question who leads */
#define BACKOFF_MIN  (10 * NSEC_PER_MSEC)
#define BACKOFF_MAX  (200 * NSEC_PER_MSEC)

struct candidate {
    struct meta_client *mc;
    char *addr;
    struct rpc_client *client;
};

struct meta_client {
    struct candidate candidates[ADDRS_MAX];
    uint32_t n;
    int32_t leader; /* index; -1: not known */
    uint64_t client_id, next_number;
    bool asking;
    struct co_cond asked;
};

struct meta_client *meta_client_new(const char *addrs, const char *self)
{
    struct meta_client *mc = MEM_NEW(struct meta_client);
    char *list = mem_strdup(addrs), *save = NULL;

    for (char *a = strtok_r(list, ", \t", &save); a != NULL && mc->n < ADDRS_MAX;
         a = strtok_r(NULL, ", \t", &save)) {
        struct candidate *c = &mc->candidates[mc->n++];
        struct rpc_client_conf conf = {
            .addr = a, .self = self, .cluster_id = "", .connect_timeout = ASK_TIME};

        c->mc = mc;
        c->addr = mem_strdup(a);
        c->client = rpc_client_new(&conf);
    }
    mem_free(list);
    mc->leader = -1;
    mc->client_id = env_random() | 1;
    mc->next_number = 1;
    co_cond_init(&mc->asked);
    return mc;
}

co_fn void meta_client_close(struct meta_client *mc)
{
    for (uint32_t i = 0; i < mc->n; i++) {
        rpc_client_close(mc->candidates[i].client);
        mem_free(mc->candidates[i].addr);
    }
    mem_free(mc);
}

void meta_client_mutation(struct meta_client *mc, Zbs__Meta__Mutation *m)
{
    zbs__meta__mutation__init(m);
    m->client = mc->client_id;
    m->number = mc->next_number++;
}

const char *meta_client_leader(const struct meta_client *mc)
{
    return mc->leader < 0 ? "" : mc->candidates[mc->leader].addr;
}

/* ---- who leads ---- */

static co_fn int ask_main(void *arg)
{
    struct candidate *c = arg;
    struct meta_client *mc = c->mc;
    Zbs__Meta__LeaderRequest rq = ZBS__META__LEADER_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rpc_reply_init(&r);
    rc = rpc_call(c->client, &zbs__meta__meta__descriptor, META_LEADER, &rq.base, NULL, &r);
    if (rc == 0 && ((const Zbs__Meta__LeaderReply *)r.msg)->self && mc->leader < 0) {
        mc->leader = (int32_t)(c - mc->candidates);
        co_cond_broadcast(&mc->asked);
    }
    rpc_reply_free(&r);
    return 0;
}

/* One round of asking; whoever comes meanwhile waits for its outcome. Ends with the first that
 * leads: the silent ones are not waited for. */
static co_fn int ask_all(struct meta_client *mc)
{
    struct co_group group;
    nsec_t former;
    int rc = 0;

    if (mc->asking)
        return co_cond_wait(&mc->asked);
    mc->asking = true;
    former = co_deadline_push(co_now() + ASK_TIME);
    co_group_init(&group);
    for (uint32_t i = 0; i < mc->n; i++)
        co_spawn(&group, "who leads", ask_main, &mc->candidates[i]);
    while (mc->leader < 0 && group.count > 0 && rc == 0) {
        nsec_t step = co_deadline_push(co_now() + BACKOFF_MIN);

        rc = co_cond_wait(&mc->asked);
        co_deadline_restore(step);
        if (rc == ERR_TIMEOUT && co_now() < co_deadline())
            rc = 0; /* only the step was over: is anybody still asking? */
    }
    (void)co_group_close(&group);
    co_deadline_restore(former);
    mc->asking = false;
    co_cond_broadcast(&mc->asked);
    return rc == ERR_CANCELED ? rc : 0;
}

/* ---- calls ---- */

static bool worth_repeating(int rc, const struct rpc_reply *r, bool repeat)
{
    if (r->answered)
        return rc == ERR_NOT_LEADER || rc == ERR_AGAIN || (rc == ERR_TIMEOUT && repeat);
    if (rc == ERR_UNREACHABLE)
        return true;
    return repeat && (rc == ERR_CLOSED || rc == ERR_TIMEOUT);
}

static co_fn int attempt(struct meta_client *mc, enum meta_method method,
                         const ProtobufCMessage *request, struct rpc_reply *r)
{
    int32_t leader = mc->leader;
    nsec_t former = co_deadline_push(co_now() + ATTEMPT_TIME);
    int rc = rpc_call(mc->candidates[leader].client, &zbs__meta__meta__descriptor, method, request,
                      NULL, r);

    co_deadline_restore(former);
    if (rc < 0 && (!r->answered || rc == ERR_NOT_LEADER) && mc->leader == leader)
        mc->leader = -1;
    return rc;
}

static co_fn int meta_call_loop(struct meta_client *mc, enum meta_method method,
                                const ProtobufCMessage *request, bool repeat, struct rpc_reply *r)
{
    nsec_t backoff = BACKOFF_MIN;
    int rc;

    for (;;) {
        char text[256];
        int wait_rc = 0;

        if (mc->leader < 0)
            wait_rc = ask_all(mc);
        if (wait_rc < 0)
            return wait_rc;
        if (mc->leader >= 0) {
            rpc_reply_free(r);
            rc = attempt(mc, method, request, r);
            if (rc == 0 || !worth_repeating(rc, r, repeat) || co_now() >= co_deadline())
                return rc;
        } else {
            rc = err_set(ERR_UNREACHABLE, "no meta server answers as the leader");
        }
        snprintf(text, sizeof(text), "%s", err_text(rc));
        wait_rc = co_sleep(backoff / 2 + (nsec_t)(env_random() % (uint64_t)backoff));
        backoff = MIN(backoff * 2, BACKOFF_MAX);
        if (wait_rc == ERR_CANCELED)
            return wait_rc;
        if (wait_rc < 0 || co_now() >= co_deadline())
            return err_set(rc, "%s", text);
    }
}

co_fn int meta_call(struct meta_client *mc, enum meta_method method,
                    const ProtobufCMessage *request, bool repeat, struct rpc_reply *r)
{
    nsec_t former = co_deadline();
    int rc;

    ASSERT(method < META_METHODS);
    if (mc->n == 0)
        return err_set(ERR_INVAL, "no addresses of meta servers are configured");
    if (former == NSEC_NEVER)
        (void)co_deadline_push(co_now() + CALL_TIME);
    rc = meta_call_loop(mc, method, request, repeat, r);
    co_deadline_restore(former);
    return rc;
}
