/* SPDX-License-Identifier: Apache-2.0
 *
 * Persistent reservations: see pr.h. Section numbers are those of SPC-4. */
#include "access/scsi/pr.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "common/base/assert.h"
#include "common/base/mem.h"

void pr_state_init(struct pr_state *s)
{
    memset(s, 0, sizeof(*s));
}

void pr_state_fini(struct pr_state *s)
{
    mem_free(s->regs);
    pr_state_init(s);
}

void pr_state_copy(struct pr_state *dst, const struct pr_state *src)
{
    mem_free(dst->regs);
    *dst = *src;
    dst->regs = NULL;
    if (src->count > 0) {
        dst->regs = MEM_NEW_ARRAY(struct pr_registrant, src->count);
        memcpy(dst->regs, src->regs, src->count * sizeof(src->regs[0]));
    }
}

bool pr_nexus_equal(const struct pr_nexus *registered, const struct pr_nexus *who)
{
    return (registered->port == PR_PORT_ALL || registered->port == who->port) &&
           strcasecmp(registered->initiator, who->initiator) == 0;
}

struct pr_registrant *pr_find(const struct pr_state *s, const struct pr_nexus *who)
{
    for (uint32_t i = 0; i < s->count; i++) {
        if (pr_nexus_equal(&s->regs[i].nexus, who))
            return &s->regs[i];
    }
    return NULL;
}

bool pr_type_valid(unsigned type)
{
    return type == PR_WRITE_EXCLUSIVE || type == PR_EXCLUSIVE_ACCESS ||
           (type >= PR_WRITE_EXCLUSIVE_RO && type <= PR_EXCLUSIVE_ACCESS_AR);
}

bool pr_type_all(unsigned type)
{
    return type == PR_WRITE_EXCLUSIVE_AR || type == PR_EXCLUSIVE_ACCESS_AR;
}

static bool type_registrants(unsigned type)
{
    return type >= PR_WRITE_EXCLUSIVE_RO;
}

static bool type_reads_shared(unsigned type)
{
    return type == PR_WRITE_EXCLUSIVE || type == PR_WRITE_EXCLUSIVE_RO ||
           type == PR_WRITE_EXCLUSIVE_AR;
}

bool pr_holds(const struct pr_state *s, const struct pr_registrant *r)
{
    return s->type != PR_NONE && (pr_type_all(s->type) || r->holder);
}

bool pr_conflicts(const struct pr_state *s, const struct pr_nexus *who, enum pr_access access)
{
    const struct pr_registrant *r;

    if (access == PR_ACCESS_IDENTITY)
        return false;
    if (s->legacy && !pr_nexus_equal(&s->legacy_nexus, who))
        return true;
    if (s->type == PR_NONE || access == PR_ACCESS_ALWAYS)
        return false;
    if (access == PR_ACCESS_READ && type_reads_shared(s->type))
        return false;
    r = pr_find(s, who);
    return r == NULL || !(type_registrants(s->type) || r->holder);
}

/* ---- RESERVE(6) and RELEASE(6) (SPC-2 7.21, 7.17); both conflict with registrations ---- */

enum pr_answer pr_legacy_reserve(struct pr_state *s, const struct pr_nexus *who)
{
    if (s->count > 0 || (s->legacy && !pr_nexus_equal(&s->legacy_nexus, who)))
        return PR_CONFLICT;
    s->legacy = true;
    s->legacy_nexus = *who;
    return PR_GOOD;
}

enum pr_answer pr_legacy_release(struct pr_state *s, const struct pr_nexus *who)
{
    if (s->count > 0)
        return PR_CONFLICT;
    if (s->legacy && pr_nexus_equal(&s->legacy_nexus, who))
        s->legacy = false;
    return PR_GOOD;
}

void pr_reset(struct pr_state *s)
{
    s->legacy = false;
    s->resets++;
}

void pr_clear(struct pr_state *s)
{
    s->type = PR_NONE;
    s->count = 0;
    s->legacy = false;
    s->generation++;
}

/* ---- changes ---- */

static void effect_add(struct pr_effects *fx, const struct pr_nexus *n, enum pr_attention a,
                       bool abort)
{
    fx->list = mem_realloc(fx->list, (fx->count + 1) * sizeof(fx->list[0]));
    fx->list[fx->count++] = (struct pr_effect){.nexus = *n, .attention = a, .abort = abort};
}

void pr_effects_fini(struct pr_effects *fx)
{
    mem_free(fx->list);
    *fx = (struct pr_effects){0};
}

