/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzzes what an NFS server receives: ONC RPC and the arguments of every procedure of NFS, MOUNT,
 * the portmapper, the lock manager and the status monitor, over what the meta servers would decide.
 * The first byte chooses: 0  bytes to the server, from the very start 1  records made of input, in
 * fragments of its choosing 2  good headers, and arguments made of input 3  calls with plausible
 * arguments: handles of what is there, a few names, then perhaps a flipped byte or a cut 4  the
 * same of the lock manager Whatever comes, nothing may crash, hang or leak, what is answered has
 * the form of RFC 5531, and a good client is still served. */
#include <string.h>
#include "common/base/bytes.h"
#include "tests/lib/fuzz.h"
#include "tests/lib/nfs_client.h"
#include "tests/lib/nfsworld.h"

#define CHECK(x)   ASSERTF(x, "seen here")
#define CALLS_MAX  48u
#define HANDLES    8u
#define BULK_BYTES 6000u

/* Arguments by procedure: h handle, n name, s sattr3, u number, q long number, v verifier, g guard,
 * t text, b opaque data, o yes or no, C how to create, M what to make. */
static const char *const arguments[NFS3_PROCEDURES] = {
    [NFS3_NULL] = "",      [NFS3_GETATTR] = "h",    [NFS3_SETATTR] = "hsg",
    [NFS3_LOOKUP] = "hn",  [NFS3_ACCESS] = "hu",    [NFS3_READLINK] = "h",
    [NFS3_READ] = "hqu",   [NFS3_WRITE] = "hquub",  [NFS3_CREATE] = "hnC",
    [NFS3_MKDIR] = "hns",  [NFS3_SYMLINK] = "hnst", [NFS3_MKNOD] = "hnM",
    [NFS3_REMOVE] = "hn",  [NFS3_RMDIR] = "hn",     [NFS3_RENAME] = "hnhn",
    [NFS3_LINK] = "hhn",   [NFS3_READDIR] = "hqvu", [NFS3_READDIRPLUS] = "hqvuu",
    [NFS3_FSSTAT] = "h",   [NFS3_FSINFO] = "h",     [NFS3_PATHCONF] = "h",
    [NFS3_COMMIT] = "hqu",
};

/* Of the lock manager: those that there are. */
#define LOCK_ARGUMENTS "nhtuqq" /* client, file, owner, process, offset, length */
static const struct {
    uint32_t procedure;
    const char *arguments;
} lock_calls[] = {
    {1, "to" LOCK_ARGUMENTS},
    {2, "too" LOCK_ARGUMENTS "ou"},
    {3, "too" LOCK_ARGUMENTS},
    {4, "t" LOCK_ARGUMENTS},
    {20, "tnhtuu"},
    {22, "too" LOCK_ARGUMENTS "ou"},
    {23, "nu"},
};

struct fuzzer {
    struct fuzz_input *in;
    struct onc_client onc;
    struct nh handles[HANDLES]; /* the root's first */
    uint32_t handle_count;
};

/* ---- arguments ---- */

static void put_handle(struct fuzzer *f, struct xdr_out *out)
{
    const struct nh *h = &f->handles[fuzz_u8(f->in) % MAX(f->handle_count, 1u)];

    xdr_put_opaque(out, h->bytes, h->len);
}

static void put_name(struct fuzzer *f, struct xdr_out *out)
{
    static const char *const names[] = {"a", "b", "c", "dir", ".", "..", "", "a/b"};
    uint8_t which = fuzz_u8(f->in);
    char text[300];

    if (which < 240) {
        xdr_put_string(out, names[which % ARRAY_SIZE(names)]);
        return;
    }
    memset(text, 'x', sizeof(text));
    xdr_put_opaque(out, text, 240 + which % 16 * 4);
}

static void put_number(struct fuzzer *f, struct xdr_out *out, bool wide)
{
    static const uint32_t numbers[] = {0, 1, 2, 4096, 5000, 0x3f, UINT32_MAX, 1u << 20};
    uint8_t which = fuzz_u8(f->in);
    uint32_t value = which < 200 ? numbers[which % ARRAY_SIZE(numbers)] : fuzz_uint(f->in, 2);

    if (wide)
        xdr_put_u32(out, which == 199 ? UINT32_MAX : 0);
    xdr_put_u32(out, value);
}

