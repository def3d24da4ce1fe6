/* SPDX-License-Identifier: Apache-2.0
 *
 * Volumes that get blocks of their own: nothing is seen of it but the space that comes back when
 * what they shared blocks with is deleted. */
#include "tests/unit/access/vol_snapshots.h"

#define DATA_BYTES (PIECES * 3 * BLOCK_BYTES) /* of a volume with all pieces, on three servers */

static int flatten(struct vworld *w, const char *name, bool cancel, bool *ret_on)
{
    Zbs__Meta__VolumeFlattenRequest q = ZBS__META__VOLUME_FLATTEN_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    q.pool = (char *)"pool";
    q.name = (char *)name;
    q.cancel = cancel;
    rc = meta_ask(w, META_VOLUME_FLATTEN, &q.base, &r);
    if (rc == 0)
        *ret_on = ((Zbs__Meta__Volume *)r.msg)->flattening;
    rpc_reply_free(&r);
    return rc;
}

static bool flattening(struct vworld *w, const char *name)
{
    Zbs__Meta__VolumeGetRequest q = ZBS__META__VOLUME_GET_REQUEST__INIT;
    struct rpc_reply r;
    bool on;

    q.pool = (char *)"pool";
    q.name = (char *)name;
    CHECK(meta_ask(w, META_VOLUME_GET, &q.base, &r) == 0);
    on = ((Zbs__Meta__Volume *)r.msg)->flattening;
    rpc_reply_free(&r);
    return on;
}

static void wait_flat(struct vworld *w, const char *name)
{
    nsec_t until = co_now() + SEC(120);

    for (; flattening(w, name); (void)co_sleep(MSEC(50)))
        ASSERTF(co_now() < until, "%s is still flattened", name);
}

/* What the first volume and its snapshot have is theirs alone: it is all free once they are gone.
 */
static void remove_origin(struct vworld *w)
{
    uint64_t before = used_bytes(w), want = before - DATA_BYTES;
    nsec_t until = co_now() + SEC(30);

    ASSERTF(before >= 2 * DATA_BYTES, "%" PRIu64 " bytes are used", before);
    remove_volume(w, "volume");
    remove_volume(w, "volume@s");
    for (; used_bytes(w) > want; (void)co_sleep(MSEC(100)))
        ASSERTF(co_now() < until, "%" PRIu64 " of %" PRIu64 " bytes are used", used_bytes(w),
                before);
}

/* A volume, its snapshot, and a clone of that with some pieces of its own. */
static uint64_t family_make(struct vworld *w, uint64_t *ret_volume)
{
    uint64_t clone;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    *ret_volume = w->volume;
    fill(w, 1, w->volume, 0, PIECES, 1000);
    (void)snapshot(w, "volume", "s");
    clone = clone_of(w, "volume@s", "clone");
    fill(w, 0, clone, 0, 6, 3000);
    return clone;
}

static int script_basic(struct vworld *w)
{
    uint64_t volume, clone = family_make(w, &volume);
    bool on = false;

    CHECK(flatten(w, "volume@s", false, &on) == ERR_PERM);
    CHECK(flatten(w, "nobody", false, &on) == ERR_NOTFOUND);
    CHECK(flatten(w, "clone", false, &on) == 0 && on);
    CHECK(flatten(w, "clone", false, &on) == 0 && on);
    wait_flat(w, "clone");
    expect(w, 2, clone, 0, 6, 3000);
    expect(w, 1, clone, 6, PIECES, 1000);
    expect(w, 2, volume, 0, PIECES, 1000);
    w->volume = clone;
    CHECK(do_verify(w, 4) >= 2);
    (void)co_sleep(SEC(3)); /* chunk servers tell what they use */
    remove_origin(w);
    expect(w, 0, clone, 0, 6, 3000);
    expect(w, 1, clone, 6, PIECES, 1000);
    remove_volume(w, "clone");
    wait_empty(w);
    return 0;
}

static void test_basic(void **state)
{
    (void)state;
    world(script_basic, 61, SEC(300));
}

/* It is slow, so that everything happens in the middle of it. */
static int script_midway(struct vworld *w)
{
    uint64_t volume, clone = family_make(w, &volume), snap;
    bool on = false;

    setting_set(w, "recovery.rate", MIB);
    CHECK(flatten(w, "clone", false, &on) == 0 && on);
    (void)co_sleep(SEC(1));
    CHECK(flatten(w, "clone", true, &on) == 0 && !on); /* and begun again */
    CHECK(flatten(w, "clone", false, &on) == 0 && on);
    (void)co_sleep(SEC(1));
    CHECK(flattening(w, "clone"));
    fill(w, 2, clone, 3, 9, 5000);
    snap = snapshot(w, "clone", "s");
    fill(w, 2, clone, 9, 10, 6000);
    crash(w, 0, ACCESS);
    crash(w, 1, META);
    (void)co_sleep(SEC(2));
    start(w, 0, ACCESS);
    start(w, 1, META);
    crash(w, 2, CHUNK);
    (void)co_sleep(SEC(3));
    start(w, 2, CHUNK);
    wait_ready(w);
    wait_flat(w, "clone");
    setting_set(w, "recovery.rate", 64 * MIB);
    expect(w, 0, clone, 0, 3, 3000);
    expect(w, 1, clone, 3, 9, 5000);
    expect(w, 1, clone, 9, 10, 6000);
    expect(w, 2, clone, 10, PIECES, 1000);
    expect(w, 2, snap, 9, PIECES, 1000);
    expect(w, 0, volume, 0, PIECES, 1000);
    wait_degraded(w, false, SEC(60));
    w->volume = clone;
    CHECK(do_verify(w, 4) >= 2);
    remove_volume(w, "clone@s");
    (void)co_sleep(SEC(5));
    remove_origin(w);
    remove_volume(w, "clone");
    wait_empty(w);
    return 0;
}

static void test_midway(void **state)
{
    (void)state;
    world(script_midway, 62, SEC(600));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_basic),
        cmocka_unit_test(test_midway),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
