/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations of volumes that are served here: see pr_unit.h. */
#include "access/scsi/pr_unit.h"

#include <string.h>
#include "access/scsi/scsi_int.h"
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"

void pr_registry_init(struct pr_registry *r, const struct pr_store *store)
{
    r->store = store;
    list_init(&r->units);
}

void pr_registry_fini(struct pr_registry *r)
{
    ASSERT(list_empty(&r->units));
}

static struct pr_unit *unit_find(struct pr_registry *r, uint64_t volume_id)
{
    LIST_FOREACH (u, &r->units, struct pr_unit, link) {
        if (u->volume_id == volume_id)
            return u;
    }
    return NULL;
}

static co_fn void unit_lock(struct pr_unit *u)
{
    while (u->changing)
        co_cond_wait_always(&u->changed);
    u->changing = true;
}

static void unit_unlock(struct pr_unit *u)
{
    u->changing = false;
    co_cond_broadcast(&u->changed);
}

void pr_unit_put(struct pr_unit *u)
{
    if (u == NULL || --u->refs > 0)
        return;
    list_del(&u->link);
    pr_state_fini(&u->state);
    mem_free(u);
}

bool pr_unit_persistent(const struct pr_unit *u)
{
    return u->registry->store != NULL;
}

bool pr_unit_refuses(const struct pr_unit *u, const struct scsi_cmd *c)
{
    return pr_conflicts(&u->state, &c->nexus->id, scsi_cmd_access(c));
}

/* ---- making a change felt ---- */

static void tell(struct pr_unit *u, const struct pr_nexus *who, enum scsi_ua ua)
{
    LIST_FOREACH (lun, &u->luns, struct scsi_lun, pr_link) {
        LIST_FOREACH (n, &lun->target->nexuses, struct scsi_nexus, link) {
            if (pr_nexus_equal(who, &n->id) && !lun->removed)
                n->ua[lun->number] |= (uint16_t)ua;
        }
    }
}

static void abort_commands(struct pr_unit *u, const struct pr_nexus *who)
{
    LIST_FOREACH (lun, &u->luns, struct scsi_lun, pr_link) {
        LIST_FOREACH_SAFE (c, &lun->cmds, struct scsi_cmd, link) {
            if (!pr_nexus_equal(who, &c->nexus->id) || c->done)
                continue;
            c->abort_requested = true;
            if (c->aborted != NULL)
                c->aborted(c);
        }
        co_cond_broadcast(&lun->ended);
    }
}

/* Every unit of the volume is reset: its commands end, its nexuses are told. */
static void reset_units(struct pr_unit *u, const struct scsi_cmd *self)
{
    LIST_FOREACH (lun, &u->luns, struct scsi_lun, pr_link) {
        lun->d_sense = lun->swp = false;
        if (!lun->removed)
            scsi_target_attention(lun->target, lun, SCSI_UA_RESET, NULL);
        LIST_FOREACH_SAFE (c, &lun->cmds, struct scsi_cmd, link) {
            if (c == self || c->done || c->row == NULL || scsi_cmd_access(c) >= PR_ACCESS_ALWAYS)
                continue;
            c->abort_requested = true;
            if (c->aborted != NULL)
                c->aborted(c);
        }
        co_cond_broadcast(&lun->ended);
    }
}

static void tell_chosen(struct pr_unit *u, uint16_t former, const struct scsi_cmd *self)
{
    LIST_FOREACH (lun, &u->luns, struct scsi_lun, pr_link)
        scsi_alua_chosen(lun, former, self != NULL ? self->nexus : NULL);
}

static void apply_effects(struct pr_unit *u, const struct pr_effects *fx)
{
    static const enum scsi_ua uas[] = {
        [PR_RESERVATIONS_PREEMPTED] = SCSI_UA_RESERVATIONS_PREEMPTED,
        [PR_RESERVATIONS_RELEASED] = SCSI_UA_RESERVATIONS_RELEASED,
        [PR_REGISTRATIONS_PREEMPTED] = SCSI_UA_REGISTRATIONS_PREEMPTED,
    };

    for (uint32_t i = 0; i < fx->count; i++) {
        tell(u, &fx->list[i].nexus, uas[fx->list[i].attention]);
        if (fx->list[i].abort)
            abort_commands(u, &fx->list[i].nexus);
    }
}

/* Has the unit a command in flight that was aborted, or would not be begun now? */
static bool lun_undrained(const struct pr_unit *u, struct scsi_lun *lun,
                          const struct scsi_cmd *self)
{
    LIST_FOREACH (c, &lun->cmds, struct scsi_cmd, link) {
        bool ends = c->abort_requested && scsi_cmd_access(c) < PR_ACCESS_ALWAYS;

        if ((self != NULL && c == self) || !c->begun || c->done)
            continue;
        if (ends || pr_unit_refuses(u, c))
            return true;
    }
    return false;
}

static bool guest_refused(const struct pr_unit *u, enum pr_access access)
{
    static const struct pr_nexus nobody = {.initiator = ""};

    return pr_conflicts(&u->state, &nobody, access);
}

