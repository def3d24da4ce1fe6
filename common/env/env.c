/* SPDX-License-Identifier: Apache-2.0
 *
 * The boundary of the environment: checks what callers promise and what implementations promise,
 * then dispatches through the running loop's environment. */
#include "common/env/env.h"
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/co/loop.h"
#include "common/env/env_ops.h"
#include "common/env/net_tls_int.h"
#include "common/env/overlay.h"

#define DISK_IOV_MAX 1024
#define DISK_ALIGN   4096u
#define UNIX_MAX     100 /* sun_path has 108 bytes */

static struct env *env_here(void)
{
    struct co_loop *loop = co_loop();

    ASSERTF(loop && co_self(), "environment used outside a coroutine");
    return co_loop_env(loop);
}

/* ---- randomness, wall clock, process ---- */

uint64_t env_random(void)
{
    struct env *env = env_here();

    return env->ops->random(env);
}

void env_random_bytes(void *dst, size_t len)
{
    struct env *env = env_here();

    env->ops->random_bytes(env, dst, len);
}

int64_t env_wall_ns(void)
{
    struct env *env = env_here();

    return env->ops->wall_ns(env);
}

void env_halt(const char *fmt, ...)
{
    struct env *env = env_here();
    char reason[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(reason, sizeof(reason), fmt, ap);
    va_end(ap);
    log_error("process.halt", "reason=\"%s\"", reason);
    env->ops->halt(env, reason);
    abort(); /* the implementation does not return */
}

/* A predecessor that was killed may have requests at its disks, and holds its lock until they end.
 */
#define LOCK_PATIENCE (3 * NSEC_PER_SEC)

int env_lock_file(const char *path)
{
    struct env *env = env_here();

    nsec_t end = co_now() + LOCK_PATIENCE;
    int rc;

    ASSERT(path && path[0]);
    do
        rc = env->ops->lock_file(env, path);
    while (rc == ERR_BUSY && co_now() < end && co_sleep(50 * NSEC_PER_MSEC) == 0);
    return rc;
}

int env_file_read(const char *path, char **ret, size_t *ret_len)
{
    struct env *env = env_here();
    char *data = NULL;
    size_t len = 0;
    int rc;

    ASSERT(path && path[0] && ret);
    rc = env->ops->file_read(env, path, &data, &len);
    ASSERT(rc <= 0 && (rc < 0 || (data && data[len] == 0)));
    if (rc < 0)
        return rc;
    *ret = data;
    if (ret_len)
        *ret_len = len;
    return 0;
}

int env_file_write(const char *path, const void *data, size_t len)
{
    struct env *env = env_here();

    ASSERT(path && path[0] && (data || len == 0));
    return env->ops->file_write(env, path, data, len);
}

/* ---- threads ---- */

int env_thread_start(const char *name, struct co_loop **ret)
{
    struct env *env = env_here();
    struct co_loop *loop = NULL;
    int rc = env->ops->thread_start(env, name, &loop);

    ASSERT(rc <= 0 && (rc < 0 || co_loop_env(loop) == env));
    if (rc == 0)
        *ret = loop;
    return rc;
}

void env_thread_stop(struct co_loop *loop)
{
    struct env *env = env_here();

    ASSERT(loop != co_loop() && co_loop_env(loop) == env);
    env->ops->thread_stop(env, loop);
}

struct co_loop *env_pool(void)
{
    struct env *env = env_here();

    return env->ops->pool(env);
}

/* ---- disks ---- */

int disk_open(const char *path, unsigned flags, struct disk **ret)
{
    struct env *env = env_here();
    struct disk *d = NULL;
    int rc;

    ASSERT(path && (flags & ~(unsigned)(DISK_READ_ONLY | DISK_EXCLUSIVE)) == 0);
    rc = env->ops->disk_open(env, path, flags, &d);
    ASSERT(rc <= 0);
    if (rc < 0)
        return rc;
    ASSERT(d->env == env && d->loop == co_loop() && d->info.block_bytes > 0);
    ASSERT(d->info.physical_bytes >= d->info.block_bytes);
    list_init(&d->waited);
    d->window = (struct disk_window){0};
    d->overlay = NULL;
    *ret = d;
    return 0;
}

void disk_close(struct disk *d)
{
    ASSERT(d->loop == co_loop());
    d->env->ops->disk_close(d);
}

const struct disk_info *disk_info(const struct disk *d)
{
    return &d->info;
}

static uint64_t disk_iov_bytes(const struct disk_req *r)
{
    uint64_t sum = 0;

    ASSERTF(r->iov_count > 0 && r->iov_count <= DISK_IOV_MAX, "%d vectors", r->iov_count);
    for (int i = 0; i < r->iov_count; i++) {
        ASSERTF((uintptr_t)r->iov[i].iov_base % DISK_ALIGN == 0, "vector %d not aligned", i);
        ASSERTF(r->iov[i].iov_len > 0 && r->iov[i].iov_len % r->disk->info.block_bytes == 0,
                "vector %d of %zu bytes", i, r->iov[i].iov_len);
        sum += r->iov[i].iov_len;
    }
    return sum;
}

void disk_submit(struct disk_req *r)
{
    struct disk *d = r->disk;
    uint32_t unit = r->op == DISK_DISCARD ? DISK_ALIGN : d->info.block_bytes;

    ASSERTF(d->loop == co_loop(), "disk used on another loop than the one that opened it");
    if (r->op == DISK_READ || r->op == DISK_WRITE)
        r->len = disk_iov_bytes(r);
    else if (r->op == DISK_FLUSH)
        r->off = r->len = 0;
    ASSERTF(r->off % unit == 0 && r->len % unit == 0, "offset %" PRIu64 " length %" PRIu64, r->off,
            r->len);
    ASSERTF(r->off <= d->info.size_bytes && r->len <= d->info.size_bytes - r->off,
            "offset %" PRIu64 " length %" PRIu64 " beyond %" PRIu64, r->off, r->len,
            d->info.size_bytes);
    r->rc = 0;
    r->submitted = co_now();
    r->latency_ns = 0;
    co_wait_init(&r->wait);
    list_init(&r->waited);
    list_push_back(&d->waited, &r->waited);
    if (d->overlay == NULL || !disk_overlay_submit(r))
        d->env->ops->disk_submit(r);
}

int disk_wait(struct disk_req *r)
{
    static const char *const names[] = {"read", "write", "flush", "discard"};
    int rc = co_suspend(&r->wait, CO_UNINTERRUPTIBLE);

    r->rc = rc;
    if (r->latency_ns == 0)
        r->latency_ns = co_now() - r->submitted;
    list_del(&r->waited);
    disk_window_count(&r->disk->window, r);
    if (rc < 0)
        return err_set(rc, "%s of %" PRIu64 " bytes at %" PRIu64 " failed", names[r->op], r->len,
                       r->off);
    ASSERT(rc == 0);
    if (r->disk->overlay != NULL)
        disk_overlay_read(r);
    return 0;
}

void disk_window_take(struct disk *d, struct disk_window *ret)
{
    ASSERT(d->loop == co_loop());
    *ret = d->window;
    ret->oldest = 0;
    LIST_FOREACH (r, &d->waited, struct disk_req, waited) {
        if (r->wait.done)
            continue; /* answered, and nobody looked yet */
        ret->oldest = co_now() - r->submitted;
        break;
    }
    d->window = (struct disk_window){0};
}

static int disk_do(struct disk *d, enum disk_op op, const struct iovec *iov, int n, uint64_t off,
                   uint64_t len, bool durable)
{
    struct disk_req r = {
        .op = op,
        .durable = durable,
        .disk = d,
        .off = off,
        .len = len,
        .iov = iov,
        .iov_count = n,
    };

    disk_submit(&r);
    return disk_wait(&r);
}

int disk_read(struct disk *d, void *dst, size_t len, uint64_t off)
{
    struct iovec iov = {.iov_base = dst, .iov_len = len};

    return disk_do(d, DISK_READ, &iov, 1, off, 0, false);
}

int disk_readv(struct disk *d, const struct iovec *iov, int n, uint64_t off)
{
    return disk_do(d, DISK_READ, iov, n, off, 0, false);
}

int disk_write(struct disk *d, const void *src, size_t len, uint64_t off, bool durable)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)src, .iov_len = len};

    return disk_do(d, DISK_WRITE, &iov, 1, off, 0, durable);
}

