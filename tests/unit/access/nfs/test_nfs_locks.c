/* SPDX-License-Identifier: Apache-2.0
 *
 * Locks of files (NLM version 4) through real access servers to real meta servers, and what frees
 * them: owners, clients that restart, clients that give up waiting. */
#include "tests/unit/access/nfs/nfs_world.h"

enum { TEST = 1, LOCK = 2, CANCEL = 3, UNLOCK = 4, SHARE_FILE = 20, FREE_ALL = 23 };
enum { GRANTED = 0, DENIED = 1, NO_LOCKS = 2, BLOCKED = 3, STALE_FH = 7 };

struct range {
    const char *client, *owner;
    uint64_t off, len;
    bool exclusive;
};

/* ---- a client ---- */

static void put_cookie(struct xdr_out *out)
{
    xdr_put_opaque(out, "cookie!", 7);
}

static void put_lock(struct xdr_out *out, const struct nh *h, const struct range *r)
{
    xdr_put_string(out, r->client);
    xdr_put_opaque(out, h->bytes, h->len);
    xdr_put_string(out, r->owner);
    xdr_put_u32(out, 42);
    xdr_put_u64(out, r->off);
    xdr_put_u64(out, r->len);
}

static void begin_lock(struct nfs_client *c, struct xdr_out *out, const struct nh *h,
                       const struct range *r, bool block)
{
    onc_begin(&c->onc, out, NLM_PROGRAM, NLM_V4, LOCK);
    put_cookie(out);
    xdr_put_bool(out, block);
    xdr_put_bool(out, r->exclusive);
    put_lock(out, h, r);
    xdr_put_bool(out, false);
    xdr_put_u32(out, 3);
}

/* The status behind the cookie; what else there is stays in the answer. */
static uint32_t take_status(struct onc_answer *a)
{
    uint32_t len;
    const uint8_t *cookie = xdr_opaque(&a->in, 100, &len);

    CHECK(cookie != NULL && len == 7 && memcmp(cookie, "cookie!", 7) == 0);
    return xdr_u32(&a->in);
}

static co_fn uint32_t ask(struct nfs_client *c, struct xdr_out *out)
{
    struct onc_answer a;
    uint32_t status;

    onc_ask(&c->onc, out, &a);
    status = take_status(&a);
    CHECK(!a.in.bad);
    onc_answer_free(&a);
    return status;
}

static co_fn uint32_t lock(struct nfs_client *c, const struct nh *h, const struct range *r,
                           bool block)
{
    struct xdr_out out;

    begin_lock(c, &out, h, r, block);
    return ask(c, &out);
}

static co_fn uint32_t unlock(struct nfs_client *c, const struct nh *h, const struct range *r)
{
    struct xdr_out out;

    onc_begin(&c->onc, &out, NLM_PROGRAM, NLM_V4, UNLOCK);
    put_cookie(&out);
    put_lock(&out, h, r);
    return ask(c, &out);
}

static co_fn uint32_t cancel(struct nfs_client *c, const struct nh *h, const struct range *r)
{
    struct xdr_out out;

    onc_begin(&c->onc, &out, NLM_PROGRAM, NLM_V4, CANCEL);
    put_cookie(&out);
    xdr_put_bool(&out, true);
    xdr_put_bool(&out, r->exclusive);
    put_lock(&out, h, r);
    return ask(c, &out);
}

/* GRANTED, or DENIED by a lock of this owner at this offset. */
static co_fn void expect_holder(struct nfs_client *c, const struct nh *h, const struct range *r,
                                const struct range *holder)
{
    struct onc_answer a;
    struct xdr_out out;
    const uint8_t *owner;
    uint32_t len;

    onc_begin(&c->onc, &out, NLM_PROGRAM, NLM_V4, TEST);
    put_cookie(&out);
    xdr_put_bool(&out, r->exclusive);
    put_lock(&out, h, r);
    onc_ask(&c->onc, &out, &a);
    CHECK(take_status(&a) == (holder != NULL ? DENIED : GRANTED));
    if (holder != NULL) {
        CHECK(xdr_bool(&a.in) == holder->exclusive && xdr_u32(&a.in) == 42);
        owner = xdr_opaque(&a.in, 1024, &len);
        CHECK(owner != NULL && len == strlen(holder->owner));
        CHECK(memcmp(owner, holder->owner, len) == 0);
        CHECK(xdr_u64(&a.in) == holder->off && xdr_u64(&a.in) == holder->len);
    }
    CHECK(!a.in.bad && a.in.left == 0);
    onc_answer_free(&a);
}

