/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli reservation: what initiators reserved of a volume, and its end by an administrator, where
 * the initiator that could end it is gone. */
#include <inttypes.h>
#include <stdio.h>

#include "access/scsi/pr.h"
#include "common/base/mem.h"
#include "tools/cli/volume.h"

#define CLEAR_ATTEMPTS 5

static const struct cli_column columns[] = {
    {"initiator", "INITIATOR", CLI_TEXT},
    {"port", "PORT", CLI_TEXT},
    {"key", "KEY", CLI_TEXT},
    {"holder", "HOLDER", CLI_BOOL},
    {0},
};

static const char *type_text(const struct pr_state *s)
{
    switch ((enum pr_type)s->type) {
    case PR_WRITE_EXCLUSIVE:
        return "write exclusive";
    case PR_EXCLUSIVE_ACCESS:
        return "exclusive access";
    case PR_WRITE_EXCLUSIVE_RO:
        return "write exclusive, registrants only";
    case PR_EXCLUSIVE_ACCESS_RO:
        return "exclusive access, registrants only";
    case PR_WRITE_EXCLUSIVE_AR:
        return "write exclusive, all registrants";
    case PR_EXCLUSIVE_ACCESS_AR:
        return "exclusive access, all registrants";
    case PR_NONE:
        break;
    }
    return s->legacy ? "RESERVE(6)" : "none";
}

static json_t *nexus_json(const struct pr_nexus *n, uint64_t key, bool holder)
{
    char port[8] = "all", key_text[19];

    if (n->port != PR_PORT_ALL)
        snprintf(port, sizeof(port), "%u", n->port);
    snprintf(key_text, sizeof(key_text), "0x%" PRIx64, key);
    return json_pack("{s:s,s:s,s:s,s:b}", "initiator", n->initiator, "port", port, "key", key_text,
                     "holder", holder);
}

static json_t *state_json(const struct pr_state *s)
{
    json_t *list = json_array();

    if (s->legacy)
        json_array_append_new(list, nexus_json(&s->legacy_nexus, 0, true));
    for (uint32_t i = 0; i < s->count; i++)
        json_array_append_new(
            list, nexus_json(&s->regs[i].nexus, s->regs[i].key, pr_holds(s, &s->regs[i])));
    return json_pack("{s:s,s:I,s:o}", "type", type_text(s), "generation", (json_int_t)s->generation,
                     "initiators", list);
}

/* What is recorded of the volume that the first argument names. dst: initialised. */
static enum cli_exit state_get(struct cli *c, struct pr_state *dst, uint64_t *ret_volume,
                               uint64_t *ret_version)
{
    Zbs__Meta__ReservationGetRequest q = ZBS__META__RESERVATION_GET_REQUEST__INIT;
    const Zbs__Meta__ReservationGetReply *a;
    struct rpc_reply r;
    enum cli_exit rc = volume_get(c, c->args[0], &r);
    int err = 0;

    if (rc)
        return rc;
    q.volume_id = *ret_volume = ((const Zbs__Meta__Volume *)r.msg)->id;
    rpc_reply_free(&r);
    rc = cli_meta_call(c, META_RESERVATION_GET, &q.base, &r);
    if (rc)
        return rc;
    a = (const Zbs__Meta__ReservationGetReply *)r.msg;
    *ret_version = a->version;
    if (a->record.len > 0)
        err = pr_decode(dst, a->record.data, a->record.len);
    rpc_reply_free(&r);
    return err < 0 ? cli_report(err, c->args[0]) : CLI_OK;
}

static enum cli_exit reservation_show(struct cli *c)
{
    uint64_t volume, version;
    struct pr_state s;
    enum cli_exit rc;
    json_t *all;

    pr_state_init(&s);
    rc = state_get(c, &s, &volume, &version);
    all = rc == CLI_OK ? state_json(&s) : NULL;
    pr_state_fini(&s);
    if (rc)
        return rc;
    if (c->json)
        return cli_print_json(all);
    printf("reservation  %s\n\n", json_string_value(json_object_get(all, "type")));
    rc = cli_print_table(c, json_incref(json_object_get(all, "initiators")), columns);
    json_decref(all);
    return rc;
}

/* *ret_err: of the call, ERR_STALE if the reservations were changed meanwhile; 0 if it was not
 * made. */
static enum cli_exit clear_once(struct cli *c, int *ret_err)
{
    Zbs__Meta__ReservationSetRequest q = ZBS__META__RESERVATION_SET_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    struct pr_state s;
    uint8_t *record;
    enum cli_exit rc;

    *ret_err = 0;
    pr_state_init(&s);
    rc = state_get(c, &s, &q.volume_id, &q.version);
    if (rc == CLI_OK && (s.count > 0 || s.legacy)) {
        pr_clear(&s);
        q.record.len = pr_encode(&s, &record);
        q.record.data = record;
        meta_client_mutation(c->meta, &m);
        q.mutation = &m;
        rpc_reply_init(&r);
        *ret_err = meta_call(c->meta, META_RESERVATION_SET, &q.base, true, &r);
        rpc_reply_free(&r);
        mem_free(record);
    }
    pr_state_fini(&s);
    return rc;
}

static enum cli_exit reservation_clear(struct cli *c)
{
    int err = ERR_STALE;

    if (!cli_option(c, "yes"))
        return cli_usage_error(c,
                               "initiators that rely on a reservation of %s may write at the same "
                               "time: say --yes",
                               c->args[0]);
    for (int i = 0; i < CLEAR_ATTEMPTS && err == ERR_STALE; i++) {
        enum cli_exit rc = clear_once(c, &err);

        if (rc)
            return rc;
    }
    return cli_done(c, err < 0 ? cli_report(err, "the meta servers") : CLI_OK, NULL);
}

const struct cli_command cli_reservation_commands[] = {
    {"reservation",
     "show",
     "POOL/VOLUME",
     1,
     1,
     "prints which initiators registered with a volume, and who reserved it",
     {{0}},
     reservation_show},
    {"reservation",
     "clear",
     "POOL/VOLUME",
     1,
     1,
     "ends a volume's reservation and all registrations; initiators are told",
     {{"yes", NULL, "whoever was shut out may write again"}},
     reservation_clear},
    {0},
};
