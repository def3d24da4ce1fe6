/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads and writes of the ZooKeeper handle. Each is one asynchronous request of the client
 * library; its record lives on the heap, because the completion may come long after the coroutine
 * was cancelled. The library sends requests in order of submission and the service answers in
 * order, which gives the ordering that coord.h promises. */
#include <stdlib.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/env/real/coord_zk.h"

#define SEQUENCE_DIGITS 10 /* appended by the service to a sequential node's name */

char *zk_path(const struct coord_zk *zk, const char *path)
{
    if (zk->root[0] != '\0' && strcmp(path, "/") == 0)
        return mem_strdup(zk->root);
    return mem_printf("%s%s", zk->root, path);
}

static int state_error(const struct coord_zk *zk)
{
    if (zk->state == COORD_EXPIRED)
        return err_set(ERR_EXPIRED, "coordination session expired");
    if (zk->state != COORD_CONNECTED)
        return err_set(ERR_UNREACHABLE, "not connected to the coordination service");
    return 0;
}

co_fn int zk_usable(struct coord_zk *zk)
{
    nsec_t former = co_deadline(), until;
    int rc;

    if (zk->state != COORD_CONNECTING && zk->gate.holder == NULL)
        return state_error(zk);
    until = co_now() + zk->wait_max;
    (void)co_deadline_push(until);
    rc = co_mutex_lock(&zk->gate);
    if (rc == 0) {
        while (rc == 0 && zk->state == COORD_CONNECTING)
            rc = co_cond_wait(&zk->changed);
        co_mutex_unlock(&zk->gate);
    }
    co_deadline_restore(former);
    if (rc == 0 || zk->state == COORD_EXPIRED)
        return state_error(zk);
    if (rc == ERR_TIMEOUT && until < former)
        return err_set(ERR_UNREACHABLE, "not connected to the coordination service");
    return err_set(rc, "waiting for the coordination service: %s", err_default_text(rc));
}

int zk_error(int zrc, bool write, const char *path)
{
    switch (zrc) {
    case ZNONODE:
        return err_set(ERR_NOTFOUND, "no node %s", path);
    case ZNODEEXISTS:
        return err_set(ERR_EXISTS, "node %s exists", path);
    case ZBADVERSION:
        return err_set(ERR_STALE, "node %s has another version", path);
    case ZNOTEMPTY:
        return err_set(ERR_NOT_EMPTY, "node %s has children", path);
    case ZNOAUTH:
        return err_set(ERR_PERM, "access to node %s denied", path);
    case ZSESSIONEXPIRED:
    case ZINVALIDSTATE:
    case ZAUTHFAILED:
        return err_set(ERR_EXPIRED, "coordination session expired");
    case ZCONNECTIONLOSS:
    case ZOPERATIONTIMEOUT:
    case ZSESSIONMOVED:
        if (write)
            return err_set(ERR_UNCERTAIN, "connection lost while changing %s", path);
        return err_set(ERR_UNREACHABLE, "connection lost while reading %s", path);
    case ZCLOSING:
        return err_set(write ? ERR_UNCERTAIN : ERR_CLOSED, "coordination handle closed");
    case ZBADARGUMENTS:
    case ZINVALIDACL:
    case ZNOCHILDRENFOREPHEMERALS:
        return err_set(ERR_INVAL, "node %s: %s", path, zerror(zrc));
    default:
        return err_set(write ? ERR_UNCERTAIN : ERR_IO, "node %s: %s", path, zerror(zrc));
    }
}

/* ---- request records ---- */

struct zk_req *zk_req_new(struct coord_zk *zk)
{
    struct zk_req *req = MEM_NEW(struct zk_req);

    req->zk = zk;
    list_push_back(&zk->reqs, &req->link);
    return req;
}

void zk_req_free(struct zk_req *req)
{
    list_del(&req->link);
    mem_free(req->data);
    mem_free(req->names);
    mem_free(req->path);
    mem_free(req->ops);
    mem_free(req->results);
    mem_free(req->stats);
    mem_free(req->path_room);
    mem_free(req);
}

void zk_req_complete(struct zk_req *req, int zrc)
{
    struct co_wait *wait = req->wait;

    if (wait == NULL) {
        zk_req_free(req);
        return;
    }
    list_del(&req->link); /* it is the coroutine's now */
    req->zrc = zrc;
    req->done = true;
    req->wait = NULL;
    co_resume(wait, 0);
}