/* ---- ranges and owners ---- */

static const struct range first = {"one.example", "first", 0, 100, true},
                          second = {"two.example", "second", 50, 100, true},
                          reader = {"two.example", "reader", 1000, 0, false},
                          other_reader = {"one.example", "other", 1500, 10, false};

static int ranges_script(struct vworld *w)
{
    struct nfs_client a, b;
    struct nh root, file;

    share_begin(w);
    client_open(&a, 0, 0, &root);
    client_open(&b, 1, 0, &root);
    OK(nfs_do_create(&a, &root, "file", CREATE_GUARDED, NSET_MODE(0644), 0, &file));
    CHECK(lock(&a, &file, &first, false) == GRANTED);
    CHECK(lock(&a, &file, &first, false) == GRANTED); /* its own */
    CHECK(lock(&b, &file, &second, false) == DENIED); /* through another access server */
    expect_holder(&b, &file, &second, &first);
    CHECK(lock(&b, &file, &reader, false) == GRANTED);
    CHECK(lock(&a, &file, &other_reader, false) == GRANTED);
    CHECK(unlock(&a, &file, &first) == GRANTED);
    expect_holder(&a, &file, &second, NULL);
    CHECK(lock(&b, &file, &second, false) == GRANTED);
    CHECK(lock(&a, &file, &first, false) == DENIED);
    OK(nfs_do_remove(&a, &root, "file"));
    CHECK(lock(&a, &file, &first, false) == STALE_FH);
    nfs_close(&a);
    nfs_close(&b);
    return 0;
}

static void locks_are_the_same_everywhere(void **state)
{
    (void)state;
    run_script(ranges_script);
}

/* ---- the client's services, which the server calls ---- */

#define CLIENT_NLM_PORT 4045

static struct {
    char host[64];
    struct onc_server *portmap, *nlm;
    struct onc_udp *portmap_udp, *nlm_udp;
    uint32_t asked, called;          /* the portmapper; the lock manager */
    enum onc_accept (*answer)(void); /* to a call */
    uint32_t status;                 /* of a lock that is granted */
    uint64_t off, len;               /* of the last one */
    bool exclusive;
} client;

static co_fn enum onc_accept on_getport(struct onc_call *call)
{
    uint32_t program = xdr_u32(&call->args), version = xdr_u32(&call->args);
    uint32_t protocol = xdr_u32(&call->args);
    bool there = protocol == PORTMAP_TCP ? client.nlm != NULL : client.nlm_udp != NULL;

    CHECK(program == NLM_PROGRAM && version == NLM_V4);
    client.asked++;
    xdr_put_u32(&call->out, there ? CLIENT_NLM_PORT : 0);
    return ONC_SUCCESS;
}

static co_fn enum onc_accept on_granted(struct onc_call *call)
{
    uint32_t len;
    const uint8_t *cookie = xdr_opaque(&call->args, 32, &len);

    xdr_put_opaque(&call->out, cookie, len);
    client.exclusive = xdr_bool(&call->args);
    CHECK(xdr_opaque(&call->args, 1024, &len) != NULL);            /* client */
    CHECK(xdr_opaque(&call->args, 64, &len) != NULL && len == 32); /* handle */
    CHECK(xdr_opaque(&call->args, 1024, &len) != NULL);            /* owner */
    CHECK(xdr_u32(&call->args) == 42);
    client.off = xdr_u64(&call->args);
    client.len = xdr_u64(&call->args);
    CHECK(!call->args.bad && call->args.left == 0);
    CHECK(strncmp(onc_call_peer(call), "127.1.0.", 8) == 0);
    client.called++;
    xdr_put_u32(&call->out, client.status);
    return client.answer != NULL ? client.answer() : ONC_SUCCESS;
}

static const struct onc_procedure portmap_procedures[] = {
    [PORTMAP_NULL] = {.name = "NULL"},
    [PORTMAP_GETPORT] = {.name = "GETPORT", .handler = on_getport},
};
static const struct onc_procedure nlm_procedures[] = {
    [0] = {.name = "NULL"},
    [5] = {.name = "GRANTED", .handler = on_granted},
};
static const struct onc_program portmap_program = {
    PORTMAP_PROGRAM, PORTMAP_V2, "portmap", portmap_procedures, ARRAY_SIZE(portmap_procedures)};
static const struct onc_program nlm_program = {NLM_PROGRAM, NLM_V4, "nlm", nlm_procedures,
                                               ARRAY_SIZE(nlm_procedures)};
static const struct onc_program *const portmap_programs[] = {&portmap_program, NULL},
                                       *const nlm_programs[] = {&nlm_program, NULL};

