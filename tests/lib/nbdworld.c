/* SPDX-License-Identifier: Apache-2.0
 *
 * An NBD server in the simulator and a client of it: see nbdworld.h. */
#include "tests/lib/nbdworld.h"

#include <string.h>
#include "tests/lib/frontworld.h"

static const char *const names[NW_EXPORTS] = {NW_EXPORT, NW_OTHER};

/* ---- world ---- */

/* A back end in memory that counts its end. */
struct counted {
    struct block_backend base;
    struct block_backend_ops ops;
    void (*close)(struct block_backend *b);
};

static struct nbdworld *the_world;

static void counted_close(struct block_backend *b)
{
    const struct block_backend_ops *ops = b->ops;
    void (*close)(struct block_backend *) = CONTAINER_OF(ops, struct counted, ops)->close;

    the_world->closes++;
    if (the_world->last == b)
        the_world->last = NULL;
    close(b);
    mem_free(CONTAINER_OF(ops, struct counted, ops));
}

static co_fn int open_export(void *arg, const char *name, struct block_backend **ret)
{
    struct nbdworld *w = arg;

    for (uint64_t i = 0; i < NW_EXPORTS; i++) {
        struct counted *c;

        if (strcmp(name, names[i]) != 0)
            continue;
        w->last = *ret = block_backend_mem_new(i + 1, NW_SIZE);
        c = MEM_NEW(struct counted);
        c->ops = *w->last->ops;
        c->close = c->ops.close;
        c->ops.close = counted_close;
        w->last->ops = &c->ops;
        w->opens++;
        return 0;
    }
    return err_set(ERR_NOTFOUND, "no such export");
}

static co_fn int list_exports(void *arg, int (*fn)(void *fn_arg, const char *name), void *fn_arg)
{
    int rc = 0;

    (void)arg;
    for (uint32_t i = 0; i < NW_EXPORTS && rc == 0; i++)
        rc = fn(fn_arg, names[i]);
    return rc;
}

static co_fn int world_main(void *arg)
{
    struct nbdworld *w = arg;

    the_world = w;
    if (w->setup != NULL)
        w->setup(w);
    uint64_t before = mem_heap_bytes(mem_heap_current());
    w->conf.listen = FRONT_HOST ":10809";
    w->conf.listen_unix = NW_UNIX;
    w->conf.open = open_export;
    w->conf.list = list_exports;
    w->conf.arg = w;
    w->conf.tls_identity = w->tls;
    int rc = nbd_server_start(&w->conf, &w->server);
    ASSERT(rc == 0);
    w->addr = nbd_server_addr(w->server);
    w->body(w);
    if (w->server != NULL)
        nbd_server_stop(w->server);
    ASSERT(w->opens == w->closes);
    ASSERT(mem_heap_bytes(mem_heap_current()) == before);
    net_tls_free(w->tls);
    return 0;
}

void nbdworld_run(struct nbdworld *w)
{
    frontworld_run(w->seed, world_main, w);
}

co_fn void nbdworld_quiet(struct nbdworld *w)
{
    while (w->server->stream.conn_count > 0)
        ASSERT(co_sleep(NSEC_PER_MSEC) == 0);
}

/* ---- client ---- */

co_fn void nc_connect(struct nc *n, const char *addr)
{
    memset(n, 0, sizeof(*n));
    ASSERT(net_connect(addr, &n->net) == 0);
}

void nc_close(struct nc *n)
{
    net_close(n->net);
}

co_fn int nc_put(struct nc *n, const void *data, size_t len)
{
    struct iovec iov = {(void *)(uintptr_t)data, len};

    return len == 0 ? 0 : net_writev_full(n->net, &iov, 1);
}

co_fn int nc_get(struct nc *n, void *data, size_t len)
{
    return len == 0 ? 0 : net_read_full(n->net, data, len);
}