co_fn int zk_req_wait(struct zk_req *req, int zrc, bool write, const char *path)
{
    struct co_wait wait;
    int rc;

    if (zrc != ZOK) { /* not accepted, so there will be no completion */
        zk_req_free(req);
        return zk_error(zrc, false, path);
    }
    zk_kick(req->zk);
    co_wait_init(&wait);
    req->wait = &wait; /* cppcheck-suppress autoVariables ; taken back below */
    rc = co_suspend(&wait, CO_INTERRUPTIBLE);
    if (req->done)
        return 0;
    /* Interrupted, or the handle is being closed: the completion will free the record. */
    req->wait = NULL;
    if (rc == 0)
        return zk_error(ZCLOSING, write, path);
    return err_set(rc, "%s %s: %s", write ? "changing" : "reading", path, err_default_text(rc));
}

/* Waits for the answer to a submitted request. 0: it is in the record, which the caller frees. */
static co_fn int answer_wait(struct zk_req *req, int zrc, bool write, const char *path)
{
    int rc = zk_req_wait(req, zrc, write, path);

    if (rc < 0 || req->zrc == ZOK)
        return rc;
    rc = zk_error(req->zrc, write, path);
    zk_req_free(req);
    return rc;
}

void zk_reqs_abandon(struct coord_zk *zk)
{
    LIST_FOREACH (req, &zk->reqs, struct zk_req, link) {
        struct co_wait *wait = req->wait;

        req->wait = NULL;
        if (wait != NULL)
            co_resume(wait, 0);
    }
}

/* ---- reads ---- */

/* Hands a read of a whole path to the client library; ZOK if it was accepted. */
typedef int (*read_submit_fn)(struct coord_zk *zk, const char *full, struct zk_req *req);

/* 0: *ret holds the answer and is to be freed. */
static co_fn int read_request(struct coord_zk *zk, const char *path, read_submit_fn submit,
                              struct zk_req **ret)
{
    int rc = zk_usable(zk), zrc;
    char *full;

    if (rc < 0)
        return rc;
    full = zk_path(zk, path);
    *ret = zk_req_new(zk);
    zrc = submit(zk, full, *ret);
    mem_free(full);
    return answer_wait(*ret, zrc, false, path);
}

static void stat_convert(const struct Stat *from, struct coord_stat *to)
{
    to->version = from->version;
    to->czxid = from->czxid;
    to->mzxid = from->mzxid;
    to->children = from->numChildren;
    to->ephemeral = from->ephemeralOwner != 0;
    to->data_len = (uint32_t)from->dataLength;
}

static void get_cb(int zrc, const char *value, int len, const struct Stat *stat, const void *data)
{
    struct zk_req *req = (struct zk_req *)(uintptr_t)data;

    if (zrc == ZOK) {
        req->len = len > 0 ? (size_t)len : 0;
        req->data = mem_alloc(req->len + 1);
        if (req->len > 0)
            memcpy(req->data, value, req->len);
        req->stat = *stat;
        req->stat.dataLength = (int32_t)req->len; /* a node without data says 0 or -1 */
    }
    zk_req_complete(req, zrc);
}

static int get_submit(struct coord_zk *zk, const char *full, struct zk_req *req)
{
    return zoo_awget(zk->zh, full, NULL, NULL, get_cb, req);
}

int real_coord_get(struct coord *c, const char *path, void **ret_data, size_t *ret_len,
                   struct coord_stat *ret_stat)
{
    struct zk_req *req;
    int rc = read_request(zk_of(c), path, get_submit, &req);

