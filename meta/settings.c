/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings of the cluster: see settings.h. */
#include "meta/settings.h"

#include <string.h>
#include "common/base/mem.h"
#include "meta/apply.h"
#include "meta/codec.h"

static int compare_setting(const void *item, const void *key)
{
    return strcmp(((const struct setting_value *)item)->name, key);
}

uint64_t state_setting(const struct state *st, enum setting s)
{
    const struct setting_value *v =
        sorted_find(&st->settings, compare_setting, setting_defs[s].name);

    return v != NULL ? v->value : setting_defs[s].def;
}

void state_setting_put(struct state *st, const char *name, uint64_t value, uint64_t version)
{
    struct setting_value *v = sorted_find(&st->settings, compare_setting, name);

    if (v == NULL) {
        v = MEM_NEW(struct setting_value);
        v->name = mem_strdup(name);
        sorted_insert(&st->settings, compare_setting, name, v);
    }
    v->value = value;
    v->version = version;
    st->settings_version = MAX(st->settings_version, version);
}

void state_settings_fini(struct state *st)
{
    for (uint32_t i = 0; i < st->settings.count; i++) {
        struct setting_value *v = st->settings.items[i];

        mem_free(v->name);
        mem_free(v);
    }
    sorted_fini(&st->settings);
}

int apply_setting_set(struct apply *a)
{
    const Zbs__Metalog__SettingSet *m = a->record->setting_set;

    if (m->name[0] == 0 || strlen(m->name) > SETTING_NAME_MAX)
        return apply_misfit(a, "name of a setting");
    state_setting_put(a->st, m->name, m->value, a->number);
    codec_put_setting(a->to, sorted_find(&a->st->settings, compare_setting, m->name));
    return 0;
}

/* ---- requests ---- */

static int setting_named(const char *name)
{
    int s = setting_find(name);

    if (s < 0)
        return err_set(ERR_NOTFOUND,
                       "there is no setting '%.100s': `zbs-cli setting list` shows them", name);
    return s;
}

int decide_setting_set(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__SettingSetRequest *rq = (const void *)d->rq;
    Zbs__Metalog__SettingSet *m;
    int s = setting_named(rq->name), rc;

    if (s < 0)
        return s;
    rc = setting_check(&setting_defs[s], rq->value);
    if (rc < 0)
        return rc;
    *ret = NULL;
    if (state_setting(d->st, (enum setting)s) == rq->value)
        return 0;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_SETTING_SET);
    (*ret)->setting_set = m = PAD_NEW(d->pad, Zbs__Metalog__SettingSet);
    zbs__metalog__setting_set__init(m);
    m->name = rq->name;
    m->value = rq->value;
    return 0;
}

static void view_setting(Zbs__Meta__Setting *m, const struct state *st, enum setting s)
{
    zbs__meta__setting__init(m);
    m->name = (char *)setting_defs[s].name;
    m->value = state_setting(st, s);
}

int answer_setting_set(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__SettingSetRequest *rq = (const void *)d->rq;

    view_setting((Zbs__Meta__Setting *)reply, d->st, (enum setting)setting_find(rq->name));
    return 0;
}

Zbs__Meta__Setting **view_settings(const struct state *st, struct pad *pad)
{
    Zbs__Meta__Setting **all = PAD_NEW_ARRAY(pad, Zbs__Meta__Setting *, SETTINGS);

    for (int s = 0; s < SETTINGS; s++) {
        all[s] = PAD_NEW(pad, Zbs__Meta__Setting);
        view_setting(all[s], st, (enum setting)s);
    }
    return all;
}

int answer_setting_list(const struct decide *d, ProtobufCMessage *reply)
{
    Zbs__Meta__SettingListReply *m = (void *)reply;

    m->settings = view_settings(d->st, d->pad);
    m->n_settings = SETTINGS;
    return 0;
}
