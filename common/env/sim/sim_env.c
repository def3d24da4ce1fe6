/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of the simulated environment, and its small parts: randomness, halting, locks, files,
 * threads. */
#include <string.h>
#include "common/env/sim/sim_internal.h"

/* ---- calls that only take time ---- */

nsec_t sim_disk_delay(struct sim *s)
{
    nsec_t delay = sim_span(s, s->conf.disk_delay_min, s->conf.disk_delay_max);

    if (sim_chance(s, s->conf.disk_spike_ppm))
        delay += sim_span(s, 0, 2 * NSEC_PER_SEC);
    return delay;
}

static void call_done(struct sim *s, struct sim_event *e)
{
    struct sim_call *c = CONTAINER_OF(e, struct sim_call, ev);

    (void)s;
    list_del(&c->link);
    if (c->apply)
        c->apply(c);
    co_resume(&c->wait, c->rc);
}

int sim_call_run(struct sim_call *c, struct env *env, nsec_t delay,
                 void (*apply)(struct sim_call *c))
{
    struct sim_proc *p = sim_proc_of(env);
    struct sim *s = p->sim;

    c->proc = p;
    c->apply = apply;
    c->crashing = false;
    c->rc = 0;
    list_push_back(&p->calls, &c->link);
    sim_event_init(&c->ev, SIM_CALL, p, sim_id(s), call_done);
    sim_event_arm(s, &c->ev, s->now + delay);
    co_wait_init(&c->wait);
    return co_suspend(&c->wait, CO_UNINTERRUPTIBLE);
}

/* What the dead process had asked for happens or not. */
void sim_calls_proc_ended(struct sim_proc *p)
{
    struct list *elem;

    while ((elem = list_pop_front(&p->calls))) {
        struct sim_call *c = LIST_ENTRY(elem, struct sim_call, link);

        sim_event_disarm(p->sim, &c->ev);
        c->crashing = true;
        if (c->apply && sim_coin(p->sim))
            c->apply(c);
    }
}

/* ---- randomness, wall clock, halting ---- */

static uint64_t op_random(struct env *env)
{
    return sim_rand(sim_proc_of(env)->sim);
}

static void op_random_bytes(struct env *env, void *dst, size_t len)
{
    for (size_t done = 0; done < len; done += sizeof(uint64_t)) {
        uint64_t word = sim_rand(sim_proc_of(env)->sim);

        memcpy((char *)dst + done, &word, MIN(sizeof(word), len - done));
    }
}

static int64_t op_wall_ns(struct env *env)
{
    return sim_clock_wall(sim_proc_of(env));
}

static void op_halt(struct env *env, const char *reason)
{
    struct sim_proc *p = sim_proc_of(env);
    struct co_wait forever;

    ASSERTF(!p->control, "a control coroutine halts: %s", reason);
    if (!p->doomed) {
        p->doomed = true;
        p->halted = sim_strdup(reason);
        sim_note(p->sim, "%s halts: %s", p->name, reason);
    }
    co_wait_init(&forever);
    (void)co_suspend(&forever, CO_UNINTERRUPTIBLE);
    ASSERTF(false, "a halted process went on");
}

/* ---- locks: per host, held by a process ---- */

struct sim_lock {
    struct list link;
    struct sim_proc *proc;
    char path[];
};

int sim_lock_file(struct env *env, const char *path)
{
    struct sim_proc *p = sim_proc_of(env);
    struct sim_lock *lock;

    LIST_FOREACH (l, &p->sim->locks, struct sim_lock, link)
        if (strcmp(l->path, path) == 0 && strcmp(l->proc->host, p->host) == 0)
            return err_set(ERR_BUSY, "%s is locked by %s", path,
                           l->proc == p ? "this process" : "another process");
    lock = sim_alloc(sizeof(*lock) + strlen(path) + 1);
    lock->proc = p;
    strcpy(lock->path, path);
    list_push_back(&p->sim->locks, &lock->link);
    return 0;
}

void sim_locks_proc_ended(struct sim_proc *p)
{
    LIST_FOREACH_SAFE (l, &p->sim->locks, struct sim_lock, link) {
        if (l->proc == p) {
            list_del(&l->link);
            sim_mem_free(l);
        }
    }
}

/* ---- small files ---- */

struct sim_file {
    struct list link;
    char *path, *data;
    size_t len;
};

struct file_call {
    struct sim_call call;
    const char *path;
    const void *data;
    size_t len;
};

