/* SPDX-License-Identifier: Apache-2.0
 *
 * Limits as options and as output: see limits.h. */
#include "tools/cli/limits.h"

static bool limit_option(struct cli *c, const char *name, bool bytes, Zbs__Meta__Value *v,
                         Zbs__Meta__Value **ret)
{
    const char *text = cli_option(c, name);
    uint32_t n = 0;

    zbs__meta__value__init(v);
    if (!text)
        return true;
    if (bytes ? !cli_parse_size(text, &v->value) : !cli_option_u32(c, name, 0, 1u << 30, &n))
        return false;
    if (!bytes)
        v->value = n;
    *ret = v;
    return true;
}

bool limits_options(struct cli *c, struct limits_change *ret)
{
    zbs__meta__limits_change__init(&ret->msg);
    return limit_option(c, "iops", false, &ret->values[0], &ret->msg.iops) &&
           limit_option(c, "iops-burst", false, &ret->values[1], &ret->msg.iops_burst) &&
           limit_option(c, "bandwidth", true, &ret->values[2], &ret->msg.bandwidth) &&
           limit_option(c, "bandwidth-burst", true, &ret->values[3], &ret->msg.bandwidth_burst);
}

void limits_json(json_t *to, const Zbs__Meta__Limits *l)
{
    json_object_set_new(to, "iops", json_integer(l ? (json_int_t)l->iops : 0));
    json_object_set_new(to, "iops_burst", json_integer(l ? (json_int_t)l->iops_burst : 0));
    json_object_set_new(to, "bandwidth", json_integer(l ? (json_int_t)l->bandwidth : 0));
    json_object_set_new(to, "bandwidth_burst",
                        json_integer(l ? (json_int_t)l->bandwidth_burst : 0));
}
