/* SPDX-License-Identifier: Apache-2.0
 *
 * The real environment: its table, its threads, the blocking pool, randomness, wall clock, and
 * how a program enters and leaves it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/base/buf.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/real/real.h"

#define HALT_EXIT_CODE 70 /* EX_SOFTWARE: the supervisor tells it from a crash */

static struct real_env *real_env_of(struct env *env)
{
    return CONTAINER_OF(env, struct real_env, base);
}

/* ---- randomness, wall clock, end ---- */

static void random_fill(void *dst, size_t len)
{
    uint8_t *p = dst;

    while (len > 0) {
        ssize_t n = getrandom(p, MIN(len, 256u), 0);

        if (n < 0) {
            ASSERTF(errno == EINTR, "getrandom: errno %d", errno);
            continue;
        }
        p += n;
        len -= (size_t)n;
    }
}

static void op_random_bytes(struct env *env, void *dst, size_t len)
{
    (void)env;
    random_fill(dst, len);
}

static uint64_t op_random(struct env *env)
{
    struct real_loop *l = real_loop_self();

    (void)env;
    if (l->random_left == 0) {
        random_fill(l->random, sizeof(l->random));
        l->random_left = REAL_RANDOM_WORDS;
    }
    return l->random[--l->random_left];
}

static int64_t op_wall_ns(struct env *env)
{
    struct timespec ts;

    (void)env;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

static void op_halt(struct env *env, const char *reason)
{
    (void)env;
    (void)reason; /* env_halt logged it */
    _exit(HALT_EXIT_CODE);
}

/* ---- threads ---- */

/* Last act of a thread, on its own loop but outside coroutines. */
static void *thread_main(void *arg)
{
    struct real_loop *l = arg;

    real_loop_run(l);
    if (l->stopper != NULL)
        co_resume_remote(l->stopper_loop, l->stopper, 0);
    return NULL;
}

int real_thread_start(struct real_env *env, const char *name, bool is_pool, struct real_loop **ret)
{
    struct real_loop *l;
    sigset_t all, former;
    char thread_name[16];
    int rc;

    rc = real_loop_new(env, name, is_pool, &l);
    if (rc < 0)
        return rc;
    /* Signals are for the main thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &former);
    if (co_loop() != NULL)
        real_cpu_leave(&real_loop_self()->cpu);
    rc = pthread_create(&l->thread, NULL, thread_main, l);
    pthread_sigmask(SIG_SETMASK, &former, NULL);
    if (rc != 0) {
        real_loop_free(l);
        return err_from_errno(rc, "starting thread %s", name);
    }
    strncpy(thread_name, name, sizeof(thread_name) - 1);
    thread_name[sizeof(thread_name) - 1] = '\0';
    pthread_setname_np(l->thread, thread_name);
    *ret = l;
    return 0;
}

static void stop_posted(void *arg)
{
    real_loop_stop(arg);
}

/* Waits until the thread has ended. Its loop stays until the environment ends, because another
 * thread that sent something to it may still be about to wake it. */
co_fn void real_thread_stop(struct real_loop *l)
{
    struct co_wait w;

    co_wait_init(&w);
    l->stopper_loop = co_loop();
    l->stopper = &w; /* cppcheck-suppress autoVariables ; the thread ends before we return */
    co_post(l->co, stop_posted, l);
    (void)co_suspend(&w, CO_UNINTERRUPTIBLE);
    pthread_join(l->thread, NULL); /* it is in its last instructions */
    pthread_mutex_lock(&l->env->lock);
    list_push_back(&l->env->ended, &l->ended_link);
    pthread_mutex_unlock(&l->env->lock);
}

static int op_thread_start(struct env *env, const char *name, struct co_loop **ret)
{
    struct real_env *re = real_env_of(env);
    struct real_loop *l;
    int rc;

    rc = real_thread_start(re, name, false, &l);
    if (rc < 0)
        return rc;
    atomic_fetch_add(&re->threads, 1);
    *ret = l->co;
    return 0;
}

static void op_thread_stop(struct env *env, struct co_loop *loop)
{
    real_thread_stop(co_loop_driver(loop));
    atomic_fetch_sub(&real_env_of(env)->threads, 1);
}

struct co_loop *real_pool(struct env *env)
{
    struct real_env *re = real_env_of(env);

    return re->pool[atomic_fetch_add(&re->pool_next, 1) % re->pool_threads]->co;
}

/* ---- blocking calls ---- */

struct blocking_job {
    int (*fn)(void *arg);
    void *arg;
    int rc;
    struct err_slot text;
    struct co_loop *home;
    struct co_wait wait;
};

static void blocking_run(void *arg)
{
    struct blocking_job *job = arg;

    job->rc = job->fn(job->arg);
    if (job->rc < 0)
        job->text = *co_err_slot();
    co_resume_remote(job->home, &job->wait, 0);
}

co_fn int real_blocking(struct co_loop *target, int (*fn)(void *arg), void *arg)
{
    struct blocking_job job = {.fn = fn, .arg = arg, .home = co_loop()};

    co_wait_init(&job.wait);
    co_post(target != NULL ? target : real_pool(co_loop_env(job.home)), blocking_run, &job);
    (void)co_suspend(&job.wait, CO_UNINTERRUPTIBLE);
    if (job.rc < 0)
        *co_err_slot() = job.text;
    return job.rc;
}

/* ---- enter and leave ---- */

static const struct env_ops real_ops = {
    .random = op_random,
    .random_bytes = op_random_bytes,
    .wall_ns = op_wall_ns,
    .halt = op_halt,
    .lock_file = real_lock_file,
    .file_read = real_file_read,
    .file_write = real_file_write,
    .thread_start = op_thread_start,
    .thread_stop = op_thread_stop,
    .pool = real_pool,
    .disk_open = real_disk_open,
    .disk_close = real_disk_close,
    .disk_submit = real_disk_submit,
    .disk_probe = real_disk_probe,
    .net_listen = real_net_listen,
    .net_accept = real_net_accept,
    .net_listener_close = real_net_listener_close,
    .net_connect = real_net_connect,
    .net_readv = real_net_readv,
    .net_writev = real_net_writev,
    .net_readable = real_net_readable,
    .net_shutdown = real_net_shutdown,
    .net_close = real_net_close,
    .net_conn_move = real_net_conn_move,
    .net_can_share = real_net_can_share,
    .net_share = real_net_share,
    .net_share_take = real_net_share_take,
    .net_peer_arena = real_net_peer_arena,
    .net_wait_end = real_net_wait_end,
    .net_dgram_open = real_net_dgram_open,
    .net_dgram_recv = real_net_dgram_recv,
    .net_dgram_send = real_net_dgram_send,
    .net_dgram_close = real_net_dgram_close,
    .coord_open = real_coord_open,
    .coord_close = real_coord_close,
    .coord_state = real_coord_state,
    .coord_wait_connected = real_coord_wait_connected,
    .coord_get = real_coord_get,
    .coord_children = real_coord_children,
    .coord_sync = real_coord_sync,
    .coord_multi = real_coord_multi,
    .coord_watch_arm = real_coord_watch_arm,
    .coord_watch_cancel = real_coord_watch_cancel,
    .kv_open = real_kv_open,
    .kv_close = real_kv_close,
    .kv_get = real_kv_get,
    .kv_write = real_kv_write,
    .kv_scan = real_kv_scan,
    .kv_clear = real_kv_clear,
};

struct real_main {
    struct real_env *env;
    int (*fn)(void *arg);
    void *arg;
    struct co *co; /* while it runs */
    int rc;
    ev_signal on_term, on_int;
};

static void signal_cb(struct ev_loop *ev, ev_signal *w, int revents)
{
    struct real_main *m = w->data;

    (void)ev;
    (void)revents;
    log_info("process.signal", "signal=%d", w->signum);
    if (m->co != NULL)
        co_cancel(m->co);
}

static int main_entry(void *arg)
{
    struct real_main *m = arg;
    int rc;

    m->co = co_self();
    rc = m->fn(m->arg);
    m->co = NULL;
    /* The pool is left last, by a coroutine, because stopping a thread waits for it. */
    for (uint32_t i = 0; i < m->env->pool_threads; i++)
        real_thread_stop(m->env->pool[i]);
    m->env->pool_threads = 0;
    return rc;
}

static void main_done(void *arg, int rc)
{
    struct real_main *m = arg;

    m->rc = rc;
    real_loop_stop(m->env->main);
}

static void signals_start(struct real_main *m)
{
    struct ev_loop *ev = m->env->main->ev;

    signal(SIGPIPE, SIG_IGN);
    ev_signal_init(&m->on_term, signal_cb, SIGTERM);
    ev_signal_init(&m->on_int, signal_cb, SIGINT);
    m->on_term.data = m->on_int.data = m;
    ev_signal_start(ev, &m->on_term);
    ev_signal_start(ev, &m->on_int);
}

static void signals_stop(struct real_main *m)
{
    ev_signal_stop(m->env->main->ev, &m->on_term);
    ev_signal_stop(m->env->main->ev, &m->on_int);
}

static void env_free(struct real_env *env)
{
    struct list *link;

    ASSERTF(atomic_load(&env->threads) == 0, "%u threads were not stopped",
            atomic_load(&env->threads));
    real_watch_stop(env);
    while ((link = list_pop_front(&env->ended)) != NULL)
        real_loop_free(CONTAINER_OF(link, struct real_loop, ended_link));
    if (env->main != NULL)
        real_loop_free(env->main);
    for (uint32_t i = 0; i < env->lock_count; i++)
        close(env->lock_fds[i]);
    mem_free(env->lock_fds);
    pthread_mutex_destroy(&env->lock);
    mem_free(env);
}

static int env_new(const struct env_real_conf *conf, struct real_env **ret)
{
    struct real_env *env;
    uint32_t threads = conf->pool_threads > 0 ? conf->pool_threads : REAL_POOL_THREADS_DEFAULT;
    char name[32];
    int rc;

    if (threads > REAL_POOL_THREADS_MAX)
        return err_set(ERR_INVAL, "pool of %u threads: at most %u", threads, REAL_POOL_THREADS_MAX);
    if (conf->ring_entries > REAL_RING_ENTRIES_MAX)
        return err_set(ERR_INVAL, "ring of %u entries: at most %u", conf->ring_entries,
                       REAL_RING_ENTRIES_MAX);
    env = MEM_NEW(struct real_env);
    env->base.ops = &real_ops;
    env->base.name = conf->name;
    env->ring_entries = conf->ring_entries > 0 ? conf->ring_entries : REAL_RING_ENTRIES_DEFAULT;
    env->spin_us = MIN(conf->spin_us, REAL_SPIN_US_MAX);
    pthread_mutex_init(&env->lock, NULL);
    list_init(&env->ended);
    rc = real_watch_start(env);
    ASSERTF(rc == 0, "cannot start the watchdog: %s", err_text(rc));
    rc = real_loop_new(env, "main", false, &env->main);
    if (rc < 0) {
        env_free(env);
        return rc;
    }
    /* A process that cannot start its threads at birth has nothing to save. */
    for (uint32_t i = 0; i < threads; i++) {
        snprintf(name, sizeof(name), "pool%u", i);
        rc = real_thread_start(env, name, true, &env->pool[i]);
        ASSERTF(rc == 0, "cannot start a pool thread: %s", err_text(rc));
    }
    env->pool_threads = threads;
    *ret = env;
    return 0;
}

/* Without it payloads are copied: nothing to fail for. */
static void arena_start(uint64_t bytes)
{
    struct buf_arena a = {NULL, ROUND_UP(bytes, BUF_ALIGN), -1};
    void *p;

    if (bytes == 0 || buf_arena() != NULL)
        return;
    a.fd = memfd_create("zbs-buffers", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (a.fd < 0 || ftruncate(a.fd, (off_t)a.bytes) < 0 ||
        fcntl(a.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        goto err;
    p = mmap(NULL, a.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, a.fd, 0);
    if (p == MAP_FAILED)
        goto err;
    a.base = p;
    buf_arena_set(&a);
    return;
err:
    log_warn("process.arena", "bytes=%" PRIu64 " errno=%d", a.bytes, errno);
    if (a.fd >= 0)
        close(a.fd);
}

int env_real_run(const struct env_real_conf *conf, int (*main_fn)(void *arg), void *arg)
{
    struct real_main m = {.fn = main_fn, .arg = arg};
    int rc;

    arena_start(conf->arena_bytes);
    rc = env_new(conf, &m.env);
    if (rc < 0)
        return rc;
    if (conf->handle_signals)
        signals_start(&m);
    co_loop_start(m.env->main->co, "main", main_entry, &m, main_done);
    real_loop_run(m.env->main);
    if (conf->handle_signals)
        signals_stop(&m);
    env_free(m.env);
    return m.rc;
}
