/* SPDX-License-Identifier: Apache-2.0
 *
 * Metadata contexts: there is one, base:allocation. */
#include <string.h>
#include "access/nbd/nbd_int.h"

static bool query_is(const uint8_t *query, uint32_t len, const char *text)
{
    return strlen(text) == len && memcmp(query, text, len) == 0;
}

/* Does one of the queries name our context? False: they are malformed. A list without queries asks
 * for everything, and "base:" for everything in this namespace; a selection has to be exact. */
static bool queries_match(struct nbd_cursor *in, bool list, bool *ret)
{
    const uint8_t *query;
    uint32_t count, len;

    if (!nbd_take_u32(in, &count))
        return false;
    *ret = list && count == 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!nbd_take_u32(in, &len) || !nbd_take(in, len, &query))
            return false;
        *ret |= query_is(query, len, NBD_CONTEXT_NAME) || (list && query_is(query, len, "base:"));
    }
    return in->left == 0;
}

static co_fn int send_context(struct nbd_conn *c, const struct nbd_option_in *o, uint32_t id)
{
    uint8_t data[4 + sizeof(NBD_CONTEXT_NAME) - 1];

    put_be32(data, id);
    memcpy(data + 4, NBD_CONTEXT_NAME, sizeof(NBD_CONTEXT_NAME) - 1);
    return nbd_option_reply(c, o->type, NBD_REP_META_CONTEXT, data, sizeof(data));
}

co_fn int nbd_option_meta(struct nbd_conn *c, const struct nbd_option_in *o)
{
    bool list = o->type == NBD_OPT_LIST_META_CONTEXT, match;
    struct nbd_cursor in = {o->data, o->len};
    const uint8_t *name;
    uint32_t name_len;
    int rc;

    if (!list)
        c->context = false; /* a selection replaces the former one, even if it fails */
    if (!c->structured)
        return nbd_option_error(c, o->type, NBD_REP_ERR_INVALID,
                                "structured replies have to be negotiated first");
    if (!nbd_take_u32(&in, &name_len) || !nbd_take(&in, name_len, &name) ||
        !queries_match(&in, list, &match))
        return nbd_option_error(c, o->type, NBD_REP_ERR_INVALID, "the option's data is malformed");
    rc = nbd_export_open(c, name, name_len);
    if (rc == ERR_NOTFOUND)
        return nbd_option_error(c, o->type, NBD_REP_ERR_UNKNOWN, "there is no such volume");
    if (rc == 0 && match)
        rc = send_context(c, o, list ? 0 : NBD_CONTEXT_ID);
    if (rc < 0)
        return rc;
    if (!list)
        c->context = match;
    return nbd_option_reply(c, o->type, NBD_REP_ACK, NULL, 0);
}
