/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli volume flatten: asks for it, and shows how far it is. */
#include <stdio.h>
#include <unistd.h>

#include "common/cluster/layout.h"
#include "tools/cli/volume.h"

#define POLL (NSEC_PER_SEC / 2)

struct progress {
    bool on;
    uint32_t done, slots; /* of the volume's extent table */
};

static struct progress progress_of(const Zbs__Meta__Volume *v)
{
    struct layout l = {v->stripe_count, v->stripe_bytes};
    struct progress p = {.on = v->flattening};

    p.slots = v->stripe_count > 0 ? layout_slots(&l, v->size_bytes) : 0;
    p.done = v->flattening ? MIN(v->flatten_next, p.slots) : p.slots;
    return p;
}

static json_t *progress_json(const char *name, const struct progress *p)
{
    return json_pack("{s:s,s:b,s:i,s:i}", "volume", name, "flattening", p->on, "slots_done",
                     (int)p->done, "slots", (int)p->slots);
}

static enum cli_exit progress_print(const struct cli *c, const struct progress *p)
{
    static const struct cli_column columns[] = {
        {"volume", "volume", CLI_TEXT},
        {"flattening", "being flattened", CLI_BOOL},
        {"slots_done", "slots done", CLI_TEXT},
        {"slots", "slots", CLI_TEXT},
        {0},
    };

    return cli_print_object(c, progress_json(c->args[0], p), columns);
}

static void line_print(const struct progress *p)
{
    bool terminal = isatty(STDOUT_FILENO);

    printf("%s%u of %u slots%s", terminal ? "\r\033[K" : "", p->done, p->slots,
           terminal && p->on ? "" : "\n");
    fflush(stdout);
}

static enum cli_exit watch(struct cli *c, struct progress *p)
{
    uint32_t said = UINT32_MAX;

    for (;;) {
        struct rpc_reply r;
        enum cli_exit rc;

        if (!c->json && (p->done != said || !p->on))
            line_print(p);
        said = p->done;
        if (!p->on)
            return CLI_OK;
        if (co_sleep(POLL) < 0)
            return CLI_FAILED;
        rc = volume_get(c, c->args[0], &r);
        if (rc)
            return rc;
        *p = progress_of((const Zbs__Meta__Volume *)r.msg);
        rpc_reply_free(&r);
    }
}

enum cli_exit volume_flatten(struct cli *c)
{
    Zbs__Meta__VolumeFlattenRequest q = ZBS__META__VOLUME_FLATTEN_REQUEST__INIT;
    struct volume_change v;
    struct progress p;
    struct rpc_reply r;
    enum cli_exit rc;

    if (!volume_change_begin(c, &v))
        return CLI_USAGE;
    VOLUME_CHANGE(&q, &v);
    q.cancel = cli_option(c, "cancel") != NULL;
    rc = cli_meta_call(c, META_VOLUME_FLATTEN, &q.base, &r);
    if (rc)
        return rc;
    p = progress_of((const Zbs__Meta__Volume *)r.msg);
    rpc_reply_free(&r);
    if (cli_option(c, "watch"))
        rc = watch(c, &p);
    return rc || (cli_option(c, "watch") && !c->json) ? rc : progress_print(c, &p);
}