/* Tells every registrant except one nexus. */
static void tell_others(const struct pr_state *s, const struct pr_nexus *except,
                        enum pr_attention a, struct pr_effects *fx)
{
    for (uint32_t i = 0; i < s->count; i++) {
        if (!pr_nexus_equal(&s->regs[i].nexus, except))
            effect_add(fx, &s->regs[i].nexus, a, false);
    }
}

static void registration_add(struct pr_state *s, const struct pr_nexus *n, bool all_ports,
                             uint64_t key)
{
    struct pr_registrant *r;

    s->regs = mem_realloc(s->regs, (s->count + 1) * sizeof(s->regs[0]));
    r = &s->regs[s->count++];
    *r = (struct pr_registrant){.nexus = *n, .key = key};
    if (all_ports)
        r->nexus.port = PR_PORT_ALL;
}

static void registration_drop(struct pr_state *s, uint32_t i)
{
    memmove(&s->regs[i], &s->regs[i + 1], (s->count - i - 1) * sizeof(s->regs[0]));
    s->count--;
}

static void reservation_end(struct pr_state *s)
{
    s->type = PR_NONE;
    for (uint32_t i = 0; i < s->count; i++)
        s->regs[i].holder = false;
}

static void reservation_set(struct pr_state *s, struct pr_registrant *holder, uint8_t type)
{
    reservation_end(s);
    s->type = type;
    holder->holder = !pr_type_all(type);
}

/* 5.12.11.2: the holder's reservation goes with it (of "all registrants", with the last); where
 * others had access through it, they are told. */
static void unregister(struct pr_state *s, struct pr_registrant *r, struct pr_effects *fx)
{
    struct pr_nexus who = r->nexus;
    uint8_t type = s->type;
    bool ends = pr_type_all(type) ? s->count == 1 : r->holder;

    registration_drop(s, (uint32_t)(r - s->regs));
    if (!ends)
        return;
    reservation_end(s);
    if (type_registrants(type))
        tell_others(s, &who, PR_RESERVATIONS_RELEASED, fx);
}

/* 5.12.7: REGISTER and REGISTER AND IGNORE EXISTING KEY. */
static enum pr_answer out_register(struct pr_state *s, const struct pr_command *cmd,
                                   struct pr_effects *fx)
{
    struct pr_registrant *r = pr_find(s, &cmd->who);
    bool ignore = cmd->action == PR_REGISTER_AND_IGNORE;
    uint32_t more = (r == NULL) + cmd->other_count;

    if (!ignore && cmd->key != (r != NULL ? r->key : 0))
        return PR_CONFLICT;
    if (r != NULL && cmd->other_count > 0)
        return PR_INVALID_OTHER;
    if (cmd->action_key == 0) {
        if (r != NULL) {
            unregister(s, r, fx);
            s->generation++;
        }
        s->aptpl = cmd->aptpl;
        return PR_GOOD;
    }
    if (s->count + more > PR_REGISTRANTS_MAX)
        return PR_NO_ROOM;
    for (uint32_t i = 0; i < cmd->other_count; i++) {
        if (pr_find(s, &cmd->others[i]) != NULL)
            return PR_CONFLICT;
    }
    if (r != NULL)
        r->key = cmd->action_key;
    else
        registration_add(s, &cmd->who, cmd->all_ports, cmd->action_key);
    for (uint32_t i = 0; i < cmd->other_count; i++) {
        if (pr_find(s, &cmd->others[i]) == NULL) /* the list may name one twice */
            registration_add(s, &cmd->others[i], cmd->all_ports, cmd->action_key);
    }
    s->aptpl = cmd->aptpl;
    s->generation++;
    return PR_GOOD;
}

/* 5.12.9 */
static enum pr_answer out_reserve(struct pr_state *s, struct pr_registrant *r, uint8_t type)
{
    if (s->type == PR_NONE) {
        reservation_set(s, r, type);
        return PR_GOOD;
    }
    return pr_holds(s, r) && s->type == type ? PR_GOOD : PR_CONFLICT;
}

/* 5.12.11.2: what one does not hold can't be released, which is no error. */
static enum pr_answer out_release(struct pr_state *s, struct pr_registrant *r, uint8_t type,
                                  struct pr_effects *fx)
{
    if (s->type == PR_NONE || !pr_holds(s, r))
        return PR_GOOD;
    if (s->type != type)
        return PR_INVALID_RELEASE;
    reservation_end(s);
    if (type_registrants(type))
        tell_others(s, &r->nexus, PR_RESERVATIONS_RELEASED, fx);
    return PR_GOOD;
}

