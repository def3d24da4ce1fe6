/* SPDX-License-Identifier: Apache-2.0
 *
 * Coroutines: birth, waiting, interruption, end. */
#include <string.h>
#include "common/base/assert.h"
#include "common/co/co_impl.h"

NOINLINE struct co *co_self(void)
{
    const struct thread_ctx *ctx = thread_ctx_get();

    return ctx != NULL ? ctx->co : NULL;
}

NOINLINE struct co_loop *co_loop(void)
{
    const struct thread_ctx *ctx = thread_ctx_get();

    return ctx != NULL ? ctx->loop : NULL;
}

const char *co_name(const struct co *co)
{
    return co->ctx.co_name;
}

struct err_slot *co_err_slot(void)
{
    return err_slot_current();
}

static struct co *self_checked(void)
{
    struct co *co = co_self();

    ASSERTF(co != NULL, "called outside coroutines");
    return co;
}

/* The text that belongs to rc, wherever it was set, else rc's default text. */
void co_err_copy(struct err_slot *to, const struct err_slot *from, int rc)
{
    const char *text = from != NULL && from->rc == rc ? from->text : err_default_text(rc);
    size_t len = strnlen(text, sizeof(to->text) - 1);

    memmove(to->text, text, len);
    to->text[len] = '\0';
    to->rc = rc;
}

/* ---- birth and end ---- */

static void deadline_fire(struct co_timer *t);

static struct co *co_make(struct co_loop *loop)
{
    struct co *co = co_stack_new(co_main);

    list_init(&co->member);
    list_init(&co->mail);
    list_push_back(&loop->stacks, &co->all);
    co_timer_init(&co->deadline_timer, deadline_fire);
    return co;
}

struct co *co_launch(struct co_loop *loop, const char *name, int (*fn)(void *arg), void *arg)
{
    struct co *co = loop->idle;

    if (co != NULL) {
        loop->idle = co->next;
        loop->idle_count--;
    } else {
        co = co_make(loop);
    }
    co->ctx = (struct thread_ctx){&co->err, name, loop->name, co, loop};
    co->fn = fn;
    co->arg = arg;
    co->after = CO_AFTER_NOTHING;
    co->wait = NULL;
    co->group = co->joining = NULL;
    co->done = NULL;
    atomic_store_explicit(&co->canceled, false, memory_order_relaxed);
    co->shields = co->locks = 0;
    co->deadline = NSEC_NEVER;
    co->home = loop;
    co->away = false;
    co->live = true;
    co->err.rc = 0;
    loop->live_count++;
    co_ready_push(loop, co);
    return co;
}

/* Each stack stays in this loop: a coroutine that ended waits inside its last switch for the
 * next function, so that neither its context nor the sanitizers' view of it is made anew. */
void co_main(struct co_ctx *from, struct co_ctx *self)
{
    struct co *co = CONTAINER_OF(self, struct co, sw);

    (void)from;
    co_san_arrive(&co->san, &co->ctx.loop->san);
    for (;;) {
        co->rc = co->fn(co->arg);
        ASSERTF(co->rc <= 0, "result %d of a coroutine", co->rc);
        ASSERTF(co->locks == 0, "a coroutine ended with %u mutexes held", co->locks);
        ASSERTF(co->shields == 0, "a coroutine ended inside a shield");
        ASSERTF(co->ctx.loop == co->home, "a coroutine ended away from home");
        co->after = CO_AFTER_END;
        co_switch_out(co);
    }
}

void co_ended(struct co_loop *loop, struct co *co)
{
    co->live = false;
    loop->live_count--;
    if (co->deadline_timer.heap_pos != 0)
        heap_remove(&loop->timers, &co->deadline_timer.heap_pos);
    if (co->group != NULL) {
        struct co_group *g = co->group;

        list_del(&co->member);
        if (co->rc < 0 && g->first_err == 0 &&
            (co->rc != ERR_CANCELED || !g->canceled || g->passed_on)) {
            g->first_err = co->rc;
            co_err_copy(&g->err, &co->err, co->rc);
        }
        if (--g->count == 0)
            LIST_FOREACH_SAFE (w, &g->joiners, struct co_wait, link)
                co_resume(w, 0); /* the group may be gone once a joiner runs */
    } else if (co->done != NULL) {
        thread_ctx_set(&loop->ctx);
        if (co->rc < 0)
            co_err_copy(&loop->err, &co->err, co->rc);
        co->done(co->arg, co->rc);
    }
    if (loop->stack_high_water < CO_STACK_BYTES_DEFAULT) {
        size_t used = co_stack_used(co);

        loop->stack_high_water = MAX(loop->stack_high_water, used);
    }
    co->next = loop->idle;
    loop->idle = co;
    loop->idle_count++;
}

/* ---- waiting ---- */

void co_wait_init(struct co_wait *w)
{
    list_init(&w->link);
    w->co = NULL;
    w->rc = 0;
    w->done = false;
}

