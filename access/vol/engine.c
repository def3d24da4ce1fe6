/* SPDX-License-Identifier: Apache-2.0
 *
 * The volume engine as a whole: start, upkeep, stop. */
#include "access/vol/vol_int.h"

#define UPKEEP_TICK     NSEC_PER_SEC
#define TASK_IDLE       (5 * NSEC_PER_SEC) /* a slot taken for meta's sake is given back */
#define DEAD_IDLE       (3 * NSEC_PER_SEC) /* an idle extent removes members of dead servers */
#define OPEN_MANY       8192u              /* extents open: beyond it idle ones are given back */
#define OPEN_IDLE       (60 * NSEC_PER_SEC)
#define BOOT_WAIT       (3 * NSEC_PER_SEC)
#define STOP_HOLD       (2 * NSEC_PER_SEC)
#define REPAIRS_AT_ONCE 8u

static char *copy(const char *s)
{
    return mem_strdup(s ? s : "");
}

static struct vol_engine *engine_new(const struct vol_engine_conf *conf)
{
    struct vol_engine *e = MEM_NEW(struct vol_engine);

    e->name = copy(conf->name);
    e->host = copy(conf->host);
    e->rack = copy(conf->rack);
    e->zone = copy(conf->zone);
    e->rpc_addr = copy(conf->rpc_addr);
    e->iscsi_portal = copy(conf->iscsi_portal);
    e->incarnation = conf->incarnation;
    e->former_is_dead = conf->former_is_dead;
    e->meta = conf->meta;
    e->exports_changed = conf->exports_changed;
    e->reservations_changed = conf->reservations_changed;
    e->space_changed = conf->space_changed;
    e->portals_changed = conf->portals_changed;
    e->volume_changed = conf->volume_changed;
    e->session_expired = conf->session_expired;
    e->file_recalled = conf->file_recalled;
    e->arg = conf->arg;
    e->member_deadline =
        (conf->member_deadline_ms ? conf->member_deadline_ms : 1000) * NSEC_PER_MSEC;
    e->boot_wait = BOOT_WAIT;
    co_cond_init(&e->lease_changed);
    co_cond_init(&e->renew_wake);
    list_init(&e->chunks);
    list_init(&e->accesses);
    list_init(&e->volumes);
    htab_init(&e->volumes_by_id);
    list_init(&e->open);
    list_init(&e->dirty);
    list_init(&e->op_pool);
    list_init(&e->clients);
    list_init(&e->qos_pools);
    co_group_init(&e->bg);
    co_group_init(&e->io);
    for (int s = 0; s < SETTINGS; s++)
        e->settings[s] = setting_defs[s].def;
    e->recovery.extents_max = (uint32_t)e->settings[SETTING_RECOVERY_EXTENTS];
    e->recovery.rate = e->settings[SETTING_RECOVERY_RATE];
    co_cond_init(&e->recovery.room);
    list_init(&e->recovery.joins);
    co_sem_init(&e->repair_room, REPAIRS_AT_ONCE);
    reservations_init(e);
    serve_init(e);
    recover_init(e);
    return e;
}

static void engine_free(struct vol_engine *e)
{
    vol_objects_free(e);
    reservations_fini(e);
    while (!list_empty(&e->op_pool))
        mem_free(LIST_ENTRY(list_pop_front(&e->op_pool), struct op, link));
    mem_free(e->name);
    mem_free(e->host);
    mem_free(e->rack);
    mem_free(e->zone);
    mem_free(e->rpc_addr);
    mem_free(e->iscsi_portal);
    mem_free(e);
}

/* ---- upkeep ---- */

/* An extent without writes would not notice that a server died: it is asked, which removes it if
 * it is silent, so that meta can have the replica rebuilt. */
static uint32_t dead_members(const struct tenure *t, nsec_t now)
{
    uint32_t dead = 0;

    for (uint32_t i = 0; i < t->n; i++) {
        const struct chunk *c = t->m[i].chunk;

        if ((t->set & ~t->leaving) >> i & 1 && !c->alive && now - c->alive_changed >= DEAD_IDLE)
            dead |= 1u << i;
    }
    return dead;
}

static bool give_back(const struct vol_engine *e, const struct slot *s, nsec_t now)
{
    const struct tenure *t = s->tenure;
    nsec_t idle = now - s->last_used;

    if (s->active > 0 || s->waiters > 0 || t->joining || t->adding || t->leaving)
        return false;
    if (s->for_task)
        return idle >= TASK_IDLE;
    return (e->n_open > OPEN_MANY && idle >= OPEN_IDLE) ||
           (e->n_open > 2 * OPEN_MANY && idle >= TASK_IDLE);
}