    if (rc < 0)
        return rc;
    *ret_data = req->data;
    *ret_len = req->len;
    stat_convert(&req->stat, ret_stat);
    req->data = NULL;
    zk_req_free(req);
    return 0;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void children_cb(int zrc, const struct String_vector *strings, const void *data)
{
    struct zk_req *req = (struct zk_req *)(uintptr_t)data;
    uint32_t n = zrc == ZOK && strings->count > 0 ? (uint32_t)strings->count : 0;
    size_t bytes = ((size_t)n + 1) * sizeof(char *);
    char *text;

    if (zrc == ZOK) {
        for (uint32_t i = 0; i < n; i++)
            bytes += strlen(strings->data[i]) + 1;
        req->names = mem_alloc(bytes);
        req->count = n;
        text = (char *)(req->names + n + 1);
        for (uint32_t i = 0; i < n; i++) {
            req->names[i] = text;
            text = stpcpy(text, strings->data[i]) + 1;
        }
        qsort(req->names, n, sizeof(char *), name_compare);
    }
    zk_req_complete(req, zrc);
}

static int children_submit(struct coord_zk *zk, const char *full, struct zk_req *req)
{
    return zoo_awget_children(zk->zh, full, NULL, NULL, children_cb, req);
}

int real_coord_children(struct coord *c, const char *path, char ***ret, uint32_t *ret_n)
{
    struct zk_req *req;
    int rc = read_request(zk_of(c), path, children_submit, &req);

    if (rc < 0)
        return rc;
    *ret = req->names;
    *ret_n = req->count;
    req->names = NULL;
    zk_req_free(req);
    return 0;
}

static void string_cb(int zrc, const char *value, const void *data)
{
    (void)value;
    zk_req_complete((struct zk_req *)(uintptr_t)data, zrc);
}

static int sync_submit(struct coord_zk *zk, const char *full, struct zk_req *req)
{
    return zoo_async(zk->zh, full, string_cb, req);
}

int real_coord_sync(struct coord *c, const char *path)
{
    struct zk_req *req;
    int rc = read_request(zk_of(c), path, sync_submit, &req);

    if (rc < 0)
        return rc;
    zk_req_free(req);
    return 0;
}

/* ---- single writes ---- */

static void create_cb(int zrc, const char *value, const struct Stat *stat, const void *data)
{
    struct zk_req *req = (struct zk_req *)(uintptr_t)data;

    if (zrc == ZOK) {
        req->path = mem_strdup(value);
        req->stat = *stat;
    }
    zk_req_complete(req, zrc);
}

static void set_cb(int zrc, const struct Stat *stat, const void *data)
{
    struct zk_req *req = (struct zk_req *)(uintptr_t)data;

    if (zrc == ZOK)
        req->stat = *stat;
    zk_req_complete(req, zrc);
}

static void void_cb(int zrc, const void *data)
{
    zk_req_complete((struct zk_req *)(uintptr_t)data, zrc);
}

static int create_mode(unsigned flags)
{
    if (flags & COORD_EPHEMERAL)
        return flags & COORD_SEQUENCE ? ZOO_EPHEMERAL_SEQUENTIAL : ZOO_EPHEMERAL;
    return flags & COORD_SEQUENCE ? ZOO_PERSISTENT_SEQUENTIAL : ZOO_PERSISTENT;
}

static const char *op_data(const struct coord_op *op)
{
    return op->data != NULL ? op->data : "";
}

static int single_submit(struct coord_zk *zk, const struct coord_op *op, struct zk_req *req)
{
    char *full = zk_path(zk, op->path);
    int zrc;

    switch (op->kind) {
    case COORD_OP_CREATE:
        zrc = zoo_acreate2(zk->zh, full, op_data(op), (int)op->len, &ZOO_OPEN_ACL_UNSAFE,
                           create_mode(op->flags), create_cb, req);
        break;
    case COORD_OP_SET:
        zrc = zoo_aset(zk->zh, full, op_data(op), (int)op->len, op->version, set_cb, req);
        break;
    default:
        zrc = zoo_adelete(zk->zh, full, op->version, void_cb, req);
        break;
    }
    mem_free(full);
    return zrc;
}

/* A path of the service's tree without our root. */
static char *path_strip(const struct coord_zk *zk, const char *full)
{
    size_t len = strlen(zk->root);

    return mem_strdup(strncmp(full, zk->root, len) == 0 ? full + len : full);
}

static co_fn int single_write(struct coord_zk *zk, struct coord_op *op, char **ret_path,
                              struct coord_stat *ret_stat)
{
    struct zk_req *req = zk_req_new(zk);
    int rc;