static bool guests_undrained(const struct pr_unit *u)
{
    for (uint32_t a = 0; a < ARRAY_SIZE(u->guests); a++)
        if (u->guests[a] > 0 && guest_refused(u, (enum pr_access)a))
            return true;
    return false;
}

/* Commands that have not begun are judged again before they do (scsi_cmd_execute). */
static co_fn void drain(struct pr_unit *u, const struct scsi_cmd *self)
{
    for (;;) {
        struct scsi_lun *busy = NULL;

        LIST_FOREACH (lun, &u->luns, struct scsi_lun, pr_link) {
            if (busy == NULL && lun_undrained(u, lun, self))
                busy = lun;
        }
        if (busy != NULL) {
            busy->pins++;
            co_cond_wait_always(&busy->ended);
            busy->pins--;
            co_cond_broadcast(&busy->ended);
        } else if (guests_undrained(u)) {
            co_cond_wait_always(&u->guest_ended);
        } else {
            return;
        }
    }
}

/* ---- changes ---- */

/* What another process's change means to the nexuses that had been registered. */
static void effects_of_difference(const struct pr_state *old, const struct pr_state *now,
                                  struct pr_effects *fx)
{
    bool released = old->type >= PR_WRITE_EXCLUSIVE_RO && now->type != old->type;

    fx->list = MEM_NEW_ARRAY(struct pr_effect, old->count + 1);
    for (uint32_t i = 0; i < old->count; i++) {
        const struct pr_nexus *n = &old->regs[i].nexus;
        bool gone = pr_find(now, n) == NULL;

        if (!gone && !released)
            continue;
        fx->list[fx->count++] = (struct pr_effect){
            .nexus = *n,
            .attention = !gone             ? PR_RESERVATIONS_RELEASED
                         : now->count == 0 ? PR_RESERVATIONS_PREEMPTED
                                           : PR_REGISTRATIONS_PREEMPTED,
        };
    }
}

/* Obeys a record that was read, if it is newer than ours. Takes over its state. */
static void obey(struct pr_unit *u, struct pr_state *now, uint64_t version)
{
    struct pr_effects fx = {0};
    bool reset = u->loaded && now->resets != u->state.resets;
    uint16_t chosen = u->state.optimized;

    if (version <= u->version) {
        pr_state_fini(now);
        return;
    }
    effects_of_difference(&u->state, now, &fx);
    pr_state_fini(&u->state);
    u->state = *now;
    u->version = version;
    apply_effects(u, &fx);
    pr_effects_fini(&fx);
    tell_chosen(u, chosen, NULL);
    if (reset)
        reset_units(u, NULL);
}

/* Needs no lock: an older record changes nothing, whenever it arrives. */
static co_fn int reload(struct pr_unit *u)
{
    const struct pr_store *store = u->registry->store;
    struct pr_state now;
    uint64_t version = 0;
    uint8_t *record = NULL;
    size_t len = 0;
    int rc;

    if (store == NULL)
        return 0;
    pr_state_init(&now);
    rc = store->load(store->arg, u->volume_id, &record, &len, &version);
    if (rc == 0 && len > 0)
        rc = pr_decode(&now, record, len);
    mem_free(record);
    if (rc == 0)
        obey(u, &now, version);
    return rc;
}

co_fn int pr_unit_get(struct pr_registry *r, uint64_t volume_id, struct pr_unit **ret)
{
    struct pr_unit *u = unit_find(r, volume_id);
    int rc = 0;

    if (u == NULL) {
        u = MEM_NEW(struct pr_unit);
        u->registry = r;
        u->volume_id = volume_id;
        co_cond_init(&u->changed);
        co_cond_init(&u->guest_ended);
        pr_state_init(&u->state);
        list_init(&u->luns);
        list_push_back(&r->units, &u->link);
    }
    u->refs++; /* from here on it hears of changes */
    if (!u->loaded)
        rc = reload(u);
    if (rc < 0) {
        pr_unit_put(u);
        return rc;
    }
    u->loaded = true;
    *ret = u;
    return 0;
}

/* *ret: the version that the new record has. */
static co_fn int store_state(struct pr_unit *u, const struct pr_state *s, uint64_t *ret)
{
    const struct pr_store *store = u->registry->store;
    uint8_t *record;

    *ret = u->version + 1;
    if (store == NULL)
        return 0;
    size_t len = pr_encode(s, &record);
    int rc = store->replace(store->arg, u->volume_id, u->version, record, len, ret);
    mem_free(record);
    return rc;
}

/* Our change is kept: it is obeyed here, unless the news of a later one came first, and then
 * everywhere. */
static co_fn int change_take(struct pr_unit *u, struct pr_state *next, uint64_t version,
                             const struct pr_effects *fx, const struct scsi_cmd *self)
{
    const struct pr_store *store = u->registry->store;

    if (version > u->version) {
        bool reset = next->resets != u->state.resets;
        uint16_t chosen = u->state.optimized;

        pr_state_fini(&u->state);
        u->state = *next;
        u->version = version;
        tell_chosen(u, chosen, self);
        if (reset)
            reset_units(u, self);
    } else {
        pr_state_fini(next);
    }
    apply_effects(u, fx);
    drain(u, self);
    return store != NULL ? store->settle(store->arg, version) : 0;
}

