/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC: a call's header, and its execution: the same whatever it came by. */
#include "access/nfs/rpc_int.h"

enum { AUTH_BADCRED = 1, AUTH_BADVERF = 3 };

/* ---- the header ---- */

bool onc_call_begins(struct onc_call *call, struct xdr_in *in)
{
    call->xid = xdr_u32(in);
    return xdr_u32(in) == ONC_CALL && !in->bad;
}

/* authsys_parms of RFC 5531, appendix A. */
static bool take_sys(struct onc_cred *cred, const uint8_t *body, uint32_t len)
{
    struct xdr_in in;
    const uint8_t *name;
    uint32_t name_len;

    xdr_in_init(&in, body, len);
    (void)xdr_u32(&in); /* stamp */
    name = xdr_opaque(&in, sizeof(cred->machine) - 1, &name_len);
    for (uint32_t i = 0; name != NULL && i < name_len; i++)
        cred->machine[i] = name[i] > ' ' && name[i] < 0x7f ? (char)name[i] : '?';
    cred->uid = xdr_u32(&in);
    cred->gid = xdr_u32(&in);
    cred->gid_count = xdr_u32(&in);
    if (cred->gid_count > ONC_GIDS_MAX)
        return false;
    for (uint32_t i = 0; i < cred->gid_count; i++)
        cred->gids[i] = xdr_u32(&in);
    return !in.bad;
}

static bool take_cred(struct onc_cred *cred, struct xdr_in *in)
{
    uint32_t flavor = xdr_u32(in), len;
    const uint8_t *body = xdr_opaque(in, ONC_AUTH_BYTES, &len);

    if (in->bad || (flavor != ONC_AUTH_NONE && flavor != ONC_AUTH_SYS))
        return false;
    cred->flavor = flavor;
    return flavor == ONC_AUTH_NONE || take_sys(cred, body, len);
}

static bool take_verf(struct xdr_in *in)
{
    uint32_t len;

    (void)xdr_u32(in); /* flavor */
    (void)xdr_opaque(in, ONC_AUTH_BYTES, &len);
    return !in->bad;
}

/* False: what is wrong was put as the answer. */
static bool find_procedure(struct onc_call *call, const struct onc_procedure **ret)
{
    const struct onc_program *const *programs = call->source->conf->programs, *found = NULL;
    uint32_t low = UINT32_MAX, high = 0;

    for (size_t i = 0; programs[i] != NULL; i++) {
        if (programs[i]->number != call->program)
            continue;
        low = MIN(low, programs[i]->version);
        high = MAX(high, programs[i]->version);
        if (programs[i]->version == call->version)
            found = programs[i];
    }
    if (found == NULL) {
        onc_reply_error(call, high == 0 ? ONC_PROG_UNAVAIL : ONC_PROG_MISMATCH, low, high);
        return false;
    }
    if (call->procedure >= found->procedure_count ||
        found->procedures[call->procedure].name == NULL) {
        onc_reply_error(call, ONC_PROC_UNAVAIL, 0, 0);
        return false;
    }
    *ret = &found->procedures[call->procedure];
    return true;
}

bool onc_header_take(struct onc_call *call, struct xdr_in *in, const struct onc_procedure **ret)
{
    uint32_t version = xdr_u32(in);

    call->program = xdr_u32(in);
    call->version = xdr_u32(in);
    call->procedure = xdr_u32(in);
    if (version != ONC_VERSION)
        onc_reply_version_error(call);
    else if (!take_cred(&call->cred, in))
        onc_reply_auth_error(call, AUTH_BADCRED);
    else if (!take_verf(in))
        onc_reply_auth_error(call, AUTH_BADVERF);
    else
        return find_procedure(call, ret);
    return false;
}

/* ---- the call ---- */

bool onc_call_same(const struct onc_call *a, const struct onc_call *b)
{
    return a->xid == b->xid && a->program == b->program && a->procedure == b->procedure;
}

co_fn bool onc_call_run(struct onc_call *call, const struct onc_procedure *procedure)
{
    enum onc_accept stat = ONC_SUCCESS;

    onc_reply_begin(call);
    if (procedure->handler != NULL)
        stat = procedure->handler(call);
    if (stat != ONC_SUCCESS && stat != ONC_DROPPED)
        onc_reply_error(call, stat, 0, 0);
    return stat != ONC_DROPPED;
}

/* ---- where it came from ---- */

void onc_source_init(struct onc_source *source, const struct onc_conf *conf, const char *peer,
                     const char *local)
{
    source->conf = conf;
    source->peer_text = peer;
    source->local_text = local;
    /* A peer whose address can't be understood belongs to no network. */
    if (addr_parse(peer, &source->peer) < 0)
        source->peer = (struct addr){.kind = ADDR_UNIX};
}

void *onc_call_arg(const struct onc_call *call)
{
    return call->source->conf->arg;
}

const char *onc_call_peer(const struct onc_call *call)
{
    return call->source->peer_text;
}

const char *onc_call_local(const struct onc_call *call)
{
    return call->source->local_text;
}

const struct addr *onc_call_peer_addr(const struct onc_call *call)
{
    return &call->source->peer;
}