static co_fn void listen_at(uint32_t port, bool udp, const struct onc_program *const *programs,
                            struct onc_server **tcp_server, struct onc_udp **udp_server)
{
    char addr[NET_ADDR_MAX];
    struct onc_conf conf = {.listen = addr, .name = "client", .programs = programs};

    snprintf(addr, sizeof(addr), "%s:%u", client.host, port);
    CHECK((udp ? onc_udp_start(&conf, udp_server) : onc_server_start(&conf, tcp_server)) == 0);
}

/* Of the host that the connection comes from. */
static co_fn void services_begin(const struct nfs_client *c, bool udp)
{
    memset(&client, 0, sizeof(client));
    snprintf(client.host, sizeof(client.host), "%.*s",
             (int)(strchr(net_local(c->onc.net), ':') - net_local(c->onc.net)),
             net_local(c->onc.net));
    listen_at(111, udp, portmap_programs, &client.portmap, &client.portmap_udp);
    listen_at(CLIENT_NLM_PORT, udp, nlm_programs, &client.nlm, &client.nlm_udp);
}

static co_fn void services_end(void)
{
    if (client.portmap != NULL)
        onc_server_stop(client.portmap);
    if (client.nlm != NULL)
        onc_server_stop(client.nlm);
    if (client.portmap_udp != NULL)
        onc_udp_stop(client.portmap_udp);
    if (client.nlm_udp != NULL)
        onc_udp_stop(client.nlm_udp);
}

static co_fn void called_within(uint32_t times, nsec_t span)
{
    nsec_t until = co_now() + span;

    while (client.called < times) {
        CHECK(co_now() < until);
        CHECK(co_sleep(NSEC_PER_MSEC) == 0);
    }
    CHECK(client.called == times);
}

/* Nobody has it, or will have it, without being asked. */
static co_fn void expect_free(struct nfs_client *c, const struct nh *h, const struct range *r)
{
    for (int i = 0; i < 20; i++) {
        if (i > 10)
            expect_holder(c, h, r, NULL);
        CHECK(co_sleep(500 * NSEC_PER_MSEC) == 0);
    }
}

/* ---- waiting ---- */

static struct nfs_client one, two; /* through different access servers */
static struct nh waited;

static co_fn void waiting_begin(struct vworld *w, bool udp)
{
    struct nh root;

    share_begin(w);
    client_open(&one, 0, 0, &root);
    client_open(&two, 1, 0, &root);
    OK(nfs_do_create(&one, &root, "file", CREATE_GUARDED, NSET_MODE(0644), 0, &waited));
    services_begin(&one, udp);
    client.status = GRANTED;
    CHECK(lock(&one, &waited, &first, false) == GRANTED);
    CHECK(lock(&two, &waited, &second, true) == BLOCKED);
}

static co_fn int waiting_end(void)
{
    nfs_close(&one);
    nfs_close(&two);
    services_end();
    return 0;
}

static co_fn int granted(struct vworld *w, bool udp)
{
    nsec_t since;

    waiting_begin(w, udp);
    CHECK(co_sleep(5 * NSEC_PER_SEC) == 0 && client.called == 0);
    expect_holder(&two, &waited, &second, &first);
    CHECK(unlock(&one, &waited, &first) == GRANTED);
    called_within(1, 2 * NSEC_PER_SEC);
    CHECK(client.off == second.off && client.len == second.len && client.exclusive);
    expect_holder(&one, &waited, &first, &second);
    CHECK(lock(&two, &waited, &second, true) == GRANTED); /* the client asks again nevertheless */
    CHECK(lock(&one, &waited, &first, true) == BLOCKED);
    CHECK(lock(&one, &waited, &first, true) == BLOCKED); /* the same one */
    since = co_now();
    CHECK(unlock(&two, &waited, &second) == GRANTED);
    called_within(2, 2 * NSEC_PER_SEC);
    CHECK(co_now() - since < 2 * NSEC_PER_SEC);
    CHECK(co_sleep(5 * NSEC_PER_SEC) == 0 && client.called == 2);
    expect_holder(&two, &waited, &second, &first);
    return waiting_end();
}

static int granted_script(struct vworld *w)
{
    return granted(w, false);
}

static int granted_udp_script(struct vworld *w)
{
    return granted(w, true);
}

static void a_lock_is_granted_later(void **state)
{
    (void)state;
    run_script(granted_script);
}

static void a_lock_is_granted_over_udp(void **state)
{
    (void)state;
    run_script(granted_udp_script);
}

