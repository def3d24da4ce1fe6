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

/* ---- waiting ---- */

static int waiting_script(struct vworld *w)
{
    struct nfs_client a, b;
    struct nh root, file;
    struct onc_answer answer;
    struct xdr_out out;
    nsec_t since;

    share_begin(w);
    client_open(&a, 0, 0, &root);
    client_open(&b, 1, 0, &root);
    OK(nfs_do_create(&a, &root, "file", CREATE_GUARDED, NSET_MODE(0644), 0, &file));
    CHECK(lock(&a, &file, &first, false) == GRANTED);
    since = co_now();
    CHECK(lock(&b, &file, &second, true) == BLOCKED);
    CHECK(co_now() - since > 5 * NSEC_PER_SEC);

    begin_lock(&b, &out, &file, &second, true); /* granted once the other goes */
    CHECK(onc_send(&b.onc, &out) == 0);
    CHECK(co_sleep(NSEC_PER_SEC) == 0);
    CHECK(unlock(&a, &file, &first) == GRANTED);
    CHECK(onc_recv(&b.onc, &answer) == 0);
    CHECK(take_status(&answer) == GRANTED);
    onc_answer_free(&answer);

    begin_lock(&a, &out, &file, &first, true); /* given up */
    CHECK(onc_send(&a.onc, &out) == 0);
    CHECK(co_sleep(NSEC_PER_SEC) == 0);
    begin_lock(&a, &out, &file, &other_reader, false); /* the connection is not held up */
    CHECK(ask(&a, &out) == GRANTED);
    onc_begin(&a.onc, &out, NLM_PROGRAM, NLM_V4, CANCEL);
    put_cookie(&out);
    xdr_put_bool(&out, true);
    xdr_put_bool(&out, true);
    put_lock(&out, &file, &first);
    CHECK(onc_send(&a.onc, &out) == 0);
    for (int k = 0; k < 2; k++) { /* of the CANCEL and of the LOCK */
        CHECK(onc_recv(&a.onc, &answer) == 0);
        CHECK(take_status(&answer) == (k == 0 ? GRANTED : DENIED));
        onc_answer_free(&answer);
    }
    CHECK(unlock(&b, &file, &second) == GRANTED);
    CHECK(co_sleep(NSEC_PER_SEC) == 0);
    expect_holder(&b, &file, &second, NULL);
    CHECK(cancel(&a, &file, &first) == GRANTED); /* there is nothing to cancel */
    nfs_close(&a);
    nfs_close(&b);
    return 0;
}

static void a_lock_is_waited_for(void **state)
{
    (void)state;
    run_script(waiting_script);
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
        cmocka_unit_test(a_lock_is_waited_for),
        cmocka_unit_test(a_client_that_restarts_loses_its_locks),
        cmocka_unit_test(nonsense_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
