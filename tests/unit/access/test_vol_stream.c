/* SPDX-License-Identifier: Apache-2.0
 *
 * Snapshots as streams: what is sent is what differs, what is received is the same again, and what
 * is damaged, breaks off or does not fit leaves no snapshot. */
#include "common/base/vec.h"
#include "tests/unit/access/vol_snapshots.h"
#include "tools/stream/stream.h"

/* A stream in memory. */
struct tape {
    VEC(uint8_t) bytes;
    size_t at;
    struct vworld *w;
    void (*midway)(struct vworld *w); /* called once, after some bytes were read */
};

static int tape_read(void *arg, void *dst, size_t len, size_t *ret_got)
{
    struct tape *t = arg;

    *ret_got = MIN(len, t->bytes.count - t->at);
    if (*ret_got > 0)
        memcpy(dst, t->bytes.data + t->at, *ret_got);
    t->at += *ret_got;
    if (t->midway && t->at > t->bytes.count / 2) {
        t->midway(t->w);
        t->midway = NULL;
    }
    return 0;
}

static int tape_write(void *arg, const void *src, size_t len)
{
    struct tape *t = arg;

    VEC_RESERVE(&t->bytes, t->bytes.count + len);
    memcpy(t->bytes.data + t->bytes.count, src, len);
    t->bytes.count += len;
    return 0;
}

/* What was sent of volume@to, after volume@since (NULL: everything). */
static struct stream tape_send(struct vworld *w, struct tape *t, const char *to, const char *since)
{
    struct stream_name name = {"pool", "volume", to}, older = {"pool", "volume", since};
    struct stream_io io = {.arg = t, .write = tape_write};
    struct stream_cluster c;
    struct stream s;
    int rc = stream_cluster_init(&c, w->mc);

    VEC_FINI(&t->bytes);
    *t = (struct tape){.w = w};
    if (rc == 0)
        rc = stream_send(&c, &name, since ? &older : NULL, &io, &s);
    ASSERTF(rc == 0, "sending %s: %s %s", to, err_name(rc), err_text(rc));
    stream_cluster_fini(&c);
    return s;
}

static int tape_receive(struct vworld *w, struct tape *t, const char *volume, const char *snapshot,
                        uint64_t *ret_id)
{
    struct stream_name name = {"pool", volume, snapshot};
    struct stream_io io = {.arg = t, .read = tape_read};
    struct stream_cluster c;
    struct rpc_reply r;
    struct stream s;
    int rc = stream_cluster_init(&c, w->mc);

    t->at = 0;
    if (rc == 0)
        rc = stream_receive(&c, &name, &io, &s, &r);
    stream_cluster_fini(&c);
    if (rc == 0) {
        *ret_id = ((Zbs__Meta__VolumeSnapshotReply *)r.msg)->snapshots[0]->id;
        rpc_reply_free(&r);
    }
    return rc;
}

static uint64_t volume_id(struct vworld *w, const char *name)
{
    Zbs__Meta__VolumeGetRequest q = ZBS__META__VOLUME_GET_REQUEST__INIT;
    struct rpc_reply r;
    uint64_t id = 0;

    q.pool = (char *)"pool";
    q.name = (char *)name;
    if (meta_ask(w, META_VOLUME_GET, &q.base, &r) == 0)
        id = ((Zbs__Meta__Volume *)r.msg)->id;
    rpc_reply_free(&r);
    return id;
}

static void discard(struct vworld *w, uint64_t volume, uint32_t from, uint32_t to)
{
    struct job j = {.fn = job_zero, .off = from * STEP, .len = (to - from) * STEP, .value = 1};

    w->volume = volume;
    CHECK(job_do(w, 1, &j) == 0);
}

static void expect_hole(struct vworld *w, uint64_t volume, uint32_t from, uint32_t to)
{
    w->volume = volume;
    for (uint32_t i = from; i < to; i++)
        CHECK(do_read(w, 0, i * STEP, PIECE) == 0);
}

/* Three generations; the second has fewer pieces. Ids of the snapshots. */
static uint64_t source_make(struct vworld *w, uint64_t snaps[3])
{
    uint64_t volume;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    volume = w->volume;
    fill(w, 1, volume, 0, PIECES, 1000);
    snaps[0] = snapshot(w, "volume", "s1");
    fill(w, 1, volume, 0, 6, 2000);
    discard(w, volume, 20, 22);
    snaps[1] = snapshot(w, "volume", "s2");
    fill(w, 2, volume, 4, 8, 3000);
    snaps[2] = snapshot(w, "volume", "s3");
    return volume;
}

