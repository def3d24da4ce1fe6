/* SPDX-License-Identifier: Apache-2.0
 *
 * Locks of files in meta: who may have which beside which, how ranges are joined and split, and
 * when they go; against a model that knows every byte. */
#include "tests/unit/meta/tree_rig.h"

#include "common/base/prng.h"
#include "meta/locks.h"

struct lrig {
    struct rig r; /* first */
    uint64_t f;
};

static int setup(void **state)
{
    static struct lrig r;

    rig_init(&r.r);
    r.f = (uint64_t)create(&r.r, r.r.root, "f", REG);
    *state = &r;
    return 0;
}

static int teardown(void **state)
{
    rig_fini(*state);
    return 0;
}

static int set(struct lrig *r, const char *client, uint64_t offset, uint64_t length, bool exclusive)
{
    return locks(&r->r, lock_of(r->f, client, 1, offset, length, exclusive));
}

static int clear(struct lrig *r, const char *client, uint64_t offset, uint64_t length)
{
    return unlocks(&r->r, lock_of(r->f, client, 1, offset, length, true));
}

/* All locks of the file as "client start+length[x]", in order. */
static const char *shown(struct lrig *r)
{
    Zbs__Meta__LockListRequest rq = ZBS__META__LOCK_LIST_REQUEST__INIT;
    Zbs__Meta__LockListReply m = ZBS__META__LOCK_LIST_REPLY__INIT;
    struct decide d = {.st = &r->r.st, .rq = &rq.base, .pad = &r->r.pad};
    char *text = pad_strdup(&r->r.pad, "");

    rq.inode_id = r->f;
    assert_int_equal(answer_lock_list(&d, &m.base), 0);
    for (size_t i = 0; i < m.n_locks; i++)
        text = pad_printf(&r->r.pad, "%s%s%s %u+%u%s", text, i > 0 ? ", " : "", m.locks[i]->client,
                          (unsigned)m.locks[i]->offset, (unsigned)m.locks[i]->length,
                          m.locks[i]->exclusive ? "x" : "");
    return text;
}

static void exclusive_ones_are_alone(void **state)
{
    struct lrig *r = *state;

    assert_int_equal(set(r, "ann", 10, 10, true), 0);
    assert_int_equal(set(r, "ben", 19, 1, false), ERR_CONFLICT);
    assert_int_equal(set(r, "ben", 0, 0, true), ERR_CONFLICT);
    assert_int_equal(set(r, "ben", 20, 0, true), 0);
    assert_int_equal(set(r, "ben", 0, 10, false), 0);
    assert_int_equal(set(r, "ann", 5, 1, false), 0);
    assert_int_equal(set(r, "ann", 5, 1, true), ERR_CONFLICT);
    assert_int_equal(set(r, "ann", UINT64_MAX - 1, 5, false), ERR_CONFLICT); /* to the end */
    assert_string_equal(shown(r), "ann 5+1, ann 10+10x, ben 0+10, ben 20+0x");
}

static void ranges_are_joined_and_split(void **state)
{
    struct lrig *r = *state;

    assert_int_equal(set(r, "ann", 10, 10, true), 0);
    assert_int_equal(set(r, "ann", 20, 10, true), 0);
    assert_string_equal(shown(r), "ann 10+20x");
    assert_int_equal(set(r, "ann", 15, 5, false), 0);
    assert_string_equal(shown(r), "ann 10+5x, ann 15+5, ann 20+10x");
    assert_int_equal(clear(r, "ann", 17, 5), 0);
    assert_string_equal(shown(r), "ann 10+5x, ann 15+2, ann 22+8x");
    assert_int_equal(set(r, "ann", 0, 0, true), 0);
    assert_string_equal(shown(r), "ann 0+0x");
    assert_int_equal(clear(r, "ben", 0, 0), 0);
    assert_int_equal(clear(r, "ann", 0, 0), 0);
    assert_string_equal(shown(r), "");
    assert_int_equal(r->r.st.tree.n_lock_holders, 0);
}

static void owners_are_told_apart(void **state)
{
    struct lrig *r = *state;
    Zbs__Meta__Lock l = lock_of(r->f, "ann", 1, 0, 0, true);
    Zbs__Meta__LockTestRequest rq = ZBS__META__LOCK_TEST_REQUEST__INIT;
    Zbs__Meta__LockTestReply m = ZBS__META__LOCK_TEST_REPLY__INIT;
    struct decide d = {.st = &r->r.st, .rq = &rq.base, .pad = &r->r.pad};

    l.owner = (ProtobufCBinaryData){.data = (uint8_t *)"owner", .len = 5};
    assert_int_equal(locks(&r->r, l), 0);
    rq.lock = &l;
    assert_int_equal(answer_lock_test(&d, &m.base), 0);
    assert_null(m.holder);
    l.owner.len = 4;
    assert_int_equal(locks(&r->r, l), ERR_CONFLICT);
    assert_int_equal(answer_lock_test(&d, &m.base), 0);
    assert_int_equal(m.holder->owner.len, 5);
    l.owner.len = 5;
    l.svid = 2;
    assert_int_equal(locks(&r->r, l), ERR_CONFLICT);
}

