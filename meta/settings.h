/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings of the cluster in the replicated state; which there are is in common/cluster/setting.h.
 * Only those that were ever set are in it. A name that this program does not know (another
 * release set it) is kept and not used. */
#ifndef ZBS_META_SETTINGS_H
#define ZBS_META_SETTINGS_H

#include "common/cluster/setting.h"
#include "meta/decide.h"

struct apply;

struct setting_value {
    char *name;
    uint64_t value;
    uint64_t version; /* mutation number of the last change */
};

/* The default if it was never set. */
uint64_t state_setting(const struct state *st, enum setting s);
void state_setting_put(struct state *st, const char *name, uint64_t value, uint64_t version);
void state_settings_fini(struct state *st);
int apply_setting_set(struct apply *a);

int decide_setting_set(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_setting_set(const struct decide *d, ProtobufCMessage *reply);
int answer_setting_list(const struct decide *d, ProtobufCMessage *reply);
/* All of them, for a session. */
Zbs__Meta__Setting **view_settings(const struct state *st, struct pad *pad);

#endif
