/* SPDX-License-Identifier: Apache-2.0
 *
 * The boundary of the coordination service: checks paths, sizes and results once, turns the single
 * writes into one-operation multis, and keeps the state of watches. */
#include "common/coord/coord.h"
#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/co/loop.h"
#include "common/env/env_ops.h"

#define PATH_MAX_BYTES  512
#define MULTI_MAX_BYTES (960u * 1024) /* the service refuses packets over 1 MiB */

/* "/a/b": absolute, no empty part, no "." or "..", no slash at the end; "/" alone where allowed. */
static int path_check(const char *path, bool root_allowed)
{
    size_t len = path ? strlen(path) : 0;

    if (len == 0 || path[0] != '/' || len > PATH_MAX_BYTES)
        return err_set(ERR_INVAL, "bad coordination path \"%s\"", path ? path : "");
    if (len == 1)
        return root_allowed ? 0 : err_set(ERR_INVAL, "the root node cannot be changed");
    for (const char *p = path; *p;) {
        size_t part = strcspn(p + 1, "/");

        if (part == 0 || (part == 1 && p[1] == '.') || (part == 2 && p[1] == '.' && p[2] == '.'))
            return err_set(ERR_INVAL, "bad coordination path \"%s\"", path);
        p += 1 + part;
    }
    return 0;
}

int coord_open(const char *servers, const char *root, uint32_t session_ms, struct coord **ret)
{
    struct env *env = co_loop_env(co_loop());
    struct coord *c = NULL;
    int rc = 0;

    ASSERT(servers && root);
    if (root[0])
        rc = path_check(root, false);
    if (rc == 0 && (!servers[0] || session_ms == 0))
        rc = err_set(ERR_INVAL, "no coordination servers or no session time");
    if (rc < 0)
        return rc;
    rc = env->ops->coord_open(env, servers, root, session_ms, &c);
    ASSERT(rc <= 0);
    if (rc < 0)
        return rc;
    ASSERT(c->env == env && c->loop == co_loop());
    *ret = c;
    return 0;
}

void coord_close(struct coord *c)
{
    ASSERT(c->loop == co_loop());
    c->env->ops->coord_close(c);
}

enum coord_state coord_state(const struct coord *c)
{
    return c->env->ops->coord_state(c);
}

int coord_wait_connected(struct coord *c)
{
    ASSERT(c->loop == co_loop());
    return c->env->ops->coord_wait_connected(c);
}

int coord_get(struct coord *c, const char *path, void **ret_data, size_t *ret_len,
              struct coord_stat *ret_stat)
{
    struct coord_stat stat = {0};
    void *data = NULL;
    size_t len = 0;
    int rc = path_check(path, true);

    ASSERT(c->loop == co_loop());
    if (rc < 0)
        return rc;
    rc = c->env->ops->coord_get(c, path, &data, &len, &stat);
    ASSERT(rc <= 0 && (rc < 0 || (data && stat.data_len == len)));
    if (rc < 0)
        return rc;
    if (ret_data)
        *ret_data = data;
    else
        mem_free(data);
    if (ret_len)
        *ret_len = len;
    if (ret_stat)
        *ret_stat = stat;
    return 0;
}

int coord_children(struct coord *c, const char *path, char ***ret, uint32_t *ret_n)
{
    char **names = NULL;
    uint32_t n = 0;
    int rc = path_check(path, true);

    ASSERT(c->loop == co_loop());
    if (rc < 0)
        return rc;
    rc = c->env->ops->coord_children(c, path, &names, &n);
    ASSERT(rc <= 0 && (rc < 0 || names));
    if (rc < 0)
        return rc;
    *ret = names;
    *ret_n = n;
    return 0;
}

int coord_sync(struct coord *c, const char *path)
{
    int rc = path_check(path, true);

    ASSERT(c->loop == co_loop());
    return rc < 0 ? rc : c->env->ops->coord_sync(c, path);
}