    rc = answer_wait(req, single_submit(zk, op, req), true, op->path);
    if (rc < 0)
        return op->rc = rc;
    if (op->kind != COORD_OP_DELETE) {
        op->ret_version = req->stat.version;
        stat_convert(&req->stat, ret_stat);
        if (req->path != NULL)
            *ret_path = path_strip(zk, req->path);
    }
    zk_req_free(req);
    return op->rc = 0;
}

co_fn int zk_create_plain(struct coord_zk *zk, const char *full_path)
{
    struct zk_req *req = zk_req_new(zk);
    int rc, zrc;

    zrc = zoo_acreate2(zk->zh, full_path, "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT, create_cb,
                       req);
    rc = zk_req_wait(req, zrc, true, full_path);
    if (rc < 0)
        return rc;
    rc = req->zrc == ZOK || req->zrc == ZNODEEXISTS ? 0 : zk_error(req->zrc, true, full_path);
    zk_req_free(req);
    return rc;
}

/* ---- multi ---- */

static void multi_prepare(struct coord_zk *zk, const struct coord_op *ops, int n,
                          struct zk_req *req, char **paths)
{
    size_t room = 0, used = 0;

    req->ops = MEM_NEW_ARRAY(zoo_op_t, n);
    req->results = MEM_NEW_ARRAY(zoo_op_result_t, n);
    req->stats = MEM_NEW_ARRAY(struct Stat, n);
    for (int i = 0; i < n; i++) {
        paths[i] = zk_path(zk, ops[i].path);
        room += strlen(paths[i]) + SEQUENCE_DIGITS + 2;
    }
    req->path_room = mem_alloc(room);
    for (int i = 0; i < n; i++) {
        const struct coord_op *op = &ops[i];
        size_t path_room = strlen(paths[i]) + SEQUENCE_DIGITS + 2;

        switch (op->kind) {
        case COORD_OP_CHECK:
            zoo_check_op_init(&req->ops[i], paths[i], op->version);
            break;
        case COORD_OP_CREATE:
            zoo_create_op_init(&req->ops[i], paths[i], op_data(op), (int)op->len,
                               &ZOO_OPEN_ACL_UNSAFE, create_mode(op->flags), req->path_room + used,
                               (int)path_room);
            break;
        case COORD_OP_SET:
            zoo_set_op_init(&req->ops[i], paths[i], op_data(op), (int)op->len, op->version,
                            &req->stats[i]);
            break;
        case COORD_OP_DELETE:
            zoo_delete_op_init(&req->ops[i], paths[i], op->version);
            break;
        }
        used += path_room;
    }
}

/* The result is the first operation's own error. Those before it were undone (no error of their
 * own), those after it were not tried (ZRUNTIMEINCONSISTENCY). */
static int multi_result(struct zk_req *req, struct coord_op *ops, int n)
{
    int rc = 0;

    if (req->zrc == ZOK) {
        for (int i = 0; i < n; i++)
            if (ops[i].kind == COORD_OP_SET)
                ops[i].ret_version = req->stats[i].version;
        return 0;
    }
    for (int i = 0; i < n; i++) {
        int zrc = req->results[i].err;

        if (zrc == ZOK || zrc == ZRUNTIMEINCONSISTENCY || zrc == ZCONNECTIONLOSS || rc != 0)
            continue;
        rc = ops[i].rc = zk_error(zrc, false, ops[i].path);
    }
    return rc != 0 ? rc : zk_error(req->zrc, true, ops[0].path);
}

static co_fn int multi_write(struct coord_zk *zk, struct coord_op *ops, int n)
{
    struct zk_req *req = zk_req_new(zk);
    char **paths = MEM_NEW_ARRAY(char *, n);
    int rc, zrc;

    multi_prepare(zk, ops, n, req, paths);
    zrc = zoo_amulti(zk->zh, n, req->ops, req->results, void_cb, req);
    for (int i = 0; i < n; i++)
        mem_free(paths[i]);
    mem_free(paths);
    rc = zk_req_wait(req, zrc, true, ops[0].path);
    if (rc < 0)
        return rc;
    rc = multi_result(req, ops, n);
    zk_req_free(req);
    return rc;
}

int real_coord_multi(struct coord *c, struct coord_op *ops, int n, bool single, char **ret_path,
                     struct coord_stat *ret_stat)
{
    struct coord_zk *zk = zk_of(c);
    int rc;

    rc = zk_usable(zk);
    if (rc < 0)
        return rc;
    if (single && ops[0].kind != COORD_OP_CHECK)
        return single_write(zk, &ops[0], ret_path, ret_stat);
    return multi_write(zk, ops, n);
}
