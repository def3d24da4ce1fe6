/* SPDX-License-Identifier: Apache-2.0
 *
 * The coordination service on ZooKeeper: the session. The single-threaded client library says
 * which descriptor it wants watched and for how long (zookeeper_interest) and is told what
 * happened (zookeeper_process). One coroutine a handle, the driver, does both in a loop; all
 * completions and watch callbacks run inside it and only mark coroutines ready.
 *
 * The library reconnects by itself and often gets the same descriptor number again for a new
 * socket, which the kernel's poll set does not know: so unless it is connected, the descriptor is
 * registered anew after every zookeeper_interest. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/real/coord_zk.h"
#include "common/env/real/net_addr.h"

#define SERVERS_MAX       16u
#define RETRY_PAUSE_MIN   (10 * NSEC_PER_MSEC)
#define RETRY_PAUSE_MAX   (250 * NSEC_PER_MSEC)
#define ATTEMPT_MAX_LEAST (200 * NSEC_PER_MSEC)
#define ATTEMPT_MAX_MOST  NSEC_PER_SEC
#define SESSION_MS_MIN    100u
#define SESSION_MS_MAX    (10u * 60 * 1000)

/* ---- state ---- */

static void state_set(struct coord_zk *zk, enum coord_state state)
{
    static const char *const names[] = {"connecting", "connected", "expired"};

    if (zk->state == state || zk->state == COORD_EXPIRED)
        return;
    zk->state = state;
    if (!zk->closing)
        log_info("coord.state", "state=%s", names[state]);
    if (state == COORD_EXPIRED)
        zk_watches_fire(zk, ERR_EXPIRED);
    co_cond_broadcast(&zk->changed);
}

void zk_kick(struct coord_zk *zk)
{
    struct list *link = list_pop_front(&zk->driver_waiters);

    if (link != NULL)
        co_resume(CONTAINER_OF(link, struct co_wait, link), 0);
}

/* Creates each part of the root. A failure here means that the connection broke; the next one
 * starts anew. */
static co_fn int root_make(void *arg)
{
    struct coord_zk *zk = arg;
    char *path = mem_strdup(zk->root), *p = path;
    int rc = 0;

    while (rc == 0 && p != NULL) {
        p = strchr(p + 1, '/');
        if (p != NULL)
            *p = '\0';
        rc = zk_create_plain(zk, path);
        if (p != NULL)
            *p = '/';
    }
    mem_free(path);
    if (rc < 0) {
        log_warn("coord.root", "root=%s error=%s text=\"%s\"", zk->root, err_name(rc),
                 err_text(rc));
        return 0;
    }
    zk->root_made = true;
    if (zk->session_up)
        state_set(zk, COORD_CONNECTED);
    return 0;
}

static void session_cb(zhandle_t *zh, int type, int state, const char *path, void *context)
{
    struct coord_zk *zk = context;

    (void)zh;
    (void)path;
    if (type != ZOO_SESSION_EVENT || zk->closing)
        return;
    if (state == ZOO_EXPIRED_SESSION_STATE || state == ZOO_AUTH_FAILED_STATE) {
        zk->session_up = false;
        state_set(zk, COORD_EXPIRED);
        return;
    }
    zk->session_up = state == ZOO_CONNECTED_STATE;
    if (!zk->session_up)
        state_set(zk, COORD_CONNECTING);
    else if (zk->root_made)
        state_set(zk, COORD_CONNECTED);
    else
        (void)co_spawn(&zk->group, "coord.root", root_make, zk);
}

/* ---- driver ---- */

struct driver_wait {
    struct co_wait w;
    int events;
};

/* The library's descriptor sits in a poll set of our own, which libev watches: libev would compare
 * numbers and miss that a number stands for another socket. */
static void io_cb(struct ev_loop *ev, ev_io *w, int revents)
{
    struct coord_zk *zk = w->data;
    struct epoll_event event;
    struct list *link;

    (void)ev;
    (void)revents;
    if (epoll_wait(zk->poll_fd, &event, 1, 0) != 1)
        return;
    link = list_pop_front(&zk->driver_waiters);
    if (link != NULL) { /* else it is there at the next turn: level-triggered */
        struct driver_wait *dw = CONTAINER_OF(link, struct driver_wait, w.link);

        dw->events = (event.events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? ZOOKEEPER_READ : 0) |
                     (event.events & (EPOLLOUT | EPOLLHUP | EPOLLERR) ? ZOOKEEPER_WRITE : 0);
        co_resume(&dw->w, 0);
    }
}

