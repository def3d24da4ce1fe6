/* SPDX-License-Identifier: Apache-2.0
 *
 * Thick volumes: every slot has an extent, and every replica of it has promised the space for all
 * of it. A volume becomes so, or thin again, slot by slot: the session that is asked to (tasks.c)
 * says here what came of it, and is told the next slot. Where there is no space the walk waits. */
#include "common/base/err.h"
#include "meta/decide.h"
#include "meta/table.h"

int decide_thickness(const struct volume *v, Zbs__Meta__Thickness to,
                     Zbs__Metalog__VolumePolicy *policy)
{
    if (to == ZBS__META__THICKNESS__THICKNESS_SAME)
        return 0;
    if (to != ZBS__META__THICKNESS__THICKNESS_THIN && to != ZBS__META__THICKNESS__THICKNESS_THICK)
        return err_set(ERR_INVAL, "provisioning %u: thin or thick is allowed", (unsigned)to);
    if (v->snapshot)
        return err_set(ERR_PERM, "'%s/%s' is a snapshot: it is never written", v->pool->name,
                       v->name);
    policy->thick = to == ZBS__META__THICKNESS__THICKNESS_THICK;
    return 0;
}

static Zbs__Metalog__Record *volume_pass(const struct decide *d, const struct volume *v,
                                         uint32_t next_slot, bool no_space)
{
    Zbs__Metalog__Record *r = record_new(d->pad, ZBS__METALOG__RECORD__KIND_VOLUME_PASS);

    r->volume_pass = PAD_NEW(d->pad, Zbs__Metalog__VolumePass);
    zbs__metalog__volume_pass__init(r->volume_pass);
    r->volume_pass->volume_id = v->id;
    r->volume_pass->next_slot = next_slot;
    r->volume_pass->no_space = no_space;
    return r;
}

/* A replica of a slot that was done has no promise: a copy that was made where there is no room. */
static void decide_lapsed(const struct decide *d, const struct volume *v, uint32_t slot,
                          Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__Provisioning *p = &v->provisioning;

    if (!p->thick || slot >= v->n_slots || (p->pass != 0 && p->next_slot <= slot))
        return;
    *ret = volume_pass(d, v, slot, true);
    (*ret)->volume_pass->again = true;
}

int decide_slot_provisioned(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__SlotProvisionedRequest *rq = (const void *)d->rq;
    const struct volume *v = state_volume(d->st, rq->volume_id);
    struct session *s;
    int rc = decide_session(d, rq->session_id, &s);

    *ret = NULL;
    if (rc < 0 || v == NULL || v->removed)
        return rc;
    if (rq->pass == 0)
        decide_lapsed(d, v, rq->slot, ret);
    else if (rq->pass == v->provisioning.pass && rq->slot == v->provisioning.next_slot &&
             !(rq->no_space && v->provisioning.no_space))
        *ret = volume_pass(d, v, rq->no_space ? rq->slot : rq->slot + 1, rq->no_space);
    return 0;
}

bool pass_goes_on(const struct state *st, const Zbs__Meta__SlotProvisionedRequest *rq)
{
    const struct volume *v = state_volume(st, rq->volume_id);
    const struct session *owner;
    const struct slot *s;

    if (v == NULL || rq->pass == 0 || rq->pass != v->provisioning.pass || rq->no_space)
        return false;
    s = volume_slot(v, v->provisioning.next_slot);
    owner = s != NULL ? slot_owner(st, s) : NULL;
    return owner == NULL || owner->id == rq->session_id;
}

int answer_slot_provisioned(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__SlotProvisionedRequest *rq = (const void *)d->rq;
    Zbs__Meta__SlotProvisionedReply *m = (void *)reply;

    if (!pass_goes_on(d->st, rq))
        return 0;
    m->pass = rq->pass;
    m->next_slot = state_volume(d->st, rq->volume_id)->provisioning.next_slot;
    return 0;
}