static enum onc_accept no_answer(void)
{
    return ONC_DROPPED;
}

static int refused_script(struct vworld *w)
{
    waiting_begin(w, false);
    client.status = DENIED;
    CHECK(unlock(&one, &waited, &first) == GRANTED);
    called_within(1, 2 * NSEC_PER_SEC);
    expect_free(&one, &waited, &first);
    CHECK(client.called == 1);

    CHECK(lock(&one, &waited, &first, false) == GRANTED);
    CHECK(lock(&two, &waited, &second, true) == BLOCKED);
    client.answer = no_answer;
    CHECK(unlock(&one, &waited, &first) == GRANTED);
    called_within(2, 2 * NSEC_PER_SEC);
    expect_holder(&one, &waited, &first, &second); /* until it had time to answer */
    expect_free(&one, &waited, &first);
    CHECK(client.called == 2);

    CHECK(lock(&one, &waited, &first, false) == GRANTED);
    services_end(); /* it can't be called */
    client.portmap = client.nlm = NULL;
    CHECK(lock(&two, &waited, &second, true) == BLOCKED);
    CHECK(co_sleep(20 * NSEC_PER_SEC) == 0);
    CHECK(unlock(&one, &waited, &first) == GRANTED);
    expect_free(&one, &waited, &first);
    return waiting_end();
}

static void a_lock_that_is_not_taken_is_free(void **state)
{
    (void)state;
    run_script(refused_script);
}

/* While it waits, and while the client is asked whether it takes it. */
static int given_up_script(struct vworld *w)
{
    waiting_begin(w, false);
    CHECK(cancel(&two, &waited, &second) == GRANTED);
    CHECK(unlock(&one, &waited, &first) == GRANTED);
    expect_free(&one, &waited, &first);
    CHECK(client.called == 0);
    CHECK(cancel(&two, &waited, &second) == GRANTED); /* there is nothing to cancel */

    client.answer = no_answer;
    CHECK(lock(&one, &waited, &first, false) == GRANTED);
    CHECK(lock(&two, &waited, &second, true) == BLOCKED);
    CHECK(unlock(&one, &waited, &first) == GRANTED);
    called_within(1, 2 * NSEC_PER_SEC);
    CHECK(cancel(&two, &waited, &second) == GRANTED);
    expect_holder(&one, &waited, &first, NULL);

    CHECK(lock(&one, &waited, &first, false) == GRANTED);
    CHECK(lock(&two, &waited, &second, true) == BLOCKED);
    CHECK(unlock(&one, &waited, &first) == GRANTED);
    called_within(2, 2 * NSEC_PER_SEC);
    CHECK(lock(&two, &waited, &second, true) == GRANTED); /* it has heard of it in this way */
    CHECK(co_sleep(10 * NSEC_PER_SEC) == 0);
    expect_holder(&one, &waited, &first, &second);
    CHECK(unlock(&two, &waited, &second) == GRANTED);

    CHECK(lock(&one, &waited, &first, false) == GRANTED); /* its process ends */
    CHECK(lock(&two, &waited, &second, true) == BLOCKED);
    CHECK(unlock(&two, &waited, &(struct range){second.client, second.owner, 0, 0, true}) ==
          GRANTED);
    CHECK(unlock(&one, &waited, &first) == GRANTED);
    expect_free(&one, &waited, &first);
    CHECK(client.called == 2);
    return waiting_end();
}

static void a_lock_that_is_given_up_is_not_granted(void **state)
{
    (void)state;
    run_script(given_up_script);
}

/* What the owner has there already must survive whatever becomes of the wait. */
static int upgrade_script(struct vworld *w)
{
    struct range shared = second, other = first;

    shared.exclusive = other.exclusive = false;
    waiting_begin(w, false);
    CHECK(cancel(&two, &waited, &second) == GRANTED);
    CHECK(unlock(&one, &waited, &first) == GRANTED);
    client.status = DENIED;
    CHECK(lock(&one, &waited, &other, false) == GRANTED);
    CHECK(lock(&two, &waited, &shared, false) == GRANTED);
    CHECK(lock(&two, &waited, &second, true) == BLOCKED);
    CHECK(unlock(&one, &waited, &other) == GRANTED);
    CHECK(co_sleep(5 * NSEC_PER_SEC) == 0 && client.called == 0);
    expect_holder(&one, &waited, &first, &shared);
    CHECK(lock(&two, &waited, &second, true) == GRANTED);
    return waiting_end();
}

static void a_lock_is_not_lost_by_waiting_for_a_better_one(void **state)
{
    (void)state;
    run_script(upgrade_script);
}