static void put_sattr(struct fuzzer *f, struct xdr_out *out)
{
    uint8_t what = fuzz_u8(f->in);

    for (uint32_t i = 0; i < 3; i++) { /* mode, uid, gid */
        xdr_put_bool(out, what >> i & 1);
        if (what >> i & 1)
            put_number(f, out, false);
    }
    xdr_put_bool(out, what & 8);
    if (what & 8)
        put_number(f, out, true);
    for (uint32_t i = 4; i < 8; i += 2) { /* atime, mtime */
        xdr_put_u32(out, what >> i & 3);
        if ((what >> i & 3) == 2)
            put_number(f, out, true);
    }
}

static void put_create(struct fuzzer *f, struct xdr_out *out)
{
    uint8_t how = fuzz_u8(f->in) % 4;

    xdr_put_u32(out, how);
    if (how == CREATE_EXCLUSIVE)
        put_number(f, out, true);
    else
        put_sattr(f, out);
}

static void put_special(struct fuzzer *f, struct xdr_out *out)
{
    uint32_t type = fuzz_u8(f->in) % 9;

    xdr_put_u32(out, type);
    put_sattr(f, out);
    put_number(f, out, true);
}

static void put_guard(struct fuzzer *f, struct xdr_out *out)
{
    bool on = fuzz_u8(f->in) & 1;

    xdr_put_bool(out, on);
    if (on)
        put_number(f, out, true);
}

/* As many bytes as the number before says, mostly. */
static void put_bulk(struct fuzzer *f, struct xdr_out *out)
{
    uint8_t data[BULK_BYTES], which = fuzz_u8(f->in);
    uint32_t len = get_be32(out->data + out->len - 8); /* WRITE's count */

    memset(data, which, sizeof(data));
    len = which & 1 ? fuzz_uint(f->in, 2) % BULK_BYTES : MIN(len, BULK_BYTES);
    xdr_put_opaque(out, data, len);
}

static void put_argument(struct fuzzer *f, struct xdr_out *out, char kind)
{
    switch (kind) {
    case 'h':
        put_handle(f, out);
        break;
    case 'n':
    case 't':
        put_name(f, out);
        break;
    case 'o':
        xdr_put_bool(out, fuzz_u8(f->in) & 1);
        break;
    case 's':
        put_sattr(f, out);
        break;
    case 'u':
        put_number(f, out, false);
        break;
    case 'q':
    case 'v':
        put_number(f, out, true);
        break;
    case 'g':
        put_guard(f, out);
        break;
    case 'b':
        put_bulk(f, out);
        break;
    case 'C':
        put_create(f, out);
        break;
    default:
        put_special(f, out);
    }
}

/* ---- calls ---- */

/* What the answers of LOOKUP and of those that make something bring. */
static void learn(struct fuzzer *f, uint32_t procedure, struct onc_answer *a)
{
    bool makes = procedure >= NFS3_CREATE && procedure <= NFS3_MKNOD;
    const uint8_t *data;
    struct nh *h;
    uint32_t len;

    if (a->denied || a->stat != ONC_SUCCESS || (!makes && procedure != NFS3_LOOKUP) ||
        xdr_u32(&a->in) != NFS3_OK || (makes && !xdr_bool(&a->in)))
        return;
    data = xdr_opaque(&a->in, sizeof(h->bytes), &len);
    CHECK(data != NULL && len == NFS_FH_BYTES);
    h = &f->handles[f->handle_count < HANDLES ? f->handle_count++ : 1 + fuzz_u8(f->in) % 7];
    memcpy(h->bytes, data, len);
    h->len = len;
}

/* A few bytes of the arguments are changed, or their end is missing. */
static void spoil(struct fuzzer *f, struct xdr_out *out, size_t start)
{
    uint8_t how = fuzz_u8(f->in);
    size_t len = out->len - start;

    if (how < 200 || len == 0)
        return;
    if (how & 1)
        out->data[start + fuzz_uint(f->in, 2) % len] ^= fuzz_u8(f->in);
    if (how & 2)
        xdr_cut(out, start + fuzz_uint(f->in, 2) % len / 4 * 4);
}

/* False: the server ended the connection, which no good header is a reason for. */
static bool plausible_call(struct fuzzer *f)
{
    uint32_t procedure = fuzz_u8(f->in) % NFS3_PROCEDURES;
    struct onc_answer a;
    struct xdr_out out;
    size_t start;

    f->onc.uid = fuzz_u8(f->in) % 3;
    onc_begin(&f->onc, &out, NFS_PROGRAM, NFS_V3, procedure);
    start = out.len;
    for (const char *kind = arguments[procedure]; *kind != '\0'; kind++)
        put_argument(f, &out, *kind);
    spoil(f, &out, start);
    if (onc_send(&f->onc, &out) < 0 || onc_recv(&f->onc, &a) < 0)
        return false;
    learn(f, procedure, &a);
    onc_answer_free(&a);
    return true;
}

