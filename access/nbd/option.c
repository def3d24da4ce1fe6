/* SPDX-License-Identifier: Apache-2.0
 *
 * Options of the fixed newstyle negotiation. */
#include <string.h>
#include "access/nbd/nbd_int.h"

bool nbd_take(struct nbd_cursor *in, uint32_t len, const uint8_t **ret)
{
    if (in->left < len)
        return false;
    *ret = in->p;
    in->p += len;
    in->left -= len;
    return true;
}

bool nbd_take_u16(struct nbd_cursor *in, uint32_t *ret)
{
    const uint8_t *p;

    if (!nbd_take(in, 2, &p))
        return false;
    *ret = get_be16(p);
    return true;
}

bool nbd_take_u32(struct nbd_cursor *in, uint32_t *ret)
{
    const uint8_t *p;

    if (!nbd_take(in, 4, &p))
        return false;
    *ret = get_be32(p);
    return true;
}

/* ---- exports ---- */

co_fn void nbd_export_close(struct nbd_conn *c)
{
    struct co_shield shield;

    if (c->backend != NULL) {
        co_shield_begin(&shield);
        c->backend->ops->close(c->backend);
        co_shield_end(&shield);
    }
    c->backend = NULL;
    c->context = false; /* it was selected for this export */
    c->name[0] = '\0';
}

co_fn int nbd_export_open(struct nbd_conn *c, const uint8_t *name, uint32_t len)
{
    const struct nbd_conf *conf = &c->s->conf;
    int rc;

    if (c->backend != NULL && strlen(c->name) == len && memcmp(c->name, name, len) == 0)
        return 0;
    nbd_export_close(c);
    if (len == 0 || len > NBD_NAME_MAX || memchr(name, '\0', len) != NULL)
        return err_set(ERR_NOTFOUND, "there is no export of this name");
    memcpy(c->name, name, len);
    c->name[len] = '\0';
    rc = conf->open(conf->arg, c->name, &c->backend);
    if (rc < 0)
        c->backend = NULL;
    return rc;
}

static struct block_backend_info export_info(const struct nbd_conn *c)
{
    struct block_backend_info info;

    c->backend->ops->info(c->backend, &info);
    return info;
}

uint64_t nbd_export_size(const struct nbd_conn *c)
{
    return export_info(c).size_bytes;
}

static bool others_end(const struct nbd_conn *c)
{
    uint64_t volume_id = export_info(c).volume_id;

    LIST_FOREACH (o, &c->s->stream.conns, struct nbd_conn, stream.link) {
        if ((o->ending || o->stream.broken != NULL) && o->requests.count > 0 &&
            export_info(o).volume_id == volume_id)
            return true;
    }
    return false;
}

co_fn int nbd_export_settle(struct nbd_conn *c)
{
    int rc = 0;

    while (rc == 0 && others_end(c))
        rc = co_cond_wait(&c->s->stream.conn_gone);
    return rc < 0 ? err_prefix(rc, "requests of a former connection have not ended") : 0;
}

/* Several connections are as good as one: every acknowledged write is durable and seen by all. */
uint16_t nbd_transmission_flags(const struct nbd_conn *c)
{
    return NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |
           NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE |
           NBD_FLAG_SEND_FAST_ZERO | (c->structured ? NBD_FLAG_SEND_DF : 0) |
           (export_info(c).read_only ? NBD_FLAG_READ_ONLY : 0);
}

/* ---- options ---- */

static co_fn int ack(struct nbd_conn *c, const struct nbd_option_in *o)
{
    return nbd_option_reply(c, o->type, NBD_REP_ACK, NULL, 0);
}

static co_fn int invalid(struct nbd_conn *c, const struct nbd_option_in *o)
{
    return nbd_option_error(c, o->type, NBD_REP_ERR_INVALID, "the option's data is malformed");
}

static co_fn int option_abort(struct nbd_conn *c, const struct nbd_option_in *o)
{
    int rc = ack(c, o);

    return rc < 0 ? rc : err_set(ERR_CLOSED, "the client ended the negotiation");
}