static void io_watch(struct coord_zk *zk, int fd, int interest)
{
    struct epoll_event event = {.events = (interest & ZOOKEEPER_READ ? EPOLLIN : 0) |
                                          (interest & ZOOKEEPER_WRITE ? EPOLLOUT : 0)};
    bool same = zk->watched_fd == fd && zk->watched_interest == interest;

    if (same && (fd < 0 || zoo_state(zk->zh) == ZOO_CONNECTED_STATE))
        return;
    if (zk->watched_fd >= 0)
        (void)epoll_ctl(zk->poll_fd, EPOLL_CTL_DEL, zk->watched_fd, NULL); /* or closed it was */
    zk->watched_fd = fd;
    zk->watched_interest = interest;
    /* The library may have closed it, and another thread given its number to a file (EPERM). */
    if (fd >= 0 && epoll_ctl(zk->poll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        ASSERTF(errno == EBADF || errno == EEXIST || errno == EPERM, "epoll_ctl: errno %d", errno);
}

/* Until the descriptor is ready, the library wants to be called, or zk_kick. Returns the
 * library's event bits; *ret_kicked if there is nothing to process. */
static co_fn int driver_wait(struct coord_zk *zk, const struct timeval *tv, bool *ret_kicked)
{
    nsec_t until = co_now() + tv->tv_sec * NSEC_PER_SEC + tv->tv_usec * NSEC_PER_USEC;
    nsec_t former = co_deadline();
    struct driver_wait dw = {.events = 0};
    int rc;

    co_wait_init(&dw.w);
    list_push_back(&zk->driver_waiters, &dw.w.link);
    (void)co_deadline_push(until);
    rc = co_suspend(&dw.w, CO_INTERRUPTIBLE);
    co_deadline_restore(former);
    list_del(&dw.w.link);
    *ret_kicked = rc == 0 && dw.events == 0;
    return dw.events;
}

/* The library shuffles its servers before each attempt to connect and then forgets how many it
 * tried, so it would retry without a pause. Each server gets a first try at once. */
static co_fn void attempt_pace(struct coord_zk *zk)
{
    int state = zoo_state(zk->zh);
    nsec_t pause, until;
    bool kicked;

    if (state == ZOO_CONNECTED_STATE) {
        zk->attempted = false;
        zk->attempt_until = 0;
        zk->failures = 0;
    }
    if (!zk->attempted || state == ZOO_CONNECTED_STATE || state == ZOO_CONNECTING_STATE ||
        state == ZOO_ASSOCIATING_STATE)
        return;
    zk->attempted = false;
    zk->attempt_until = 0;
    if (++zk->failures <= zk->server_count)
        return;
    pause = RETRY_PAUSE_MIN << MIN(zk->failures - zk->server_count - 1, 8u);
    until = co_now() + MIN(pause, RETRY_PAUSE_MAX);
    while (!zk->closing && co_now() < until) {
        nsec_t left = until - co_now();
        struct timeval tv = {.tv_usec = (suseconds_t)(MAX(left, 0) / NSEC_PER_USEC + 1)};

        (void)driver_wait(zk, &tv, &kicked);
    }
}

/* Ends an attempt to connect that takes too long: a server that has only begun to listen may
 * accept a connection and then never answer, and a silent host answers nothing at all. The
 * library itself would wait for two thirds of the session's time. */
static void attempt_bound(struct coord_zk *zk, int fd, struct timeval *tv)
{
    int state = zoo_state(zk->zh);
    nsec_t now = co_now(), left;

    if (fd < 0 || (state != ZOO_CONNECTING_STATE && state != ZOO_ASSOCIATING_STATE))
        return;
    zk->attempted = true;
    if (zk->attempt_until == 0)
        zk->attempt_until = now + zk->attempt_max;
    left = zk->attempt_until - now;
    if (left <= 0) {
        (void)shutdown(fd, SHUT_RDWR); /* an event for the library, which closes it */
        return;
    }
    if (left < tv->tv_sec * NSEC_PER_SEC + tv->tv_usec * NSEC_PER_USEC) {
        tv->tv_sec = left / NSEC_PER_SEC;
        tv->tv_usec = left % NSEC_PER_SEC / NSEC_PER_USEC + 1;
    }
}

static co_fn int driver(void *arg)
{
    struct coord_zk *zk = arg;
    bool kicked;

    while (!zk->closing) {
        struct timeval tv = {.tv_sec = 1};
        int fd = -1, interest = 0, events;

        attempt_pace(zk);
        (void)zookeeper_interest(zk->zh, &fd, &interest, &tv); /* what it says, its state says */
        if (is_unrecoverable(zk->zh) != ZOK) {
            state_set(zk, COORD_EXPIRED);
            break;
        }
        io_watch(zk, fd, interest);
        attempt_bound(zk, fd, &tv);
        events = driver_wait(zk, &tv, &kicked);
        if (!zk->closing && !kicked)
            (void)zookeeper_process(zk->zh, events);
    }
    io_watch(zk, -1, 0); /* before the library closes it, maybe on another thread */
    return 0;
}

/* ---- open and close ---- */

static void client_log_cb(const char *message)
{
    log_debug("coord.client", "text=\"%s\"", message);
}

/* Comma-separated numeric addresses: a name would be resolved by the library, on our loop. */
static int servers_check(const char *servers, uint32_t *ret_count)
{
    const char *p = servers;
    uint32_t count = 0;

    while (true) {
        size_t len = strcspn(p, ",");
        struct net_addr addr;
        char one[NET_ADDR_MAX];
        int rc;

        if (len >= sizeof(one))
            return err_set(ERR_INVAL, "address of a coordination server is too long");
        memcpy(one, p, len);
        one[len] = '\0';
        rc = net_addr_parse(one, &addr);
        if (rc < 0)
            return err_prefix(rc, "coordination servers");
        if (addr.sa.sa_family == AF_UNIX)
            return err_set(ERR_INVAL, "coordination server %s: not a TCP address", one);
        if (++count > SERVERS_MAX)
            return err_set(ERR_TOO_LARGE, "more than %u coordination servers", SERVERS_MAX);
        if (p[len] == '\0')
            break;
        p += len + 1;
    }
    *ret_count = count;
    return 0;
}

struct init_job {
    struct coord_zk *zk;
    const char *servers;
    int session_ms;
};

static int init_blocking(void *arg)
{
    struct init_job *job = arg;
    struct coord_zk *zk = job->zk;
    int rc;

    zk->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (zk->poll_fd < 0)
        return err_from_errno(errno, "poll set for %s", job->servers);
    zoo_set_debug_level(ZOO_LOG_LEVEL_WARN);
    zk->zh = zookeeper_init2(job->servers, session_cb, job->session_ms, NULL, zk,
                             ZOO_NO_LOG_CLIENTENV, client_log_cb);
    if (zk->zh == NULL) {
        rc = err_from_errno(errno, "ZooKeeper client for %s", job->servers);
        close(zk->poll_fd);
        return rc;
    }
    /* Else every zookeeper_interest resolves all servers again. */
    (void)zoo_set_servers_resolution_delay(zk->zh, -1);
    return 0;
}

int real_coord_open(struct env *env, const char *servers, const char *root, uint32_t session_ms,
                    struct coord **ret)
{
    struct init_job job = {.servers = servers};
    struct coord_zk *zk;
    uint32_t server_count = 0;
    int rc;

    rc = servers_check(servers, &server_count);
    if (rc < 0)
        return rc;
    if (session_ms < SESSION_MS_MIN || session_ms > SESSION_MS_MAX)
        return err_set(ERR_INVAL, "session of %" PRIu32 " ms: %u to %u", session_ms, SESSION_MS_MIN,
                       SESSION_MS_MAX);
    zk = MEM_NEW(struct coord_zk);
    zk->base.env = env;
    zk->base.loop = co_loop();
    zk->root = mem_strdup(root);
    zk->root_made = root[0] == '\0';
    zk->state = COORD_CONNECTING;
    co_cond_init(&zk->changed);
    co_mutex_init(&zk->gate);
    zk->wait_max = session_ms * NSEC_PER_MSEC / 3;
    co_group_init(&zk->group);
    list_init(&zk->driver_waiters);
    list_init(&zk->reqs);
    list_init(&zk->watches);
    zk->watched_fd = -1;
    zk->server_count = server_count;
    zk->attempt_max = MIN(MAX(session_ms / 4 * NSEC_PER_MSEC, ATTEMPT_MAX_LEAST), ATTEMPT_MAX_MOST);
    job.zk = zk;
    job.session_ms = (int)session_ms;
    rc = real_blocking(NULL, init_blocking, &job);
    if (rc < 0) {
        mem_free(zk->root);
        mem_free(zk);
        return rc;
    }
    ev_io_init(&zk->io, io_cb, zk->poll_fd, EV_READ);
    zk->io.data = zk;
    real_ev_io_start(real_loop_self(), &zk->io);
    (void)co_spawn_detached_deadline(&zk->group, "coord.driver", driver, zk);
    *ret = &zk->base;
    return 0;
}

static int close_blocking(void *arg)
{
    (void)zookeeper_close(arg); /* ends the session; may wait seconds for a server that is stuck */
    return 0;
}

void real_coord_close(struct coord *c)
{
    struct coord_zk *zk = zk_of(c);

    zk->closing = true;
    zk_watches_fire(zk, ERR_CLOSED);
    state_set(zk, COORD_EXPIRED);
    zk_reqs_abandon(zk);
    do /* whoever was in a call comes out of it: first come, first served */
        (void)co_yield ();
    while (zk->gate.holder != NULL);
    (void)co_group_close(&zk->group);
    ev_io_stop(real_loop_self()->ev, &zk->io);
    close(zk->poll_fd);
    (void)real_blocking(NULL, close_blocking, zk->zh);
    /* Its completions freed all requests: nobody waited for them any more. */
    ASSERT(list_empty(&zk->reqs));
    zk_watches_free(zk);
    mem_free(zk->root);
    mem_free(zk);
}

enum coord_state real_coord_state(const struct coord *c)
{
    return zk_of(c)->state;
}

int real_coord_wait_connected(struct coord *c)
{
    struct coord_zk *zk = zk_of(c);
    int rc = 0;

    while (rc == 0 && zk->state == COORD_CONNECTING)
        rc = co_cond_wait(&zk->changed);
    if (rc < 0)
        return err_prefix(rc, "waiting for the coordination service");
    if (zk->state == COORD_EXPIRED)
        return err_set(ERR_EXPIRED, "coordination session expired");
    return 0;
}