/* A change: of one of three kinds. */
struct change {
    const struct pr_command *cmd; /* NULL: */
    const uint16_t *optimized;    /* NULL: */
    enum pr_legacy legacy;
    const struct pr_nexus *who;
};

static enum pr_answer change_make(struct pr_state *s, const struct change *ch,
                                  struct pr_effects *fx)
{
    if (ch->cmd != NULL)
        return pr_out(s, ch->cmd, fx);
    if (ch->optimized != NULL) {
        s->optimized = *ch->optimized;
        return PR_GOOD;
    }
    switch (ch->legacy) {
    case PR_LEGACY_RESERVE:
        return pr_legacy_reserve(s, ch->who);
    case PR_LEGACY_RELEASE:
        return pr_legacy_release(s, ch->who);
    default:
        pr_reset(s);
        return PR_GOOD;
    }
}

/* One try against the state that we know; the lock is held. ERR_STALE: it is not the latest. */
static co_fn int change_once(struct pr_unit *u, const struct change *ch,
                             const struct scsi_cmd *self, enum pr_answer *ret)
{
    struct pr_effects fx = {0};
    struct pr_state next;
    uint64_t version;
    int rc = 0;

    pr_state_init(&next);
    pr_state_copy(&next, &u->state);
    *ret = change_make(&next, ch, &fx);
    if (*ret == PR_GOOD)
        rc = store_state(u, &next, &version);
    if (*ret == PR_GOOD && rc == 0)
        rc = change_take(u, &next, version, &fx, self);
    else
        pr_state_fini(&next);
    pr_effects_fini(&fx);
    return rc;
}

static co_fn int change(struct pr_unit *u, const struct change *ch, const struct scsi_cmd *self,
                        enum pr_answer *ret)
{
    int rc;

    unit_lock(u);
    do {
        rc = change_once(u, ch, self, ret);
        if (rc < 0 && reload(u) < 0 && rc == ERR_STALE)
            rc = err_set(ERR_AGAIN, "the reservations can't be read");
    } while (rc == ERR_STALE);
    unit_unlock(u);
    return rc;
}

co_fn int pr_unit_out(struct pr_unit *u, const struct pr_command *cmd, const struct scsi_cmd *self,
                      enum pr_answer *ret)
{
    return change(u, &(struct change){.cmd = cmd}, self, ret);
}

co_fn int pr_unit_legacy(struct pr_unit *u, enum pr_legacy what, const struct pr_nexus *who,
                         const struct scsi_cmd *self, enum pr_answer *ret)
{
    *ret = PR_GOOD;
    if (what == PR_LEGACY_RELEASE && !u->state.legacy && u->state.count == 0)
        return 0; /* nothing to release, which is no change */
    return change(u, &(struct change){.legacy = what, .who = who}, self, ret);
}

co_fn int pr_unit_optimize(struct pr_unit *u, uint16_t port, const struct scsi_cmd *self)
{
    enum pr_answer answer;

    return change(u, &(struct change){.optimized = &port}, self, &answer);
}

co_fn void pr_unit_nexus_gone(struct pr_unit *u, const struct pr_nexus *who)
{
    enum pr_answer answer;

    if (!u->state.legacy || !pr_nexus_equal(&u->state.legacy_nexus, who))
        return;
    int rc = pr_unit_legacy(u, PR_LEGACY_RELEASE, who, NULL, &answer);
    if (rc < 0)
        log_warn("scsi.reserved",
                 "volume=%llu initiator=%s why=\"RESERVE(6) of a session that ended "
                 "was not released: %s\"",
                 (unsigned long long)u->volume_id, who->initiator, err_text(rc));
}

static co_fn int fresh(const struct pr_unit *u)
{
    const struct pr_store *store = u->registry->store;

    /* Who never reserves a volume does not wait for meta. */
    return store == NULL || u->state.count == 0 ? 0 : store->fresh(store->arg);
}

co_fn int pr_unit_fresh(const struct pr_unit *u, const struct scsi_cmd *c)
{
    return scsi_cmd_access(c) == PR_ACCESS_ALWAYS ? 0 : fresh(u);
}

co_fn int pr_unit_guest_begin(struct pr_unit *u, enum pr_access access)
{
    int rc = fresh(u);

    if (rc < 0)
        return rc;
    if (guest_refused(u, access))
        return err_set(ERR_RESERVED, "the volume is reserved by an initiator");
    u->guests[access]++;
    return 0;
}

void pr_unit_guest_end(struct pr_unit *u, enum pr_access access)
{
    u->guests[access]--;
    co_cond_broadcast(&u->guest_ended);
}

co_fn int pr_registry_changed(struct pr_registry *r, uint64_t volume_id)
{
    struct pr_unit *u = unit_find(r, volume_id);
    int rc;

    if (u == NULL)
        return 0;
    u->refs++;
    rc = reload(u);
    if (rc == 0)
        drain(u, NULL);
    pr_unit_put(u);
    return rc == ERR_NOTFOUND ? 0 : rc; /* the volume was deleted */
}
