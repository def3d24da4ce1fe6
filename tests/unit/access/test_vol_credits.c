/* SPDX-License-Identifier: Apache-2.0
 *
 * Space that replicas have promised to writes (PROTOCOL 3.4). */
#include "access/vol/vol_int.h"
#include "tests/unit/access/vol_world.h"

#define VOLUME GIB
#define BEFORE 5u /* writes, after which some credits are left over */
#define WAIT   10u

static const struct tenure *tenure_at(struct vworld *w, uint32_t node)
{
    const struct volume *v = vol_object_find(w->nodes[node].engine, w->volume);

    CHECK(v && v->cap_slots > 0 && v->slots[0] && v->slots[0]->tenure);
    return v->slots[0]->tenure;
}

static uint32_t member_of(const struct tenure *t, const struct vnode *n)
{
    uint32_t i = 0;

    while (i < t->n && strcmp(t->m[i].chunk->host, n->host) != 0)
        i++;
    CHECK(i < t->n);
    return i;
}

/* A chunk server ends with writes on their way to it, each into a block of its own. When it is back
 * it promises room for all of them again, not only for as many as at an open. */
static int script_restart(struct vworld *w)
{
    struct job jobs[WAIT];
    const struct tenure *t;
    uint32_t i, set_number, off = 0;

    wait_ready(w);
    CHECK(volume_make(w, 3, VOLUME) == 0);
    for (uint32_t k = 0; k < BEFORE; k++, off += 2 * BLOCK_BYTES)
        CHECK(do_write(w, 0, off, PAGE_BYTES, 1) == 0);
    t = tenure_at(w, 0);
    i = member_of(t, &w->nodes[1]);
    set_number = (uint32_t)t->set_number;
    CHECK(t->m[i].credits >= WAIT);
    crash(w, 1, CHUNK);
    for (uint32_t k = 0; k < WAIT; k++, off += 2 * BLOCK_BYTES) {
        jobs[k] = (struct job){.fn = job_write, .off = off, .len = PAGE_BYTES, .value = 2};
        job_post(w, 0, &jobs[k]);
    }
    (void)co_sleep(MSEC(100));
    CHECK(!list_empty(&t->ops) && !jobs[0].done);
    start(w, 1, CHUNK);
    for (uint32_t k = 0; k < WAIT; k++)
        CHECK(job_wait(w, 0, &jobs[k], 1) == 0);
    CHECK(tenure_at(w, 0) == t && t->set_number == set_number);
    CHECK(t->m[i].credits == CREDITS_OPEN);
    return 0;
}

static void test_restart(void **state)
{
    (void)state;
    world_script(script_restart, 1, GIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