int disk_writev(struct disk *d, const struct iovec *iov, int n, uint64_t off, bool durable)
{
    return disk_do(d, DISK_WRITE, iov, n, off, 0, durable);
}

int disk_flush(struct disk *d)
{
    return disk_do(d, DISK_FLUSH, NULL, 0, 0, 0, false);
}

int disk_discard(struct disk *d, uint64_t off, uint64_t len)
{
    if (len == 0)
        return 0;
    return disk_do(d, DISK_DISCARD, NULL, 0, off, len, false);
}

int disk_probe(const char *path)
{
    struct env *env = env_here();

    ASSERT(path);
    return env->ops->disk_probe(env, path);
}

/* ---- network ---- */

/* Is this "ip:port", "[ip6]:port" or "unix:path"? */
static int addr_check(const char *addr)
{
    char host[NET_ADDR_MAX];
    unsigned char ip[16];
    size_t len = strlen(addr);
    const char *colon = strrchr(addr, ':');
    char *end;
    unsigned long port;

    if (len >= NET_ADDR_MAX)
        return err_set(ERR_INVAL, "address of %zu bytes is too long", len);
    if (strncmp(addr, "unix:", 5) == 0) {
        if (len == 5 || len > UNIX_MAX)
            return err_set(ERR_INVAL, "bad path in address \"%s\"", addr);
        return 0;
    }
    if (!colon || colon[1] < '0' || colon[1] > '9')
        return err_set(ERR_INVAL, "address \"%s\" has no port", addr);
    port = strtoul(colon + 1, &end, 10);
    if (*end || port > 65535)
        return err_set(ERR_INVAL, "bad port in address \"%s\"", addr);
    memcpy(host, addr, (size_t)(colon - addr));
    host[colon - addr] = 0;
    if (host[0] == '[' && colon - addr > 2 && host[colon - addr - 1] == ']') {
        host[colon - addr - 1] = 0;
        if (inet_pton(AF_INET6, host + 1, ip) == 1)
            return 0;
    } else if (inet_pton(AF_INET, host, ip) == 1) {
        return 0;
    }
    return err_set(ERR_INVAL, "address \"%s\" is not numeric", addr);
}