static void clients_are_forgotten_and_files_go(void **state)
{
    struct lrig *r = *state;

    assert_int_equal(set(r, "ann", 0, 1, true), 0);
    assert_int_equal(set(r, "ben", 1, 1, true), 0);
    assert_int_equal(forgets(&r->r, "ann"), 0);
    assert_int_equal(forgets(&r->r, "ann"), 0);
    assert_string_equal(shown(r), "ben 1+1x");
    assert_int_equal(removes(&r->r, r->r.root, "f", false), 0);
    assert_int_equal(r->r.st.tree.n_lock_holders, 0);
    assert_int_equal(set(r, "ann", 0, 1, true), ERR_STALE);
    assert_int_equal(forgets(&r->r, ""), ERR_INVAL);
}

/* ---- against a model ---- */

#define BYTES   40u
#define CLIENTS 3u

static const char *const clients[CLIENTS] = {"ann", "ben", "cat"};

static bool model_conflict(char held[CLIENTS][BYTES], uint32_t c, uint64_t from, uint64_t to,
                           char kind)
{
    for (uint32_t o = 0; o < CLIENTS; o++) {
        for (uint64_t i = from; o != c && i < to; i++) {
            if (held[o][i] != 0 && (held[o][i] == 'x' || kind == 'x'))
                return true;
        }
    }
    return false;
}

static void check_held(struct lrig *r, char held[CLIENTS][BYTES])
{
    const ProtobufCBinaryData owner = {0};

    for (uint32_t c = 0; c < CLIENTS; c++) {
        const struct lock_holder *h =
            inode_lock_holder(inode_of(&r->r, (int64_t)r->f), clients[c], &owner, 1);
        char have[BYTES] = {0};

        for (uint32_t i = 0; h != NULL && i < h->n_ranges; i++) {
            const struct lock_range *g = &h->ranges[i];

            assert_true(g->start < g->end);
            if (i > 0)
                assert_true(g[-1].end < g->start ||
                            (g[-1].end == g->start && g[-1].exclusive != g->exclusive));
            memset(have + g->start, g->exclusive ? 'x' : 's', g->end - g->start);
        }
        assert_memory_equal(have, held[c], BYTES);
    }
}

static void random_locks_are_those_of_every_byte(void **state)
{
    struct lrig *r = *state;
    char held[CLIENTS][BYTES] = {{0}};
    uint32_t refused = 0;
    struct prng prng;

    prng_init(&prng, 7);
    for (int i = 0; i < 20000; i++) {
        uint32_t c = (uint32_t)prng_below(&prng, CLIENTS);
        uint64_t from = prng_below(&prng, BYTES - 1), to = from + 1 + prng_below(&prng, 8);
        char kind = "xs\0"[prng_below(&prng, 3)];

        to = MIN(to, BYTES);
        if (kind == 0) {
            assert_int_equal(clear(r, clients[c], from, to - from), 0);
        } else if (model_conflict(held, c, from, to, kind)) {
            assert_int_equal(set(r, clients[c], from, to - from, kind == 'x'), ERR_CONFLICT);
            refused++;
            continue;
        } else {
            assert_int_equal(set(r, clients[c], from, to - from, kind == 'x'), 0);
        }
        memset(held[c] + from, kind, to - from);
        check_held(r, held);
        pad_fini(&r->r.pad);
    }
    assert_true(refused > 1000);
}

/* What is taken back later must not take something else along. */
static void a_new_lock_is_beside_what_the_owner_has(void **state)
{
    struct lrig *r = *state;

    assert_int_equal(locks_new(&r->r, lock_of(r->f, "a", 1, 10, 10, true)), 0);
    assert_int_equal(locks_new(&r->r, lock_of(r->f, "a", 1, 10, 10, true)), ERR_EXISTS);
    assert_int_equal(locks_new(&r->r, lock_of(r->f, "a", 1, 19, 0, false)), ERR_EXISTS);
    assert_int_equal(locks_new(&r->r, lock_of(r->f, "a", 1, 0, 11, false)), ERR_EXISTS);
    assert_int_equal(locks_new(&r->r, lock_of(r->f, "a", 2, 10, 10, true)), ERR_CONFLICT);
    assert_int_equal(locks_new(&r->r, lock_of(r->f, "a", 1, 20, 10, false)), 0);
    assert_int_equal(locks_new(&r->r, lock_of(r->f, "a", 1, 0, 10, false)), 0);
    assert_string_equal(shown(r), "a 0+10, a 10+10x, a 20+10");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(exclusive_ones_are_alone),           T(a_new_lock_is_beside_what_the_owner_has),
        T(ranges_are_joined_and_split),        T(owners_are_told_apart),
        T(clients_are_forgotten_and_files_go), T(random_locks_are_those_of_every_byte),
    };

    return cmocka_run_group_tests_name("locks", tests, NULL, NULL);
}
