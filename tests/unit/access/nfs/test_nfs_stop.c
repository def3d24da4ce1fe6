/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of an NFS server: while its files tell meta what they owe, the session may expire and
 * status be asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include "access/nfs/nfs.h"
#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/env/env.h"
#include "tests/lib/frontworld.h"

static struct nfs_server *server;
static uint32_t calls, during_end;
static bool ending;

/* ---- a back end that does not answer ---- */

static co_fn int no_call(void *arg, enum meta_method method, const ProtobufCMessage *rq,
                         struct rpc_reply *r)
{
    (void)arg;
    (void)method;
    (void)rq;
    (void)r;
    calls++;
    (void)co_sleep(NSEC_PER_SEC);
    return ERR_TIMEOUT;
}

static void no_mutation(void *arg, Zbs__Meta__Mutation *ret)
{
    (void)arg;
    zbs__meta__mutation__init(ret);
}

static uint64_t session(void *arg)
{
    (void)arg;
    return 1;
}

/* ---- what comes at any time ---- */

static void client_seen(void *arg, const struct onc_client_view *v)
{
    (void)arg;
    (void)v;
}

static co_fn int meddle(void *arg)
{
    (void)arg;
    for (uint32_t n = 1; (n % 16 ? co_yield () : co_sleep(NSEC_PER_USEC)) == 0; n++) {
        during_end += ending;
        nfs_server_drop(server, "the session with meta expired");
        nfs_server_clients(server, client_seen, NULL);
        nfs_server_recalled(server, 7, 1);
        nfs_server_volume_changed(server, 7);
    }
    return 0;
}

static int stop_main(void *arg)
{
    const struct nfs_conf conf = {
        .listen = FRONT_HOST ":2049",
        .cluster_id = "c",
        .backend = {.call = no_call, .mutation = no_mutation, .session = session}};
    struct co_group group;

    (void)arg;
    ASSERT(nfs_server_start(&conf, &server) == 0);
    co_group_init(&group);
    nfs_server_recalled(server, 7, 1); /* there is something to be told */
    (void)co_sleep(NSEC_PER_MSEC);
    co_spawn(&group, "meddle", meddle, NULL);
    ending = true;
    nfs_server_stop(server);
    ending = false;
    co_group_cancel(&group);
    (void)co_group_join(&group);
    return 0;
}

static void what_comes_while_it_ends_does_no_harm(void **state)
{
    (void)state;
    frontworld_run(1, stop_main, NULL);
    assert_true(calls > 0);
    assert_true(during_end > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_while_it_ends_does_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