static co_fn int list_one(void *arg, const char *name)
{
    uint8_t data[4 + NBD_NAME_MAX];
    uint32_t len = (uint32_t)strlen(name);

    ASSERT(len <= NBD_NAME_MAX);
    put_be32(data, len);
    memcpy(data + 4, name, len);
    return nbd_option_reply(arg, NBD_OPT_LIST, NBD_REP_SERVER, data, 4 + len);
}

static co_fn int option_list(struct nbd_conn *c, const struct nbd_option_in *o)
{
    const struct nbd_conf *conf = &c->s->conf;
    int rc;

    if (o->len > 0)
        return invalid(c, o);
    if (conf->list == NULL)
        return nbd_option_error(c, o->type, NBD_REP_ERR_POLICY, "exports are not listed");
    rc = conf->list(conf->arg, list_one, c);
    return rc < 0 ? rc : ack(c, o);
}

static co_fn int option_structured(struct nbd_conn *c, const struct nbd_option_in *o)
{
    if (o->len > 0)
        return invalid(c, o);
    c->structured = true;
    return ack(c, o);
}

static co_fn int send_info(struct nbd_conn *c, const struct nbd_option_in *o, bool with_name)
{
    uint8_t data[2 + NBD_NAME_MAX];
    uint32_t len = (uint32_t)strlen(c->name);
    int rc;

    put_be16(data, NBD_INFO_EXPORT);
    put_be64(data + 2, nbd_export_size(c));
    put_be16(data + 10, nbd_transmission_flags(c));
    rc = nbd_option_reply(c, o->type, NBD_REP_INFO, data, 12);
    if (rc < 0)
        return rc;
    put_be16(data, NBD_INFO_BLOCK_SIZE);
    put_be32(data + 2, NBD_BLOCK_MIN);
    put_be32(data + 6, NBD_BLOCK_PREFERRED);
    put_be32(data + 10, NBD_PAYLOAD_MAX);
    rc = nbd_option_reply(c, o->type, NBD_REP_INFO, data, 14);
    if (rc < 0 || !with_name)
        return rc;
    put_be16(data, NBD_INFO_NAME);
    memcpy(data + 2, c->name, len);
    return nbd_option_reply(c, o->type, NBD_REP_INFO, data, 2 + len);
}

/* INFO and GO differ in what follows. */
static co_fn int option_go(struct nbd_conn *c, const struct nbd_option_in *o)
{
    struct nbd_cursor in = {o->data, o->len};
    const uint8_t *name;
    uint32_t name_len, count, info;
    bool with_name = false;
    int rc;

    if (!nbd_take_u32(&in, &name_len) || !nbd_take(&in, name_len, &name) ||
        !nbd_take_u16(&in, &count) || in.left != count * 2)
        return invalid(c, o);
    while (nbd_take_u16(&in, &info))
        with_name |= info == NBD_INFO_NAME;
    rc = nbd_export_open(c, name, name_len);
    if (rc == ERR_NOTFOUND)
        return nbd_option_error(c, o->type, NBD_REP_ERR_UNKNOWN, "there is no such volume");
    if (rc == 0 && o->type == NBD_OPT_GO)
        rc = nbd_export_settle(c);
    if (rc == 0)
        rc = send_info(c, o, with_name);
    if (rc == 0)
        rc = ack(c, o);
    if (rc < 0)
        return rc;
    return o->type == NBD_OPT_GO ? NBD_OPTION_TRANSMIT : NBD_OPTION_NEXT;
}

co_fn int nbd_option(struct nbd_conn *c, const struct nbd_option_in *o)
{
    if (nbd_tls_missing(c) && o->type != NBD_OPT_STARTTLS && o->type != NBD_OPT_ABORT)
        return nbd_option_error(c, o->type, NBD_REP_ERR_TLS_REQD, "this server requires TLS");
    switch (o->type) {
    case NBD_OPT_ABORT:
        return option_abort(c, o);
    case NBD_OPT_LIST:
        return option_list(c, o);
    case NBD_OPT_STARTTLS:
        return nbd_option_starttls(c, o);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return option_go(c, o);
    case NBD_OPT_STRUCTURED_REPLY:
        return option_structured(c, o);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return nbd_option_meta(c, o);
    default:
        return nbd_option_error(c, o->type, NBD_REP_ERR_UNSUP, "this server has no such option");
    }
}