static void deadline_fire(struct co_timer *t)
{
    struct co *co = CONTAINER_OF(t, struct co, deadline_timer);

    if (co->wait == NULL || (co->wait_by & CO_BY_DEADLINE) == 0 || co->deadline == NSEC_NEVER)
        return; /* it was armed for a wait that is over */
    if (co->deadline > co->ctx.loop->now) {
        co_timer_arm(t, co->deadline);
        return;
    }
    co_err_copy(&co->err, NULL, ERR_TIMEOUT);
    co_resume(co->wait, ERR_TIMEOUT);
}

static bool cancel_seen(const struct co *co)
{
    return co->shields == 0 && atomic_load_explicit(&co->canceled, memory_order_relaxed);
}

/* Arms the deadline's timer lazily: it stays armed across waits, so that a request pays for the
 * heap about once and not at every suspension. */
static int wait_check(struct co *co, unsigned by)
{
    if ((by & CO_BY_CANCEL) != 0 && cancel_seen(co))
        return ERR_CANCELED;
    if ((by & CO_BY_DEADLINE) != 0 && co->deadline != NSEC_NEVER) {
        struct co_timer *t = &co->deadline_timer;

        if (co->deadline <= co->ctx.loop->now)
            return ERR_TIMEOUT;
        if (t->heap_pos == 0 || t->at > co->deadline)
            co_timer_arm(t, co->deadline);
    }
    return 0;
}

int co_suspend_by(struct co_wait *w, unsigned by)
{
    struct co *co = self_checked();

    if (w->done)
        return w->rc;
    ASSERTF(w->co == NULL, "two coroutines suspend in one wait");
    if (by != 0) {
        int rc = wait_check(co, by);

        if (UNLIKELY(rc < 0)) {
            w->rc = rc;
            w->done = true;
            list_del(&w->link);
            co_err_copy(&co->err, NULL, rc);
            return rc;
        }
    }
    w->co = co;
    /* A shield began with no deadline: one that is there was set inside, and counts. */
    co->wait_by = co->shields > 0 ? by & ~(unsigned)CO_BY_CANCEL : by;
    co->wait = w;
    co_switch_out(co);
    return w->rc;
}

int co_suspend(struct co_wait *w, enum co_wait_kind kind)
{
    return co_suspend_by(w, kind == CO_INTERRUPTIBLE ? CO_BY_CANCEL | CO_BY_DEADLINE : 0);
}

void co_resume(struct co_wait *w, int rc)
{
    struct co *co = w->co;

    if (w->done)
        return;
    w->done = true;
    w->rc = rc;
    list_del(&w->link);
    if (co == NULL)
        return; /* it has not suspended yet and will not */
    ASSERTF(co->wait == w, "coroutine %s is not in this wait", co->ctx.co_name);
    w->co = NULL;
    co->wait = NULL;
    co_ready_push(co->ctx.loop, co);
}

int co_yield (void)
{
    struct co *co = self_checked();

    co_ready_push(co->ctx.loop, co);
    co_switch_out(co);
    if (UNLIKELY(cancel_seen(co))) {
        co_err_copy(&co->err, NULL, ERR_CANCELED);
        return ERR_CANCELED;
    }
    return 0;
}

/* ---- cancellation and deadlines ---- */

void co_cancel(struct co *co)
{
    ASSERTF(co->live && co->home == co_loop(), "cancel from another loop");
    if (atomic_exchange_explicit(&co->canceled, true, memory_order_relaxed))
        return;
    if (co->away) /* runs elsewhere: it will see the mark before its next wait */
        return;
    if (co->joining != NULL && co->shields == 0)
        co_group_pass_cancel(co->joining);
    if (co->wait != NULL && (co->wait_by & CO_BY_CANCEL) != 0) {
        co_err_copy(&co->err, NULL, ERR_CANCELED);
        co_resume(co->wait, ERR_CANCELED);
    }
}

bool co_canceled(void)
{
    return cancel_seen(self_checked());
}

nsec_t co_deadline(void)
{
    return self_checked()->deadline;
}

nsec_t co_deadline_push(nsec_t t)
{
    struct co *co = self_checked();
    nsec_t former = co->deadline;

    co->deadline = MIN(former, t);
    return former;
}

void co_deadline_restore(nsec_t former)
{
    self_checked()->deadline = former;
}

void co_shield_begin(struct co_shield *s)
{
    struct co *co = self_checked();

    s->deadline = co->deadline;
    co->deadline = NSEC_NEVER;
    co->shields++;
}

void co_shield_end(struct co_shield *s)
{
    struct co *co = self_checked();

    ASSERT(co->shields > 0);
    co->shields--;
    co->deadline = s->deadline;
}

/* ---- other loops ---- */

struct co_loop *co_enter(struct co_loop *target)
{
    struct co *co = self_checked();
    struct co_loop *from = co->ctx.loop;

    if (target == from)
        return from;
    ASSERTF(co->locks == 0, "a mutex is held while entering loop %s", co_loop_name(target));
    if (co->deadline_timer.heap_pos != 0)
        co_timer_disarm(&co->deadline_timer);
    co->target = target;
    co->after = CO_AFTER_MOVE;
    co_switch_out(co);
    return from;
}