static int upkeep(void *arg)
{
    struct vol_engine *e = arg;

    while (co_sleep(UPKEEP_TICK) == 0) {
        nsec_t now = co_now();

        serve_trim(e);
        recover_tidy(e);
        LIST_FOREACH (s, &e->open, struct slot, open_link) {
            uint32_t dead = dead_members(s->tenure, now);

            if (dead)
                tenure_probe(s->tenure, dead);
            if (give_back(e, s, now)) {
                s->want_release = true;
                slot_kick(s);
            }
        }
    }
    return 0;
}

/* ---- life ---- */

int vol_engine_start(const struct vol_engine_conf *conf, struct vol_engine **ret)
{
    struct vol_engine *e = engine_new(conf);
    int rc = meta_session_open(e);

    if (rc < 0) {
        engine_free(e);
        return rc;
    }
    e->pulse = co_now();
    co_spawn_detached_deadline(&e->bg, "renew", meta_session_renewer, e);
    co_spawn_detached_deadline(&e->bg, "pulse", meta_session_pulse, e);
    co_spawn_detached_deadline(&e->bg, "commit", commit_sender, e);
    co_spawn_detached_deadline(&e->bg, "upkeep", upkeep, e);
    co_spawn_detached_deadline(&e->bg, "hold", hold_waiter, e);
    *ret = e;
    return 0;
}

/* Every slot drained as far as it can be, and its lease given back. */
static void slots_close(struct vol_engine *e)
{
    nsec_t until = co_now() + STOP_HOLD;

    LIST_FOREACH (v, &e->volumes, struct volume, link) {
        for (uint32_t i = 0; i < v->cap_slots; i++) {
            struct slot *s = v->slots[i];

            if (!s)
                continue;
            if (s->tenure) {
                struct tenure *t = tenure_get(s->tenure);
                nsec_t now = co_now();

                s->holding = false;
                if (now < until && slot_hold(s, until - now) == 0)
                    commit_flush(t);
                tenure_lose(t, "the engine stops");
                tenure_put(t);
            }
            s->holding = true;
        }
    }
}

static void session_close(struct vol_engine *e)
{
    Zbs__Meta__SessionCloseRequest req = ZBS__META__SESSION_CLOSE_REQUEST__INIT;
    struct rpc_reply r;
    nsec_t former;

    if (!e->session)
        return;
    req.session_id = e->session;
    rpc_reply_init(&r);
    former = co_deadline_push(co_now() + NSEC_PER_SEC);
    /* Its leases end with it. */
    if (meta_call(e->meta, META_SESSION_CLOSE, &req.base, true, &r) < 0)
        log_info("session.close", "not confirmed: it will expire");
    co_deadline_restore(former);
    rpc_reply_free(&r);
}

/* I/O that is still inside fails and leaves. */
static void slots_wait(struct vol_engine *e)
{
    LIST_FOREACH (v, &e->volumes, struct volume, link) {
        for (uint32_t i = 0; i < v->cap_slots; i++) {
            struct slot *s = v->slots[i];

            while (s && (s->active > 0 || s->waiters > 0)) {
                co_cond_broadcast(&s->changed);
                co_cond_broadcast(&e->lease_changed);
                (void)co_sleep(NSEC_PER_MSEC);
            }
        }
    }
}

void vol_engine_drain(struct vol_engine *e)
{
    struct co_shield shield;

    if (e->stopping)
        return;
    co_shield_begin(&shield);
    e->stopping = true;
    qos_stop(e);
    /* Drivers, copies and timers end; renewals too, but nothing waits for them from here on. */
    (void)co_group_close(&e->bg);
    slots_close(e);
    session_close(e);
    slots_wait(e);
    co_shield_end(&shield);
}

void vol_engine_stop(struct vol_engine *e)
{
    struct co_shield shield;

    co_shield_begin(&shield);
    vol_engine_drain(e);
    /* Nobody begins a call any more; those under way fail, and their callers leave. */
    chunks_reset(e);
    (void)co_group_join(&e->io);
    chunks_close(e);
    access_peers_close(e);
    serve_fini(e);
    qos_fini(e);
    co_shield_end(&shield);
    engine_free(e);
}

uint64_t vol_engine_session(const struct vol_engine *e)
{
    return e->session;
}

const char *vol_engine_cluster_id(const struct vol_engine *e)
{
    return e->cluster_id;
}

const struct rpc_service *vol_engine_service(struct vol_engine *e)
{
    return &e->service;
}

void vol_engine_set_initiators(struct vol_engine *e, vol_initiators_fn fn, void *arg)
{
    e->initiators = fn;
    e->initiators_arg = arg;
}

void vol_engine_stats(const struct vol_engine *e, struct vol_engine_stats *ret)
{
    *ret = e->stats;
    ret->extents_owned = e->n_open;
}
