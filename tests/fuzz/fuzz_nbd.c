/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzzes what an NBD server receives, as a client that keeps to the states of the protocol. The
 * first byte chooses:
 *   0  bytes to the server, from the very start
 *   1  options made of input behind a good greeting; then, if one of them says so, as 3
 *   2  bytes behind a good negotiation
 *   3  requests whose magic numbers are right and whose fields are plausible, with simple replies
 *   4  as 3, with structured replies and a context
 * Whatever comes, nothing may crash, hang or leak, and a good client is still served. What
 * comes back in mode 4 must have the form that the protocol asks for, with nothing behind a
 * request's last chunk. */
#include <string.h>
#include "tests/lib/fuzz.h"
#include "tests/lib/nbdworld.h"

#define CHECK(x)     ASSERTF(x, "seen here")
#define REQUESTS_MAX 64u

/* ---- negotiation ---- */

/* One option; a byte chooses how it is made. True: it should lead to transmission. */
static bool send_option(struct nc *n, struct fuzz_input *in)
{
    static const uint8_t types[] = {NBD_OPT_LIST,
                                    NBD_OPT_INFO,
                                    NBD_OPT_STRUCTURED_REPLY,
                                    NBD_OPT_LIST_META_CONTEXT,
                                    NBD_OPT_SET_META_CONTEXT,
                                    NBD_OPT_STARTTLS,
                                    NBD_OPT_GO,
                                    77};
    uint8_t data[1024], how = fuzz_u8(in);
    uint32_t type = types[how & 7], len;

    if (how & 8) { /* good, but for a few bytes perhaps */
        const char *name = how & 16 ? NW_EXPORT : NW_OTHER;

        len = type == NBD_OPT_GO || type == NBD_OPT_INFO
                  ? nc_go_data(data, name)
                  : nc_meta_data(data, name, NBD_CONTEXT_NAME);
        if (how & 32)
            data[fuzz_u8(in) % len] ^= fuzz_u8(in);
        if (how & 64)
            len = fuzz_u8(in) % (len + 1);
    } else {
        len = (uint32_t)fuzz_take(in, data, fuzz_u8(in) * 4u);
    }
    if (nc_option(n, type, data, len) < 0)
        in->size = 0;
    return type == NBD_OPT_GO && (how & 0x68) == 8;
}

static bool negotiate(struct nc *n, struct fuzz_input *in)
{
    nc_hello(n, NBD_FLAG_FIXED_NEWSTYLE | (fuzz_u8(in) & NBD_FLAG_NO_ZEROES));
    while (in->size > 0) {
        if (send_option(n, in))
            return true;
    }
    return false;
}

/* ---- transmission ---- */

static void send_request(struct nc *n, struct fuzz_input *in)
{
    static uint8_t payload[65536 + 3];
    uint8_t how = fuzz_u8(in);
    uint16_t type = how & 7, flags = how & 8 ? fuzz_u8(in) & 31 : 0;
    uint64_t off = (uint64_t)(fuzz_uint(in, 4) % (NW_SIZE / 256)) * (how & 16 ? 512 : 256);
    uint32_t len = (fuzz_u8(in) + (how & 32 ? 0u : 1u)) * (how & 64 ? 256u : 512u);

    if (type == NBD_CMD_DISC && !(how & 128))
        type = NBD_CMD_WRITE;
    if (type == NBD_CMD_FLUSH && !(how & 128))
        off = len = 0;
    len = MIN(len, 65536u);
    if (type == NBD_CMD_WRITE)
        memset(payload, fuzz_u8(in), len);
    if (nc_send(n, type, flags, off, len, type == NBD_CMD_WRITE ? payload : NULL) < 0)
        in->size = 0;
    if (type == NBD_CMD_DISC)
        in->size = 0;
}

/* Structured answers tell their length, so they are read and judged; simple ones are left, and when
 * so many are that nothing more is taken, that was it. */
static void requests(struct nc *n, struct fuzz_input *in, bool structured)
{
    nsec_t former = co_deadline_push(co_now() + NSEC_PER_SEC);
    uint8_t ended[REQUESTS_MAX + 1] = {0};
    uint32_t sent = 0;

    n->cookie = 0;
    while (in->size > 0 && sent < REQUESTS_MAX) {
        send_request(n, in);
        sent++;
        if (!structured)
            continue;
        (void)!co_sleep(NSEC_PER_USEC * 200);
        while (net_readable(n->net)) {
            struct nc_reply r;

            if (nc_recv(n, &r) < 0) {
                in->size = 0;
                break;
            }
            CHECK(r.cookie >= 1 && r.cookie <= sent && !ended[r.cookie]);
            ended[r.cookie] = !r.structured || (r.flags & NBD_REPLY_FLAG_DONE);
            nc_reply_free(&r);
        }
    }
    co_deadline_restore(former);
}

/* A good client is served as if nothing had happened. */
static void check_good(struct nbdworld *w)
{
    uint8_t data[1024], back[1024];
    struct nc n;

    nc_open(&n, w->addr, true, true);
    memset(data, 0x5a, sizeof(data));
    CHECK(nc_do(&n, NBD_CMD_WRITE, 0, 512, sizeof(data), data) == 0);
    CHECK(nc_do(&n, NBD_CMD_READ, 0, 512, sizeof(back), back) == 0);
    CHECK(memcmp(data, back, sizeof(data)) == 0);
    nc_close(&n);
}

static void body(struct nbdworld *w)
{
    struct fuzz_input *in = w->arg;
    struct nc n;

    if (in->mode <= 1)
        nc_connect(&n, w->addr);
    else
        nc_open(&n, w->addr, in->mode == 4, in->mode == 4);
    if (in->mode == 0 || in->mode == 2)
        (void)!nc_put(&n, in->data, in->size);
    else if (in->mode == 1 && negotiate(&n, in))
        requests(&n, in, false);
    else if (in->mode >= 3)
        requests(&n, in, in->mode == 4);
    (void)!co_sleep(NSEC_PER_MSEC);
    nc_close(&n);
    check_good(w);
    nbdworld_quiet(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nbdworld w = {.body = body, .conf = {.requests = 8, .stop_timeout_ms = 1}};
    struct fuzz_input in;

    if (!fuzz_begin(&in, data, size, 5))
        return 0;
    w.arg = &in;
    nbdworld_run(&w);
    return 0;
}