static struct sim_file *file_find(struct sim_proc *p, const char *path)
{
    LIST_FOREACH (f, &p->files, struct sim_file, link)
        if (strcmp(f->path, path) == 0)
            return f;
    return NULL;
}

int sim_file_read(struct env *env, const char *path, char **ret, size_t *ret_len)
{
    struct sim_proc *p = sim_proc_of(env);
    struct file_call c = {.path = path};
    struct sim_file *f;
    int rc = sim_call_run(&c.call, env, sim_disk_delay(p->sim), NULL);

    if (rc < 0)
        return rc;
    f = file_find(p, path);
    if (!f)
        return err_set(ERR_NOTFOUND, "no file %s", path);
    *ret = mem_alloc(f->len + 1);
    memcpy(*ret, f->data, f->len);
    *ret_len = f->len;
    return 0;
}

static void file_write_apply(struct sim_call *call)
{
    struct file_call *c = CONTAINER_OF(call, struct file_call, call);
    struct sim_file *f = file_find(call->proc, c->path);

    if (!f) {
        f = SIM_NEW(struct sim_file);
        f->path = sim_strdup(c->path);
        list_push_back(&call->proc->files, &f->link);
    }
    sim_mem_free(f->data);
    f->data = sim_memdup(c->data, c->len);
    f->len = c->len;
}

int sim_file_write(struct env *env, const char *path, const void *data, size_t len)
{
    struct file_call c = {.path = path, .data = data, .len = len};

    return sim_call_run(&c.call, env, 2 * sim_disk_delay(sim_proc_of(env)->sim), file_write_apply);
}

void sim_files_free(struct sim_proc *p)
{
    LIST_FOREACH_SAFE (f, &p->files, struct sim_file, link) {
        sim_mem_free(f->path);
        sim_mem_free(f->data);
        sim_mem_free(f);
    }
}

/* ---- threads ---- */

static int op_thread_start(struct env *env, const char *name, struct co_loop **ret)
{
    *ret = sim_loop_new(sim_proc_of(env), name)->co;
    return 0;
}

static void op_thread_stop(struct env *env, struct co_loop *loop)
{
    struct sim_loop *l = co_loop_driver(loop);
    struct co_wait wait;

    ASSERT(l->proc == sim_proc_of(env) && l != l->proc->main && l != l->proc->pool && !l->stopper);
    co_wait_init(&wait);
    l->stopper = &wait;
    sim_loop_want(l); /* it tells after a run that leaves it empty */
    (void)co_suspend(&wait, CO_UNINTERRUPTIBLE);
    sim_loop_free(l);
}

static struct co_loop *op_pool(struct env *env)
{
    return sim_proc_of(env)->pool->co;
}

const struct env_ops sim_env_ops = {
    .random = op_random,
    .random_bytes = op_random_bytes,
    .wall_ns = op_wall_ns,
    .halt = op_halt,
    .lock_file = sim_lock_file,
    .file_read = sim_file_read,
    .file_write = sim_file_write,
    .thread_start = op_thread_start,
    .thread_stop = op_thread_stop,
    .pool = op_pool,
    .disk_open = sim_disk_open,
    .disk_close = sim_disk_close,
    .disk_submit = sim_disk_submit,
    .disk_probe = sim_disk_probe,
    .net_listen = sim_net_listen,
    .net_accept = sim_net_accept,
    .net_listener_close = sim_net_listener_close,
    .net_connect = sim_net_connect,
    .net_readv = sim_net_readv,
    .net_writev = sim_net_writev,
    .net_readable = sim_net_readable,
    .net_shutdown = sim_net_shutdown,
    .net_close = sim_net_close,
    .net_conn_move = sim_net_conn_move,
    .net_dgram_open = sim_net_dgram_open,
    .net_dgram_recv = sim_net_dgram_recv,
    .net_dgram_send = sim_net_dgram_send,
    .net_dgram_close = sim_net_dgram_close,
    .coord_open = sim_coord_open,
    .coord_close = sim_coord_close,
    .coord_state = sim_coord_state,
    .coord_wait_connected = sim_coord_wait_connected,
    .coord_get = sim_coord_get,
    .coord_children = sim_coord_children,
    .coord_sync = sim_coord_sync,
    .coord_multi = sim_coord_multi,
    .coord_watch_arm = sim_coord_watch_arm,
    .coord_watch_cancel = sim_coord_watch_cancel,
    .kv_open = sim_kv_open,
    .kv_close = sim_kv_close,
    .kv_get = sim_kv_get,
    .kv_write = sim_kv_write,
    .kv_scan = sim_kv_scan,
    .kv_clear = sim_kv_clear,
};