static void expect_generation(struct vworld *w, uint64_t id, uint32_t generation)
{
    expect(w, 0, id, generation > 2 ? 8 : generation > 1 ? 6 : 0, 20, 1000);
    expect(w, 1, id, 22, PIECES, 1000);
    if (generation == 1) {
        expect(w, 0, id, 20, 22, 1000);
        return;
    }
    expect_hole(w, id, 20, 22);
    expect(w, 2, id, 0, 4, 2000);
    if (generation == 2)
        expect(w, 0, id, 4, 6, 2000);
    else
        expect(w, 0, id, 4, 8, 3000);
}

/* ---- there and on ---- */

static int script_generations(struct vworld *w)
{
    uint64_t snaps[3], got, copy;
    struct tape t = {0};
    struct stream s;

    source_make(w, snaps);
    s = tape_send(w, &t, "s1", NULL);
    CHECK(s.data_bytes == PIECES * PIECE && s.zero_bytes == 0);
    CHECK(tape_receive(w, &t, "copy", NULL, &got) == 0);
    CHECK(got == volume_id(w, "copy@s1"));
    expect_generation(w, got, 1);

    /* Only what differs is sent. */
    s = tape_send(w, &t, "s2", "s1");
    CHECK(s.data_bytes == 6 * PIECE && s.zero_bytes == 2 * PIECE);
    CHECK(tape_receive(w, &t, "copy", "named", &got) == 0);
    CHECK(got == volume_id(w, "copy@named"));
    expect_generation(w, got, 2);
    expect_generation(w, volume_id(w, "copy@s1"), 1);
    s = tape_send(w, &t, "s3", "s2");
    CHECK(s.data_bytes == 4 * PIECE && s.zero_bytes == 0);
    CHECK(tape_receive(w, &t, "copy", NULL, &got) == 0);
    expect_generation(w, got, 3);

    /* An imported one is sent on, and continued from over two generations at once. */
    s = tape_send(w, &t, "s3", "s1");
    CHECK(s.data_bytes == 8 * PIECE && s.zero_bytes == 2 * PIECE);
    copy = volume_id(w, "copy");
    expect_generation(w, copy, 3);
    fill(w, 0, copy, 0, 2, 7000); /* the import has ended: it is an ordinary volume */
    expect(w, 1, copy, 0, 2, 7000);
    w->volume = copy;
    CHECK(do_verify(w, 4) >= 2);
    VEC_FINI(&t.bytes);
    return 0;
}

static void test_generations(void **state)
{
    (void)state;
    world(script_generations, 51, SEC(200));
}

/* ---- what does not fit ---- */

static int script_refused(struct vworld *w)
{
    uint64_t snaps[3], got, copy;
    struct tape full = {0}, second = {0}, third = {0};

    source_make(w, snaps);
    tape_send(w, &full, "s1", NULL);
    tape_send(w, &second, "s2", "s1");
    tape_send(w, &third, "s3", "s2");
    CHECK(tape_receive(w, &second, "copy", NULL, &got) == ERR_STALE); /* there is no base */
    CHECK(tape_receive(w, &full, "volume", "x", &got) == ERR_EXISTS);
    CHECK(tape_receive(w, &full, "copy", NULL, &got) == 0);
    CHECK(tape_receive(w, &full, "copy", NULL, &got) == ERR_EXISTS);
    CHECK(tape_receive(w, &third, "copy", NULL, &got) == ERR_STALE);
    CHECK(tape_receive(w, &second, "copy", "s1", &got) == ERR_EXISTS);
    CHECK(tape_receive(w, &second, "copy", NULL, &got) == 0);
    CHECK(tape_receive(w, &second, "copy", "again", &got) ==
          ERR_STALE); /* its base is not newest */
    copy = volume_id(w, "copy");
    fill(w, 0, copy, 3, 4, 8000);
    CHECK(tape_receive(w, &third, "copy", NULL, &got) == ERR_STALE); /* it was written since */
    CHECK(strstr(err_text(ERR_STALE), "changed") != NULL);
    expect(w, 0, copy, 3, 4, 8000);
    roll_back(w, "copy", "s2");
    CHECK(tape_receive(w, &third, "copy", NULL, &got) == 0);
    expect_generation(w, got, 3);
    VEC_FINI(&full.bytes);
    VEC_FINI(&second.bytes);
    VEC_FINI(&third.bytes);
    return 0;
}

static void test_refused(void **state)
{
    (void)state;
    world(script_refused, 52, SEC(200));
}

/* ---- what is damaged, or breaks off ---- */

/* No snapshot of it, and nobody writes to it but the next import. */
static void expect_half(struct vworld *w, const char *volume, const char *snapshot_name)
{
    uint64_t id = volume_id(w, volume), other;
    char name[64];

    snprintf(name, sizeof(name), "%s@%s", volume, snapshot_name);
    CHECK(volume_id(w, name) == 0);
    CHECK(id != 0);
    w->volume = id;
    CHECK(do_write(w, 0, 0, PIECE, 1) == ERR_PERM);
    CHECK(ask_snapshot(w, volume, "half", &other) == ERR_BUSY);
}