static int addr_check_inet(const char *addr)
{
    if (strncmp(addr, "unix:", 5) == 0)
        return err_set(ERR_INVAL, "\"%s\" is a UNIX socket", addr);
    return addr_check(addr);
}

int net_listen(const char *addr, struct net_listener **ret)
{
    struct env *env = env_here();
    struct net_listener *l = NULL;
    int rc = addr_check(addr);

    if (rc < 0)
        return rc;
    rc = env->ops->net_listen(env, addr, &l);
    ASSERT(rc <= 0);
    if (rc < 0)
        return rc;
    ASSERT(l->env == env && l->loop == co_loop() && l->addr[0]);
    *ret = l;
    return 0;
}

const char *net_listener_addr(const struct net_listener *l)
{
    return l->addr;
}

/* What both accept and connect promise. */
static int conn_result(struct env *env, int rc, struct net_conn *c, struct net_conn **ret)
{
    ASSERT(rc <= 0);
    if (rc < 0)
        return rc;
    ASSERT(c->env == env && c->loop == co_loop() && !c->reading && !c->writing && !c->shut);
    *ret = c;
    return 0;
}

int net_accept(struct net_listener *l, struct net_conn **ret)
{
    struct net_conn *c = NULL;
    int rc;

    ASSERT(l->loop == co_loop());
    rc = l->env->ops->net_accept(l, &c);
    /* l may be closed and gone by now */
    return conn_result(env_here(), rc, c, ret);
}