static bool lock_call(struct fuzzer *f)
{
    uint32_t which = fuzz_u8(f->in) % ARRAY_SIZE(lock_calls);
    struct onc_answer a;
    struct xdr_out out;
    size_t start;

    onc_begin(&f->onc, &out, NLM_PROGRAM, NLM_V4, lock_calls[which].procedure);
    start = out.len;
    for (const char *kind = lock_calls[which].arguments; *kind != '\0'; kind++)
        put_argument(f, &out, *kind);
    spoil(f, &out, start);
    if (onc_send(&f->onc, &out) < 0 || onc_recv(&f->onc, &a) < 0)
        return false;
    onc_answer_free(&a);
    return true;
}

static bool raw_call(struct fuzzer *f)
{
    static const uint32_t programs[] = {NFS_PROGRAM, MOUNT_PROGRAM, PORTMAP_PROGRAM,
                                        NFS_PROGRAM, NLM_PROGRAM,   NSM_PROGRAM};
    static const uint32_t versions[] = {NFS_V3, MOUNT_V3, PORTMAP_V2, NFS_V3, NLM_V4, NSM_V1};
    uint8_t which = fuzz_u8(f->in) % ARRAY_SIZE(programs), args[1024];
    uint32_t procedure = fuzz_u8(f->in) % (NFS3_PROCEDURES + 3);
    size_t len = fuzz_take(f->in, args, fuzz_u8(f->in) * 4u);
    struct onc_answer a;
    struct xdr_out out;

    onc_begin(&f->onc, &out, programs[which], versions[which], procedure);
    xdr_put_fixed(&out, args, len);
    if (onc_send(&f->onc, &out) < 0 || onc_recv(&f->onc, &a) < 0)
        return false;
    onc_answer_free(&a);
    return true;
}

static void records(struct fuzzer *f)
{
    while (f->in->size > 0) {
        uint8_t bytes[4 + 1020];
        uint32_t len = fuzz_u8(f->in) * 4u;

        put_be32(bytes, len | (fuzz_u8(f->in) & 1 ? UINT32_C(1) << 31 : 0));
        fuzz_take(f->in, bytes + 4, len);
        if (!fuzz_send(f->onc.net, bytes, 4 + len))
            return;
    }
}

/* ---- the world ---- */

static void good_client(struct nfsworld *w, struct nh *root)
{
    struct nfs_client c;

    nfs_open(&c, w->addr);
    CHECK(nfs_mount_path(&c, "/" NFSW_SHARE, root) == MNT3_OK);
    CHECK(nfs_do_getattr(&c, root, NULL) == NFS3_OK);
    nfs_close(&c);
}

static void calls(struct fuzzer *f)
{
    static bool (*const makers[])(struct fuzzer *) = {raw_call, plausible_call, lock_call};

    for (uint32_t i = 0; i < CALLS_MAX && f->in->size > 0; i++)
        CHECK(makers[f->in->mode - 2](f));
}

static void body(struct nfsworld *w)
{
    struct fuzzer f = {.in = w->arg, .handle_count = 1};
    struct nh root;
    bool portmap;

    good_client(w, &f.handles[0]);
    portmap = f.in->mode < 3 && (fuzz_u8(f.in) & 7) == 0;
    onc_open(&f.onc, portmap ? w->portmap_addr : w->addr);
    if (f.in->mode == 0)
        (void)!fuzz_send(f.onc.net, f.in->data, f.in->size);
    else if (f.in->mode == 1)
        records(&f);
    else
        calls(&f);
    (void)!co_sleep(NSEC_PER_MSEC);
    onc_close(&f.onc);
    good_client(w, &root);
    CHECK(memcmp(&root, &f.handles[0], sizeof(root)) == 0);
    nfsworld_quiet(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nfsworld w = {.body = body, .conf = {.calls = 8, .stop_timeout_ms = 1}};
    struct fuzz_input in;

    if (!fuzz_begin(&in, data, size, 5))
        return 0;
    w.arg = &in;
    nfsworld_run(&w);
    return 0;
}