static void damage(struct vworld *w, struct tape *t, const char *volume, const char *snapshot_name)
{
    size_t whole = t->bytes.count, some = STREAM_HEADER_BYTES + 3 * STREAM_RECORD_BYTES + 2 * PIECE;
    const size_t cuts[] = {some, some + 100, whole - 1, whole - STREAM_RECORD_BYTES};
    const size_t flips[] = {STREAM_HEADER_BYTES + 9, some - 7, some + 5, whole - 30};
    uint64_t got;

    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        t->bytes.count = cuts[i];
        CHECK(tape_receive(w, t, volume, NULL, &got) == ERR_CORRUPT);
        expect_half(w, volume, snapshot_name);
        t->bytes.count = whole;
    }
    for (size_t i = 0; i < ARRAY_SIZE(flips); i++) {
        t->bytes.data[flips[i]] ^= 4;
        CHECK(tape_receive(w, t, volume, NULL, &got) == ERR_CORRUPT);
        expect_half(w, volume, snapshot_name);
        t->bytes.data[flips[i]] ^= 4;
    }
    *VEC_PUSH(&t->bytes) = 0;
    CHECK(tape_receive(w, t, volume, NULL, &got) == ERR_CORRUPT);
    expect_half(w, volume, snapshot_name);
    t->bytes.count = whole;
}

static int script_damage(struct vworld *w)
{
    uint64_t snaps[3], got;
    struct tape t = {0};

    source_make(w, snaps);
    tape_send(w, &t, "s1", NULL);
    t.bytes.count = 100;
    CHECK(tape_receive(w, &t, "copy", NULL, &got) == ERR_FORMAT && volume_id(w, "copy") == 0);
    tape_send(w, &t, "s1", NULL);
    t.bytes.data[20] ^= 1;
    CHECK(tape_receive(w, &t, "copy", NULL, &got) == ERR_FORMAT && volume_id(w, "copy") == 0);
    t.bytes.data[20] ^= 1;
    damage(w, &t, "copy", "s1");
    CHECK(tape_receive(w, &t, "copy", NULL, &got) == 0);
    expect_generation(w, got, 1);

    tape_send(w, &t, "s2", "s1");
    damage(w, &t, "copy", "s2");
    CHECK(tape_receive(w, &t, "copy", NULL, &got) == 0);
    expect_generation(w, got, 2);
    expect_generation(w, volume_id(w, "copy@s1"), 1);

    /* A half one goes back, or away. */
    tape_send(w, &t, "s3", "s2");
    t.bytes.count--;
    CHECK(tape_receive(w, &t, "copy", NULL, &got) == ERR_CORRUPT);
    roll_back(w, "copy", "s2");
    fill(w, 0, volume_id(w, "copy"), 0, 1, 9000);
    remove_volume(w, "copy");
    VEC_FINI(&t.bytes);
    return 0;
}

static void test_damage(void **state)
{
    (void)state;
    world(script_damage, 53, SEC(200));
}

/* ---- servers that go midway ---- */

static void access_dies(struct vworld *w)
{
    crash(w, 0, ACCESS);
}

static void chunk_dies(struct vworld *w)
{
    crash(w, 1, CHUNK);
}

static void chunk_returns(struct vworld *w)
{
    start(w, 1, CHUNK);
}

static int script_crashes(struct vworld *w)
{
    uint64_t snaps[3], got;
    struct tape t = {0};

    source_make(w, snaps);
    tape_send(w, &t, "s1", NULL);
    t.midway = chunk_dies;
    CHECK(tape_receive(w, &t, "copy", NULL, &got) == 0);
    expect_generation(w, got, 1);
    tape_send(w, &t, "s2", "s1"); /* without that chunk server */
    t.midway = chunk_returns;
    CHECK(tape_receive(w, &t, "copy", NULL, &got) == 0);
    tape_send(w, &t, "s3", "s2");
    t.midway = access_dies;
    CHECK(tape_receive(w, &t, "copy", NULL, &got) == 0);
    start(w, 0, ACCESS);
    wait_ready(w);
    expect_generation(w, got, 3);
    wait_degraded(w, false, SEC(60));
    w->volume = volume_id(w, "copy");
    CHECK(do_verify(w, 4) >= 2);
    VEC_FINI(&t.bytes);
    return 0;
}

static void test_crashes(void **state)
{
    (void)state;
    world(script_crashes, 54, SEC(300));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generations),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_crashes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
