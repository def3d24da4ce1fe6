/* SPDX-License-Identifier: Apache-2.0
 *
 * Watches of the ZooKeeper handle. The client library keeps a pointer that we give it until the
 * watch fires or the handle is closed, and cannot be told to forget it. So what it points to is
 * a record of ours, one for each path and kind, to which any number of coord_watches are attached.
 * Cancelling only detaches; a record that nobody uses stays armed and is used again by the next
 * watch of the same path. A record is freed when it fired and no request that arms it is under
 * way. */
#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/env/real/coord_zk.h"

struct zk_watch {
    struct list link; /* coord_zk.watches */
    enum coord_watch_kind kind;
    char *path;
    bool armed;           /* the library will call us */
    uint32_t arming;      /* requests under way that will arm it */
    struct list attached; /* of coord_watch, by link */
};

static void record_put(struct zk_watch *rec)
{
    if (rec->armed || rec->arming > 0)
        return;
    ASSERT(list_empty(&rec->attached));
    list_del(&rec->link);
    mem_free(rec->path);
    mem_free(rec);
}

static struct zk_watch *record_get(struct coord_zk *zk, enum coord_watch_kind kind,
                                   const char *path)
{
    struct zk_watch *rec;

    LIST_FOREACH (it, &zk->watches, struct zk_watch, link) {
        if (it->kind == kind && strcmp(it->path, path) == 0)
            return it;
    }
    rec = MEM_NEW(struct zk_watch);
    rec->kind = kind;
    rec->path = mem_strdup(path);
    list_init(&rec->attached);
    list_push_back(&zk->watches, &rec->link);
    return rec;
}

static void record_fire(struct zk_watch *rec, int rc)
{
    struct list fired, *link;

    list_init(&fired);
    list_splice_back(&fired, &rec->attached);
    while ((link = list_pop_front(&fired)) != NULL)
        coord_watch_fire(CONTAINER_OF(link, struct coord_watch, link), rc);
}

static void watch_cb(zhandle_t *zh, int type, int state, const char *path, void *context)
{
    struct zk_watch *rec = context;

    (void)zh;
    (void)state;
    (void)path;
    if (type == ZOO_SESSION_EVENT)
        return; /* the session's callback deals with these; the watch stays */
    rec->armed = false;
    record_fire(rec, 0);
    record_put(rec);
}

/* Attaches before any event that follows the reply is delivered. */
static void arm_complete(struct zk_req *req, int zrc, bool armed)
{
    struct zk_watch *rec = req->watch;

    rec->arming--;
    if (armed) {
        rec->armed = true;
        if (req->wait != NULL)
            list_push_back(&rec->attached, &req->watch_of->link);
    }
    record_put(rec);
    zk_req_complete(req, zrc);
}

static void exists_cb(int zrc, const struct Stat *stat, const void *data)
{
    (void)stat;
    arm_complete((struct zk_req *)(uintptr_t)data, zrc, zrc == ZOK || zrc == ZNONODE);
}

static void children_cb(int zrc, const struct String_vector *strings, const void *data)
{
    (void)strings;
    arm_complete((struct zk_req *)(uintptr_t)data, zrc, zrc == ZOK);
}

int real_coord_watch_arm(struct coord *c, struct coord_watch *w, enum coord_watch_kind kind,
                         const char *path)
{
    struct coord_zk *zk = zk_of(c);
    struct zk_req *req;
    char *full;
    int rc, zrc;

    rc = zk_usable(zk);
    if (rc < 0)
        return rc;
    full = zk_path(zk, path);
    req = zk_req_new(zk);
    req->watch = record_get(zk, kind, full);
    req->watch_of = w;
    req->watch->arming++;
    if (kind == COORD_WATCH_NODE)
        zrc = zoo_awexists(zk->zh, full, watch_cb, req->watch, exists_cb, req);
    else
        zrc = zoo_awget_children(zk->zh, full, watch_cb, req->watch, children_cb, req);
    mem_free(full);
    if (zrc != ZOK) {
        req->watch->arming--;
        record_put(req->watch);
    }
    rc = zk_req_wait(req, zrc, false, path);
    if (rc < 0) {
        list_del(&w->link); /* attached, and interrupted in the same turn */
        return rc;
    }
    if (req->zrc != ZOK && !(kind == COORD_WATCH_NODE && req->zrc == ZNONODE))
        rc = zk_error(req->zrc, false, path);
    zk_req_free(req);
    return rc;
}

void real_coord_watch_cancel(struct coord_watch *w)
{
    list_del(&w->link);
}

void zk_watches_fire(struct coord_zk *zk, int rc)
{
    LIST_FOREACH (rec, &zk->watches, struct zk_watch, link)
        record_fire(rec, rc);
}

void zk_watches_free(struct coord_zk *zk)
{
    struct list *link;

    while ((link = list_pop_front(&zk->watches)) != NULL) {
        struct zk_watch *rec = CONTAINER_OF(link, struct zk_watch, link);

        ASSERT(list_empty(&rec->attached));
        mem_free(rec->path);
        mem_free(rec);
    }
}