static enum pr_answer out_clear(struct pr_state *s, struct pr_registrant *r, struct pr_effects *fx)
{
    tell_others(s, &r->nexus, PR_RESERVATIONS_PREEMPTED, fx);
    pr_clear(s);
    return PR_GOOD;
}

/* Drops the registrations with this key (0: all), save `keep` (NULL: none). How many went. */
static uint32_t drop_key(struct pr_state *s, uint64_t key, const struct pr_command *cmd,
                         bool keep_own, struct pr_effects *fx)
{
    uint32_t dropped = 0;

    for (uint32_t i = s->count; i-- > 0;) {
        const struct pr_registrant *r = &s->regs[i];
        bool own = pr_nexus_equal(&r->nexus, &cmd->who);

        if ((key != 0 && r->key != key) || (own && keep_own))
            continue;
        if (!own)
            effect_add(fx, &r->nexus, PR_REGISTRATIONS_PREEMPTED,
                       cmd->action == PR_PREEMPT_AND_ABORT);
        registration_drop(s, i);
        dropped++;
    }
    return dropped;
}

static const struct pr_registrant *find_holder(const struct pr_state *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->regs[i].holder)
            return &s->regs[i];
    }
    return NULL;
}

/* 5.12.11.2.6 (PREEMPT) and .7 (PREEMPT AND ABORT): takes the reservation if the key is its
 * holder's (or 0, where all registrants hold it); otherwise only registrations go. */
static enum pr_answer out_preempt(struct pr_state *s, const struct pr_command *cmd,
                                  struct pr_effects *fx)
{
    const struct pr_registrant *holder = find_holder(s);
    uint8_t former = s->type;
    bool takes = pr_type_all(former) ? cmd->action_key == 0
                                     : holder != NULL && holder->key == cmd->action_key;

    if (cmd->action_key == 0 && !takes)
        return PR_INVALID_KEY;
    if (!takes) {
        if (drop_key(s, cmd->action_key, cmd, false, fx) == 0)
            return PR_CONFLICT;
        if (s->count == 0)
            reservation_end(s);
        s->generation++;
        return PR_GOOD;
    }
    drop_key(s, cmd->action_key, cmd, true, fx);
    reservation_set(s, pr_find(s, &cmd->who), cmd->type);
    s->generation++;
    if (former != cmd->type && type_registrants(former))
        tell_others(s, &cmd->who, PR_RESERVATIONS_RELEASED, fx);
    return PR_GOOD;
}

/* 5.12.8: the reservation goes to another nexus, which is registered by that. */
static enum pr_answer out_move(struct pr_state *s, struct pr_registrant *r,
                               const struct pr_command *cmd)
{
    struct pr_registrant *to;
    uint8_t type = s->type;

    if (type == PR_NONE || pr_type_all(type) || !r->holder)
        return PR_CONFLICT;
    if (cmd->action_key == 0)
        return PR_INVALID_KEY;
    if (cmd->other_count != 1 || pr_nexus_equal(&r->nexus, &cmd->others[0]))
        return PR_INVALID_OTHER;
    if (pr_find(s, &cmd->others[0]) == NULL) {
        if (s->count >= PR_REGISTRANTS_MAX)
            return PR_NO_ROOM;
        registration_add(s, &cmd->others[0], false, cmd->action_key);
    }
    to = pr_find(s, &cmd->others[0]);
    to->key = cmd->action_key;
    reservation_set(s, to, type);
    if (cmd->unregister)
        registration_drop(s, (uint32_t)(pr_find(s, &cmd->who) - s->regs));
    s->aptpl = cmd->aptpl;
    s->generation++;
    return PR_GOOD;
}

enum pr_answer pr_out(struct pr_state *s, const struct pr_command *cmd, struct pr_effects *fx)
{
    struct pr_registrant *r = pr_find(s, &cmd->who);

    if (s->legacy)
        return PR_CONFLICT;
    if (cmd->action == PR_REGISTER || cmd->action == PR_REGISTER_AND_IGNORE)
        return out_register(s, cmd, fx);
    if (r == NULL || r->key != cmd->key)
        return PR_CONFLICT;
    switch (cmd->action) {
    case PR_RESERVE:
        return out_reserve(s, r, cmd->type);
    case PR_RELEASE:
        return out_release(s, r, cmd->type, fx);
    case PR_CLEAR:
        return out_clear(s, r, fx);
    case PR_PREEMPT:
    case PR_PREEMPT_AND_ABORT:
        return out_preempt(s, cmd, fx);
    default:
        return out_move(s, r, cmd);
    }
}