static int multi_check(const struct coord_op *ops, int n)
{
    size_t total = 0;

    for (int i = 0; i < n; i++) {
        const struct coord_op *op = &ops[i];
        int rc = path_check(op->path, op->kind == COORD_OP_CHECK);

        if (rc < 0)
            return rc;
        ASSERT((op->flags & ~(unsigned)(COORD_EPHEMERAL | COORD_SEQUENCE)) == 0);
        ASSERT(op->data || op->len == 0);
        if (op->len > COORD_DATA_MAX)
            return err_set(ERR_TOO_LARGE, "%zu bytes for node %s", op->len, op->path);
        total += op->len + strlen(op->path);
    }
    if (total > MULTI_MAX_BYTES)
        return err_set(ERR_TOO_LARGE, "multi of %zu bytes", total);
    return 0;
}

static int multi_call(struct coord *c, struct coord_op *ops, int n, bool single, char **ret_path,
                      struct coord_stat *ret_stat)
{
    struct coord_stat stat = {0};
    char *path = NULL;
    int rc;

    ASSERT(c->loop == co_loop());
    if (n < 1 || n > COORD_MULTI_MAX)
        return err_set(ERR_TOO_LARGE, "multi of %d operations", n);
    for (int i = 0; i < n; i++) {
        ops[i].rc = 0;
        ops[i].ret_version = 0;
    }
    rc = multi_check(ops, n);
    if (rc < 0)
        return rc;
    rc = c->env->ops->coord_multi(c, ops, n, single, &path, &stat);
    ASSERT(rc <= 0);
    if (rc == 0 && ret_path) {
        *ret_path = path;
        path = NULL;
    }
    if (rc == 0 && ret_stat)
        *ret_stat = stat;
    mem_free(path);
    return rc;
}

int coord_create(struct coord *c, const char *path, const void *data, size_t len, unsigned flags,
                 char **ret_path)
{
    struct coord_op op = {
        .kind = COORD_OP_CREATE, .path = path, .data = data, .len = len, .flags = flags};

    return multi_call(c, &op, 1, true, ret_path, NULL);
}

int coord_set(struct coord *c, const char *path, const void *data, size_t len, int32_t version,
              struct coord_stat *ret_stat)
{
    struct coord_op op = {
        .kind = COORD_OP_SET, .path = path, .data = data, .len = len, .version = version};

    return multi_call(c, &op, 1, true, NULL, ret_stat);
}

int coord_delete(struct coord *c, const char *path, int32_t version)
{
    struct coord_op op = {.kind = COORD_OP_DELETE, .path = path, .version = version};

    return multi_call(c, &op, 1, true, NULL, NULL);
}

int coord_multi(struct coord *c, struct coord_op *ops, int n)
{
    return multi_call(c, ops, n, false, NULL, NULL);
}

int coord_watch_arm(struct coord *c, struct coord_watch *w, enum coord_watch_kind kind,
                    const char *path)
{
    int rc = path_check(path, true);

    ASSERT(c->loop == co_loop());
    if (rc < 0)
        return rc;
    list_init(&w->link);
    list_init(&w->waiters);
    w->coord = c;
    w->fired = false;
    w->rc = 0;
    w->priv = NULL;
    rc = c->env->ops->coord_watch_arm(c, w, kind, path);
    ASSERT(rc <= 0);
    if (rc < 0)
        w->coord = NULL;
    return rc;
}

int coord_watch_wait(struct coord_watch *w)
{
    struct co_wait wait;

    if (w->fired)
        return w->rc;
    if (!w->coord)
        return err_set(ERR_CLOSED, "watch is not armed");
    co_wait_init(&wait);
    list_push_back(&w->waiters, &wait.link);
    return co_suspend(&wait, CO_INTERRUPTIBLE);
}

static void watch_wake(struct coord_watch *w, int rc)
{
    struct list *elem;

    while ((elem = list_pop_front(&w->waiters)))
        co_resume(LIST_ENTRY(elem, struct co_wait, link), rc);
}

void coord_watch_fire(struct coord_watch *w, int rc)
{
    if (w->fired)
        return;
    list_del(&w->link);
    w->fired = true;
    w->rc = rc;
    watch_wake(w, rc);
}

void coord_watch_cancel(struct coord_watch *w)
{
    struct coord *c = w->coord;

    if (!c)
        return;
    if (!w->fired)
        c->env->ops->coord_watch_cancel(w);
    list_del(&w->link);
    w->coord = NULL;
    watch_wake(w, ERR_CANCELED);
}