co_fn void nc_hello(struct nc *n, uint32_t flags)
{
    uint8_t hello[18], answer[4];

    ASSERT(nc_get(n, hello, sizeof(hello)) == 0);
    ASSERT(get_be64(hello) == NBD_MAGIC && get_be64(hello + 8) == NBD_OPTION_MAGIC);
    ASSERT(get_be16(hello + 16) == (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
    put_be32(answer, flags);
    ASSERT(nc_put(n, answer, sizeof(answer)) == 0);
}

co_fn int nc_option(struct nc *n, uint32_t type, const void *data, uint32_t len)
{
    uint8_t head[NBD_OPTION_BYTES];
    int rc;

    put_be64(head, NBD_OPTION_MAGIC);
    put_be32(head + 8, type);
    put_be32(head + 12, len);
    rc = nc_put(n, head, sizeof(head));
    return rc < 0 ? rc : nc_put(n, data, len);
}

co_fn int nc_option_get(struct nc *n, struct nc_option_reply *r)
{
    uint8_t head[NBD_OPTION_REPLY_BYTES];
    int rc = nc_get(n, head, sizeof(head));

    if (rc < 0)
        return rc;
    ASSERT(get_be64(head) == NBD_OPTION_REPLY_MAGIC);
    r->option = get_be32(head + 8);
    r->type = get_be32(head + 12);
    r->len = get_be32(head + 16);
    ASSERT(r->len <= sizeof(r->data));
    return nc_get(n, r->data, r->len);
}

static void note_info(struct nc *n, const struct nc_option_reply *r)
{
    if (get_be16(r->data) == NBD_INFO_EXPORT) {
        ASSERT(r->len == 12);
        n->size = get_be64(r->data + 2);
        n->flags = get_be16(r->data + 10);
    } else if (get_be16(r->data) == NBD_INFO_BLOCK_SIZE) {
        ASSERT(r->len == 14);
        n->block_min = get_be32(r->data + 2);
        n->block_preferred = get_be32(r->data + 6);
        n->payload_max = get_be32(r->data + 10);
    }
}

co_fn uint32_t nc_option_ask(struct nc *n, uint32_t type, const void *data, uint32_t len)
{
    struct nc_option_reply r;

    ASSERT(nc_option(n, type, data, len) == 0);
    for (;;) {
        ASSERT(nc_option_get(n, &r) == 0);
        ASSERT(r.option == type);
        if (r.type == NBD_REP_INFO)
            note_info(n, &r);
        else if (r.type != NBD_REP_SERVER && r.type != NBD_REP_META_CONTEXT)
            return r.type;
    }
}

static uint32_t put_text(uint8_t *dst, const char *text)
{
    uint32_t len = (uint32_t)strlen(text);

    put_be32(dst, len);
    memcpy(dst + 4, text, len);
    return 4 + len;
}

uint32_t nc_go_data(uint8_t *dst, const char *name)
{
    uint32_t n = put_text(dst, name);

    put_be16(dst + n, 1);
    put_be16(dst + n + 2, NBD_INFO_BLOCK_SIZE);
    return n + 4;
}

uint32_t nc_meta_data(uint8_t *dst, const char *name, const char *query)
{
    uint32_t n = put_text(dst, name);

    put_be32(dst + n, query[0] != '\0');
    n += 4;
    return query[0] != '\0' ? n + put_text(dst + n, query) : n;
}

co_fn void nc_open(struct nc *n, const char *addr, bool structured, bool context)
{
    uint8_t data[256];

    nc_connect(n, addr);
    nc_hello(n, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    if (structured)
        ASSERT(nc_option_ask(n, NBD_OPT_STRUCTURED_REPLY, NULL, 0) == NBD_REP_ACK);
    if (context)
        ASSERT(nc_option_ask(n, NBD_OPT_SET_META_CONTEXT, data,
                             nc_meta_data(data, NW_EXPORT, NBD_CONTEXT_NAME)) == NBD_REP_ACK);
    ASSERT(nc_option_ask(n, NBD_OPT_GO, data, nc_go_data(data, NW_EXPORT)) == NBD_REP_ACK);
}

co_fn int nc_send(struct nc *n, uint16_t type, uint16_t flags, uint64_t off, uint32_t len,
                  const void *data)
{
    uint8_t head[NBD_REQUEST_BYTES];
    int rc;

    put_be32(head, NBD_REQUEST_MAGIC);
    put_be16(head + 4, flags);
    put_be16(head + 6, type);
    put_be64(head + 8, ++n->cookie);
    put_be64(head + 16, off);
    put_be32(head + 24, len);
    rc = nc_put(n, head, sizeof(head));
    return rc < 0 || data == NULL ? rc : nc_put(n, data, len);
}

static co_fn int recv_simple(struct nc *n, struct nc_reply *r)
{
    uint8_t rest[12];
    int rc = nc_get(n, rest, sizeof(rest));

    r->error = get_be32(rest);
    r->cookie = get_be64(rest + 4);
    return rc;
}

static co_fn int recv_chunk(struct nc *n, struct nc_reply *r)
{
    uint8_t rest[16];
    int rc = nc_get(n, rest, sizeof(rest));

    if (rc < 0)
        return rc;
    r->structured = true;
    r->flags = get_be16(rest);
    r->type = get_be16(rest + 2);
    r->cookie = get_be64(rest + 4);
    r->len = get_be32(rest + 12);
    ASSERT(r->len <= NBD_PAYLOAD_MAX + 8);
    r->data = mem_alloc(r->len + 1);
    rc = nc_get(n, r->data, r->len);
    if (rc == 0 && (r->type & 0x8000)) {
        ASSERT(r->len >= 6 && get_be16(r->data + 4) == r->len - 6);
        r->error = get_be32(r->data);
        ASSERT(r->error != 0);
    }
    if (rc < 0)
        nc_reply_free(r);
    return rc;
}

co_fn int nc_recv(struct nc *n, struct nc_reply *r)
{
    uint8_t magic[4];
    int rc = nc_get(n, magic, sizeof(magic));

    memset(r, 0, sizeof(*r));
    if (rc < 0)
        return rc;
    if (get_be32(magic) == NBD_SIMPLE_REPLY_MAGIC)
        return recv_simple(n, r);
    ASSERT(get_be32(magic) == NBD_STRUCTURED_REPLY_MAGIC);
    return recv_chunk(n, r);
}

void nc_reply_free(struct nc_reply *r)
{
    mem_free(r->data);
    r->data = NULL;
}

/* Puts a chunk of a read where it belongs; bytes that it covers. */
static uint32_t read_chunk(const struct nc_reply *r, uint64_t off, uint32_t len, uint8_t *data)
{
    uint64_t at;
    uint32_t n;

    if (r->type == NBD_REPLY_TYPE_NONE)
        return 0;
    ASSERT(r->type == NBD_REPLY_TYPE_OFFSET_DATA || r->type == NBD_REPLY_TYPE_OFFSET_HOLE);
    at = get_be64(r->data);
    n = r->type == NBD_REPLY_TYPE_OFFSET_HOLE ? get_be32(r->data + 8) : r->len - 8;
    ASSERT(n > 0 && at >= off && at + n <= off + len);
    if (r->type == NBD_REPLY_TYPE_OFFSET_HOLE)
        memset(data + (at - off), 0, n);
    else
        memcpy(data + (at - off), r->data + 8, n);
    return n;
}

co_fn uint32_t nc_do(struct nc *n, uint16_t type, uint16_t flags, uint64_t off, uint32_t len,
                     void *data)
{
    struct nc_reply r;
    uint32_t got = 0;
    bool last;

    ASSERT(nc_send(n, type, flags, off, len, type == NBD_CMD_WRITE ? data : NULL) == 0);
    do {
        ASSERT(nc_recv(n, &r) == 0);
        ASSERT(r.cookie == n->cookie);
        last = !r.structured || (r.flags & NBD_REPLY_FLAG_DONE);
        if (r.structured && r.error == 0 && type == NBD_CMD_READ)
            got += read_chunk(&r, off, len, data);
        nc_reply_free(&r);
    } while (!last);
    if (r.error == 0 && type == NBD_CMD_READ && !r.structured)
        ASSERT(nc_get(n, data, len) == 0);
    else if (r.error == 0 && type == NBD_CMD_READ)
        ASSERT(got == len);
    return r.error;
}