static co_fn void notify(struct nfs_client *c, const char *name);

static int bounds_script(struct vworld *w)
{
    struct range r = {second.client, second.owner, 0, 1, true};
    uint32_t blocked = 0, status;

    waiting_begin(w, false);
    while ((status = lock(&two, &waited, &r, true)) == BLOCKED) {
        r.owner = blocked++ % 2 == 0 ? "even" : "odd";
        r.off = blocked;
        CHECK(blocked < 100);
    }
    CHECK(status == NO_LOCKS && blocked == 63);
    notify(&one, second.client); /* the other server */
    notify(&two, second.client);
    CHECK(lock(&two, &waited, &r, true) == BLOCKED);
    notify(&two, second.client);
    CHECK(unlock(&one, &waited, &first) == GRANTED);
    expect_free(&one, &waited, &first);
    CHECK(client.called == 0);
    return waiting_end();
}

static void a_client_waits_for_so_many(void **state)
{
    (void)state;
    run_script(bounds_script);
}

/* ---- clients that restart ---- */

static co_fn void notify(struct nfs_client *c, const char *name)
{
    struct onc_answer a;
    struct xdr_out out;

    onc_begin(&c->onc, &out, NSM_PROGRAM, NSM_V1, 6);
    xdr_put_string(&out, name);
    xdr_put_u32(&out, 5);
    onc_ask(&c->onc, &out, &a);
    CHECK(!a.in.bad && a.in.left == 0);
    onc_answer_free(&a);
}

static int restart_script(struct vworld *w)
{
    struct nfs_client a, b;
    struct nh root, file;
    struct onc_answer answer;
    struct xdr_out out;

    share_begin(w);
    client_open(&a, 0, 0, &root);
    client_open(&b, 1, 0, &root);
    OK(nfs_do_create(&a, &root, "file", CREATE_GUARDED, NSET_MODE(0644), 0, &file));
    CHECK(lock(&a, &file, &first, false) == GRANTED);
    notify(&b, "nobody.example");
    CHECK(lock(&b, &file, &second, false) == DENIED);
    notify(&b, first.client);
    CHECK(lock(&b, &file, &second, false) == GRANTED);
    onc_begin(&a.onc, &out, NLM_PROGRAM, NLM_V4, FREE_ALL);
    xdr_put_string(&out, second.client);
    xdr_put_u32(&out, 7);
    onc_ask(&a.onc, &out, &answer);
    onc_answer_free(&answer);
    CHECK(lock(&a, &file, &first, false) == GRANTED);
    onc_begin(&a.onc, &out, NLM_PROGRAM, NLM_V4, SHARE_FILE);
    put_cookie(&out);
    CHECK(ask(&a, &out) == NO_LOCKS);
    nfs_close(&a);
    nfs_close(&b);
    return 0;
}

static void a_client_that_restarts_loses_its_locks(void **state)
{
    (void)state;
    run_script(restart_script);
}

/* ---- nonsense ---- */

static int bad_script(struct vworld *w)
{
    struct nfs_client c;
    struct onc_answer a;
    struct xdr_out out;
    struct nh root;

    share_begin(w);
    client_open(&c, 0, 0, &root);
    for (uint32_t procedure = TEST; procedure <= FREE_ALL; procedure++) {
        onc_begin(&c.onc, &out, NLM_PROGRAM, NLM_V4, procedure);
        xdr_put_u32(&out, UINT32_MAX); /* a cookie longer than what there is */
        CHECK(onc_send(&c.onc, &out) == 0);
        CHECK(onc_recv(&c.onc, &a) == 0);
        CHECK(!a.denied && (a.stat == ONC_GARBAGE_ARGS || a.stat == ONC_PROC_UNAVAIL));
        onc_answer_free(&a);
    }
    root.len = 7; /* no handle of ours */
    CHECK(lock(&c, &root, &first, false) == STALE_FH);
    nfs_close(&c);
    return 0;
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    run_script(bad_script);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(locks_are_the_same_everywhere),
        cmocka_unit_test(a_lock_is_granted_later),
        cmocka_unit_test(a_lock_is_granted_over_udp),
        cmocka_unit_test(a_lock_that_is_not_taken_is_free),
        cmocka_unit_test(a_lock_that_is_given_up_is_not_granted),
        cmocka_unit_test(a_lock_is_not_lost_by_waiting_for_a_better_one),
        cmocka_unit_test(a_client_waits_for_so_many),
        cmocka_unit_test(a_client_that_restarts_loses_its_locks),
        cmocka_unit_test(nonsense_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
