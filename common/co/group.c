/* SPDX-License-Identifier: Apache-2.0
 *
 * Groups: whoever owns one can cancel and join everything born in it. */
#include "common/base/assert.h"
#include "common/co/co_impl.h"

void co_group_init(struct co_group *g)
{
    g->loop = co_loop();
    ASSERTF(g->loop != NULL, "a group belongs to a loop");
    list_init(&g->members);
    list_init(&g->joiners);
    g->count = 0;
    g->first_err = 0;
    g->canceled = g->passed_on = false;
    g->err.rc = 0;
}

struct co *co_spawn_detached_deadline(struct co_group *g, const char *name, int (*fn)(void *arg),
                                      void *arg)
{
    struct co *co;

    ASSERTF(g->loop == co_loop(), "%s: spawned from another loop than its group's", name);
    co = co_launch(g->loop, name, fn, arg);
    co->group = g;
    list_push_back(&g->members, &co->member);
    g->count++;
    if (UNLIKELY(g->canceled))
        atomic_store_explicit(&co->canceled, true, memory_order_relaxed);
    return co;
}

struct co *co_spawn(struct co_group *g, const char *name, int (*fn)(void *arg), void *arg)
{
    struct co *self = co_self();
    struct co *co = co_spawn_detached_deadline(g, name, fn, arg);

    if (self != NULL)
        co->deadline = self->deadline;
    return co;
}

void co_group_cancel(struct co_group *g)
{
    ASSERTF(g->loop == co_loop(), "cancelled from another loop than the group's");
    if (g->canceled)
        return;
    g->canceled = true;
    LIST_FOREACH (co, &g->members, struct co, member)
        co_cancel(co); /* makes it ready at most: the list does not change */
}

void co_group_pass_cancel(struct co_group *g)
{
    g->passed_on = g->passed_on || !g->canceled;
    co_group_cancel(g);
}

int co_group_join(struct co_group *g)
{
    struct co *self = co_self();
    int rc;

    ASSERTF(self != NULL && g->loop == co_loop(), "joined from another loop than the group's");
    ASSERTF(self->group != g, "coroutine %s joins its own group", co_name(self));
    while (g->count > 0) {
        struct co_wait w;

        if (co_canceled())
            co_group_pass_cancel(g);
        co_wait_init(&w);
        list_push_back(&g->joiners, &w.link);
        self->joining = g;
        (void)co_suspend(&w, CO_UNINTERRUPTIBLE);
        self->joining = NULL;
    }
    rc = g->first_err;
    if (rc < 0) {
        g->first_err = 0;
        co_err_copy(&self->err, &g->err, rc);
    }
    return rc;
}

int co_group_close(struct co_group *g)
{
    co_group_cancel(g);
    return co_group_join(g);
}