void net_listener_close(struct net_listener *l)
{
    ASSERT(l->loop == co_loop());
    l->env->ops->net_listener_close(l);
}

static int connect_from(const char *from, const char *addr, struct net_conn **ret)
{
    struct env *env = env_here();
    struct net_conn *c = NULL;
    int rc = addr_check(addr);

    if (rc == 0 && from != NULL)
        rc = addr_check_inet(from);
    if (rc < 0)
        return rc;
    rc = env->ops->net_connect(env, from, addr, &c);
    return conn_result(env, rc, c, ret);
}

int net_connect(const char *addr, struct net_conn **ret)
{
    return connect_from(NULL, addr, ret);
}

int net_connect_from(const char *from, const char *addr, struct net_conn **ret)
{
    return connect_from(from, addr, ret);
}

ssize_t net_readv(struct net_conn *c, const struct iovec *iov, int n)
{
    ssize_t got;

    ASSERTF(c->loop == co_loop(), "connection used on another loop");
    ASSERTF(!c->reading, "two readers on the connection to %s", c->peer);
    ASSERT(n > 0);
    if (c->shut)
        return err_set(ERR_CLOSED, "connection to %s was shut down", c->peer);
    c->reading = true;
    got = c->tls != NULL ? net_tls_readv(c, iov, n) : c->env->ops->net_readv(c, iov, n);
    ASSERT(got != 0);
    c->reading = false;
    return got;
}

int net_read_full(struct net_conn *c, void *dst, size_t len)
{
    size_t done = 0;

    while (done < len) {
        struct iovec iov = {.iov_base = (char *)dst + done, .iov_len = len - done};
        ssize_t n = net_readv(c, &iov, 1);

        if (n < 0 && done > 0)
            return err_prefix((int)n, "after %zu of %zu bytes", done, len);
        if (n < 0)
            return (int)n;
        done += (size_t)n;
        ASSERT(done <= len);
    }
    return 0;
}

/* Drops the first bytes of a vector; returns how many whole entries are gone. */
static int iov_consume(struct iovec *iov, int n, size_t bytes)
{
    int i = 0;

    while (i < n && bytes >= iov[i].iov_len) {
        bytes -= iov[i].iov_len;
        i++;
    }
    if (bytes > 0) {
        ASSERT(i < n);
        iov[i].iov_base = (char *)iov[i].iov_base + bytes;
        iov[i].iov_len -= bytes;
    }
    return i;
}

static co_fn int plain_writev_full(struct net_conn *c, struct iovec *iov, int n)
{
    int done = iov_consume(iov, n, 0); /* leading empty entries */

    while (done < n) {
        ssize_t sent;

        if (c->shut)
            return err_set(ERR_CLOSED, "connection to %s was shut down", c->peer);
        sent = c->env->ops->net_writev(c, iov + done, MIN(n - done, DISK_IOV_MAX));
        ASSERT(sent != 0);
        if (sent < 0)
            return (int)sent;
        done += iov_consume(iov + done, n - done, (size_t)sent);
    }
    return 0;
}

int net_writev_full(struct net_conn *c, struct iovec *iov, int n)
{
    int rc;

    ASSERTF(c->loop == co_loop(), "connection used on another loop");
    ASSERTF(!c->writing, "two writers on the connection to %s", c->peer);
    c->writing = true;
    rc = c->tls != NULL ? net_tls_writev_full(c, iov, n) : plain_writev_full(c, iov, n);
    c->writing = false;
    return rc;
}

bool net_readable(struct net_conn *c)
{
    ASSERT(c->loop == co_loop());
    return !c->shut && ((c->tls != NULL && net_tls_readable(c)) || c->env->ops->net_readable(c));
}

const char *net_peer(const struct net_conn *c)
{
    return c->peer;
}

