/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions and answers about iSCSI targets and LUNs. */
#include <string.h>
#include "common/base/err.h"
#include "meta/check.h"
#include "meta/decide.h"

static int decide_target(const struct decide *d, const char *iqn, struct target **ret)
{
    *ret = state_target(d->st, iqn);
    if (*ret == NULL)
        return err_set(ERR_NOTFOUND, "target '%.223s' does not exist", iqn);
    return 0;
}

static int target_set(const struct decide *d, const Zbs__Meta__Target *t,
                      Zbs__Metalog__Record **ret)
{
    Zbs__Metalog__TargetSet *m;
    int rc = check_chap(t->chap_user, t->chap_secret);

    if (rc == 0 && t->n_initiators > INITIATORS_MAX)
        rc = err_set(ERR_INVAL, "%zu allowed initiators: at most %u", t->n_initiators,
                     INITIATORS_MAX);
    for (size_t i = 0; i < t->n_initiators && rc == 0; i++)
        rc = check_iqn("the initiator's name", t->initiators[i]);
    if (rc < 0)
        return rc;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_TARGET_SET);
    (*ret)->target_set = m = PAD_NEW(d->pad, Zbs__Metalog__TargetSet);
    zbs__metalog__target_set__init(m);
    m->iqn = t->iqn;
    m->chap_user = t->chap_user;
    m->chap_secret = t->chap_secret;
    m->initiators = t->initiators;
    m->n_initiators = t->n_initiators;
    return 0;
}

int decide_target_create(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__Target *t = ((const Zbs__Meta__TargetCreateRequest *)d->rq)->target;
    int rc;

    if (t == NULL)
        return err_set(ERR_INVAL, "no target given");
    rc = check_iqn("the target's name", t->iqn);
    if (rc < 0)
        return rc;
    if (t->n_luns > 0)
        return err_set(ERR_INVAL, "LUNs are added to a target after its creation");
    if (state_target(d->st, t->iqn) != NULL)
        return err_set(ERR_EXISTS, "target '%s' exists already", t->iqn);
    if (d->st->targets.count >= TARGETS_MAX)
        return err_set(ERR_TOO_LARGE, "the cluster has %u targets, the most allowed", TARGETS_MAX);
    return target_set(d, t, ret);
}

int decide_target_update(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__Target *t = ((const Zbs__Meta__TargetUpdateRequest *)d->rq)->target;
    struct target *present;
    int rc;

    if (t == NULL)
        return err_set(ERR_INVAL, "no target given");
    rc = decide_target(d, t->iqn, &present);
    return rc < 0 ? rc : target_set(d, t, ret);
}

int decide_target_delete(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__TargetDeleteRequest *rq = (const void *)d->rq;
    struct target *t;
    int rc = decide_target(d, rq->iqn, &t);

    if (rc < 0)
        return rc;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_TARGET_REMOVE);
    (*ret)->target_remove = PAD_NEW(d->pad, Zbs__Metalog__TargetRemove);
    zbs__metalog__target_remove__init((*ret)->target_remove);
    (*ret)->target_remove->iqn = rq->iqn;
    return 0;
}

int decide_lun_add(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__LunAddRequest *rq = (const void *)d->rq;
    uint32_t lun = rq->lun;
    struct target *t;
    struct volume *v;
    Zbs__Metalog__LunSet *m;
    int rc = decide_target(d, rq->iqn, &t);

    if (rc == 0)
        rc = decide_volume(d, rq->pool, rq->volume, &v);
    if (rc != 0)
        return rc;
    if (t->n_luns >= LUNS_MAX)
        return err_set(ERR_TOO_LARGE, "target '%s' has %u LUNs, the most allowed", t->iqn,
                       LUNS_MAX);
    if (rq->any_lun) {
        for (lun = 0; target_lun(t, lun) != NULL; lun++)
            ;
    }
    if (lun >= LUNS_MAX)
        return err_set(ERR_INVAL, "LUN %u: 0 to %u are allowed", lun, LUNS_MAX - 1);
    if (target_lun(t, lun) != NULL)
        return err_set(ERR_EXISTS, "target '%s' has a LUN %u already", t->iqn, lun);
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_LUN_SET);
    (*ret)->lun_set = m = PAD_NEW(d->pad, Zbs__Metalog__LunSet);
    zbs__metalog__lun_set__init(m);
    m->iqn = rq->iqn;
    m->lun = lun;
    m->volume_id = v->id;
    return 0;
}

int decide_lun_remove(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__LunRemoveRequest *rq = (const void *)d->rq;
    struct target *t;
    Zbs__Metalog__LunUnset *m;
    int rc = decide_target(d, rq->iqn, &t);

    if (rc < 0)
        return rc;
    if (target_lun(t, rq->lun) == NULL)
        return err_set(ERR_NOTFOUND, "target '%s' has no LUN %u", t->iqn, rq->lun);
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_LUN_UNSET);
    (*ret)->lun_unset = m = PAD_NEW(d->pad, Zbs__Metalog__LunUnset);
    zbs__metalog__lun_unset__init(m);
    m->iqn = rq->iqn;
    m->lun = rq->lun;
    return 0;
}

int answer_exports_get(const struct decide *d, ProtobufCMessage *reply)
{
    Zbs__Meta__ExportsGetReply *m = (void *)reply;

    m->version = d->st->exports_version;
    m->targets = PAD_NEW_ARRAY(d->pad, Zbs__Meta__Target *, d->st->targets.count);
    m->n_targets = d->st->targets.count;
    for (uint32_t i = 0; i < d->st->targets.count; i++) {
        m->targets[i] = PAD_NEW(d->pad, Zbs__Meta__Target);
        view_target(m->targets[i], d->st, d->st->targets.items[i], d->pad);
    }
    m->accesses = PAD_NEW_ARRAY(d->pad, Zbs__Meta__AccessView *, d->st->sessions.count);
    m->n_accesses = d->st->sessions.count;
    for (uint32_t i = 0; i < d->st->sessions.count; i++) {
        m->accesses[i] = PAD_NEW(d->pad, Zbs__Meta__AccessView);
        view_access(m->accesses[i], d->st->sessions.items[i]);
    }
    return 0;
}