const char *net_local(const struct net_conn *c)
{
    return c->local;
}

void net_shutdown(struct net_conn *c)
{
    ASSERTF(c->loop == co_loop(), "connection used on another loop");
    if (c->shut)
        return;
    c->shut = true;
    c->env->ops->net_shutdown(c);
}

void net_close(struct net_conn *c)
{
    ASSERTF(c->loop == co_loop(), "connection used on another loop");
    ASSERTF(!c->reading && !c->writing, "connection to %s closed while in use", c->peer);
    net_tls_close(c);
    c->env->ops->net_close(c);
}

void net_conn_move(struct net_conn *c, struct co_loop *target)
{
    ASSERTF(c->loop == co_loop(), "connection used on another loop");
    ASSERT(!c->reading && !c->writing && co_loop_env(target) == c->env);
    if (target != c->loop)
        c->env->ops->net_conn_move(c, target);
    ASSERT(c->loop == target);
}

bool net_can_share(struct net_conn *c)
{
    ASSERT(c->loop == co_loop());
    return c->env->ops->net_can_share != NULL && c->tls == NULL && c->env->ops->net_can_share(c);
}

/* Nobody may be in the middle of using a stream whose ways change. */
static void share_check(const struct net_conn *c)
{
    ASSERTF(c->loop == co_loop(), "connection used on another loop");
    ASSERT(!c->reading && !c->writing && !c->shared && c->env->ops->net_can_share != NULL);
}

static int share_result(struct net_conn *c, int rc)
{
    ASSERT(rc <= 0);
    c->reading = c->writing = false;
    c->shared = rc == 0;
    return rc;
}

int net_share(struct net_conn *c)
{
    share_check(c);
    c->reading = c->writing = true;
    return share_result(c, c->env->ops->net_share(c));
}

int net_share_take(struct net_conn *c)
{
    share_check(c);
    c->reading = c->writing = true;
    return share_result(c, c->env->ops->net_share_take(c));
}

bool net_peer_arena(struct net_conn *c, struct net_arena *ret)
{
    ASSERT(c->loop == co_loop());
    return c->shared && c->env->ops->net_peer_arena(c, ret);
}

int net_wait_end(struct net_conn *c)
{
    ASSERT(c->loop == co_loop() && c->shared && c->shut && !c->reading);
    return c->env->ops->net_wait_end(c);
}

/* ---- datagrams ---- */

int net_dgram_open(const char *addr, struct net_dgram **ret)
{
    struct env *env = env_here();
    struct net_dgram *d = NULL;
    int rc = addr_check_inet(addr);

    if (rc == 0)
        rc = env->ops->net_dgram_open(env, addr, &d);
    ASSERT(rc <= 0);
    if (rc < 0)
        return rc;
    ASSERT(d->env == env && d->loop == co_loop() && d->addr[0] && !d->receiving);
    *ret = d;
    return 0;
}

const char *net_dgram_addr(const struct net_dgram *d)
{
    return d->addr;
}

ssize_t net_dgram_recv(struct net_dgram *d, void *dst, size_t len, struct net_way *ret)
{
    ssize_t got;

    ASSERT(d->loop == co_loop() && !d->receiving);
    d->receiving = true;
    got = d->env->ops->net_dgram_recv(d, dst, len, ret);
    d->receiving = false;
    ASSERT(got <= (ssize_t)len);
    return got;
}

int net_dgram_send(struct net_dgram *d, const void *src, size_t len, const struct net_way *way)
{
    int rc = addr_check_inet(way->peer);

    ASSERT(d->loop == co_loop() && len <= NET_DATAGRAM_MAX);
    if (rc == 0 && way->local[0] != 0)
        rc = addr_check_inet(way->local);
    if (rc == 0)
        d->env->ops->net_dgram_send(d, src, len, way);
    return rc;
}

void net_dgram_close(struct net_dgram *d)
{
    ASSERT(d->loop == co_loop() && !d->receiving);
    d->env->ops->net_dgram_close(d);
}
