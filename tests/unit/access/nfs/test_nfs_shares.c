/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares and who may use them: MOUNT, access lists, squashing, handles of others, the portmapper.
 */
#include "tests/unit/access/nfs/nfs_world.h"

#define NONE ZBS__META__SHARE_CLIENT__SQUASH__NONE
#define ROOT ZBS__META__SHARE_CLIENT__SQUASH__ROOT
#define ALL  ZBS__META__SHARE_CLIENT__SQUASH__ALL

/* ---- MOUNT ---- */

static void check_string(struct xdr_in *in, const char *text)
{
    uint32_t len;
    const uint8_t *data = xdr_opaque(in, 1024, &len);

    CHECK(data != NULL && len == strlen(text) && memcmp(data, text, len) == 0);
}

static void ask_mount(struct nfs_client *c, uint32_t procedure, const char *path,
                      struct onc_answer *a)
{
    struct xdr_out out;

    onc_begin(&c->onc, &out, MOUNT_PROGRAM, MOUNT_V3, procedure);
    if (path != NULL)
        xdr_put_string(&out, path);
    onc_ask(&c->onc, &out, a);
}

/* The list of mounts has these paths, in this order. */
static void check_dump(struct nfs_client *c, const char *const *paths, size_t n)
{
    struct onc_answer a;

    ask_mount(c, MOUNT3_DUMP, NULL, &a);
    for (size_t i = 0; i < n; i++) {
        CHECK(xdr_bool(&a.in));
        check_string(&a.in, "127.1.0.9");
        check_string(&a.in, paths[i]);
    }
    CHECK(!xdr_bool(&a.in) && !a.in.bad && a.in.left == 0);
    onc_answer_free(&a);
}

static int mount_script(struct vworld *w)
{
    static const char *const both[] = {"/share", "/share/dir/sub"};
    char path[1100];
    struct nfs_client c;
    struct nh root, dir, sub, h;
    struct onc_answer a;

    share_begin(w);
    client_open(&c, 0, 0, &root);
    OK(nfs_do_mkdir(&c, &root, "dir", 0700, &dir));
    OK(nfs_do_mkdir(&c, &dir, "sub", 0700, &sub));
    OK(nfs_do_create(&c, &dir, "file", CREATE_GUARDED, NULL, 0, NULL));
    CHECK(nfs_mount_path(&c, "/share//dir/sub/", &h) == MNT3_OK);
    CHECK(memcmp(&h, &sub, sizeof(h)) == 0);
    CHECK(nfs_mount_path(&c, "/share/dir/nothing", &h) == MNT3ERR_NOENT);
    CHECK(nfs_mount_path(&c, "/share/dir/file", &h) == MNT3ERR_NOTDIR);
    CHECK(nfs_mount_path(&c, "/other", &h) == MNT3ERR_NOENT);
    CHECK(nfs_mount_path(&c, "/", &h) == MNT3ERR_NOENT);
    CHECK(nfs_mount_path(&c, "", &h) == MNT3ERR_NOENT);
    CHECK(nfs_mount_path(&c, "share", &h) == MNT3ERR_NOENT);
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    CHECK(nfs_mount_path(&c, path, &h) == MNT3ERR_NAMETOOLONG);
    check_dump(&c, both, 2);
    ask_mount(&c, MOUNT3_UMNT, "/share", &a);
    onc_answer_free(&a);
    check_dump(&c, both + 1, 1);
    ask_mount(&c, MOUNT3_UMNTALL, NULL, &a);
    onc_answer_free(&a);
    check_dump(&c, NULL, 0);
    ask_mount(&c, MOUNT3_EXPORT, NULL, &a);
    CHECK(xdr_bool(&a.in));
    check_string(&a.in, "/share");
    CHECK(xdr_bool(&a.in));
    check_string(&a.in, "127.1.0.0/16");
    CHECK(!xdr_bool(&a.in) && !xdr_bool(&a.in) && a.in.left == 0);
    onc_answer_free(&a);
    nfs_close(&c);
    return 0;
}

static void test_mount(void **state)
{
    (void)state;
    run_script(mount_script);
}

/* ---- access lists ---- */

static void open_share(struct nfs_client *c, const char *path, uint32_t uid, struct nh *root)
{
    nfs_open(c, nfs_addrs[0]);
    c->onc.uid = c->onc.gid = uid;
    CHECK(nfs_mount_path(c, path, root) == MNT3_OK);
}

static int lists_script(struct vworld *w)
{
    Zbs__Meta__ShareClient elsewhere = ZBS__META__SHARE_CLIENT__INIT;
    char network[] = "10.0.0.0/8";
    struct nfs_client c;
    struct nh root, other, h;
    uint32_t bits = 0;

    share_begin(w);
    share_make(w, "fixed", "127.1.0.9", true, NONE);
    share_make(w, "foreign", "127.2.0.0/16", false, NONE);
    share_make(w, "other", "*", false, NONE);
    open_share(&c, "/fixed", 0, &root);
    CHECK(nfs_do_mkdir(&c, &root, "dir", 0755, NULL) == NFS3ERR_ROFS);
    CHECK(nfs_do_setattr(&c, &root, NSET_MODE(0777), 0, NULL) == NFS3ERR_ROFS);
    CHECK(nfs_do_write(&c, &root, 0, "x", 1, FILE_SYNC, NULL) == NFS3ERR_ROFS);
    OK(nfs_do_access(&c, &root, 0x3f, &bits));
    CHECK(bits == (ACCESS3_READ | ACCESS3_LOOKUP));
    CHECK(nfs_mount_path(&c, "/foreign", &h) == MNT3ERR_ACCES);
    CHECK(nfs_mount_path(&c, "/foreign/x", &h) == MNT3ERR_ACCES);
    nfs_close(&c);
    open_share(&c, "/" SHARE, 0, &root);
    CHECK(nfs_mount_path(&c, "/other", &other) == MNT3_OK);
    OK(nfs_do_create(&c, &root, "file", CREATE_GUARDED, NULL, 0, &h));
    CHECK(nfs_do_rename(&c, &root, "file", &other, "file") == NFS3ERR_XDEV);
    CHECK(nfs_do_link(&c, &h, &other, "file") == NFS3ERR_XDEV);
    elsewhere.network = network;
    share_put(w, SHARE, &elsewhere, true); /* taken away while mounted */
    CHECK(co_sleep(SEC(2)) == 0);
    CHECK(nfs_do_getattr(&c, &h, NULL) == NFS3ERR_ACCES);
    CHECK(nfs_mount_path(&c, "/" SHARE, &h) == MNT3ERR_ACCES);
    OK(nfs_do_getattr(&c, &other, NULL));
    nfs_close(&c);
    return 0;
}

static void test_lists(void **state)
{
    (void)state;
    run_script(lists_script);
}

static void check_owner(struct nfs_client *c, const struct nh *dir, const char *name, uint32_t uid,
                        uint32_t gid)
{
    struct nattr attr;
    struct nh h;

    OK(nfs_do_create(c, dir, name, CREATE_GUARDED, NULL, 0, &h));
    OK(nfs_do_getattr(c, &h, &attr));
    CHECK(attr.uid == uid && attr.gid == gid);
}

static int squash_script(struct vworld *w)
{
    struct nfs_client c, admin;
    struct nh root, h;

    share_begin(w);
    open_share(&admin, "/" SHARE, 0, &root);
    OK(nfs_do_setattr(&admin, &root, NSET_MODE(0777), 0, NULL));
    check_owner(&admin, &root, "root's", 0, 0);
    admin.onc.none = true; /* AUTH_NONE is anonymous whatever the list says */
    check_owner(&admin, &root, "nobody's", 65534, 65534);
    share_make(w, "root", "*", false, ROOT);
    open_share(&c, "/root", 0, &h);
    CHECK(nfs_do_mkdir(&c, &h, "dir", 0755, NULL) == NFS3ERR_ACCES);
    nfs_close(&c);
    share_make(w, "all", "*", false, ALL);
    open_share(&c, "/all", 0, &h);
    CHECK(nfs_do_mkdir(&c, &h, "dir", 0755, NULL) == NFS3ERR_ACCES);
    nfs_close(&c);
    nfs_close(&admin);
    return 0;
}

static void test_squash(void **state)
{
    (void)state;
    run_script(squash_script);
}

/* ---- handles ---- */

static int handles_script(struct vworld *w)
{
    struct nfs_client c;
    struct nh root, bad;

    share_begin(w);
    client_open(&c, 0, 0, &root);
    CHECK(root.len == 32);
    for (uint32_t i = 0; i < root.len; i++) { /* a bit of each byte */
        bad = root;
        bad.bytes[i] ^= 1 << i % 8;
        CHECK(nfs_do_getattr(&c, &bad, NULL) == NFS3ERR_STALE);
    }
    bad = root;
    bad.len = 28;
    CHECK(nfs_do_getattr(&c, &bad, NULL) == NFS3ERR_BADHANDLE);
    bad.len = 0;
    CHECK(nfs_do_getattr(&c, &bad, NULL) == NFS3ERR_BADHANDLE);
    for (uint32_t i = 0; i < HOSTS; i++) {
        struct nfs_client other;

        client_open(&other, i, 0, &bad);
        CHECK(memcmp(&bad, &root, sizeof(root)) == 0);
        nfs_close(&other);
    }
    nfs_close(&c);
    return 0;
}

static void test_handles(void **state)
{
    (void)state;
    run_script(handles_script);
}

/* ---- the portmapper ---- */

static uint32_t port_of(struct onc_client *o, uint32_t program, uint32_t version, uint32_t protocol)
{
    struct xdr_out out;
    struct onc_answer a;
    uint32_t port;

    onc_begin(o, &out, PORTMAP_PROGRAM, PORTMAP_V2, PORTMAP_GETPORT);
    xdr_put_u32(&out, program);
    xdr_put_u32(&out, version);
    xdr_put_u32(&out, protocol);
    xdr_put_u32(&out, 0);
    onc_ask(o, &out, &a);
    port = xdr_u32(&a.in);
    CHECK(!a.in.bad && a.in.left == 0);
    onc_answer_free(&a);
    return port;
}

static int portmap_script(struct vworld *w)
{
    struct onc_client o;
    struct xdr_out out;
    struct onc_answer a;
    uint32_t n = 0;

    wait_ready(w);
    onc_open(&o, portmap_addrs[1]);
    CHECK(port_of(&o, NFS_PROGRAM, NFS_V3, 6) == 2049);
    CHECK(port_of(&o, MOUNT_PROGRAM, MOUNT_V3, 6) == 2049);
    CHECK(port_of(&o, NFS_PROGRAM, NFS_V3, 17) == 0);
    CHECK(port_of(&o, MOUNT_PROGRAM, MOUNT_V3, 17) == 2049);
    CHECK(port_of(&o, NLM_PROGRAM, NLM_V4, 17) == 2049);
    CHECK(port_of(&o, NSM_PROGRAM, NSM_V1, 17) == 2049);
    CHECK(port_of(&o, NFS_PROGRAM, 4, 6) == 0);
    CHECK(port_of(&o, 1, 1, 6) == 0);
    onc_begin(&o, &out, PORTMAP_PROGRAM, PORTMAP_V2, PORTMAP_DUMP);
    onc_ask(&o, &out, &a);
    for (; xdr_bool(&a.in); n++)
        CHECK(xdr_fixed(&a.in, 16) != NULL);
    CHECK(n >= 2 && !a.in.bad && a.in.left == 0);
    onc_answer_free(&a);
    onc_begin(&o, &out, PORTMAP_PROGRAM, 4, 3); /* rpcbind */
    CHECK(onc_send(&o, &out) == 0 && onc_recv(&o, &a) == 0);
    CHECK(a.stat == ONC_PROG_MISMATCH && a.low == 2 && a.high == 2);
    onc_answer_free(&a);
    onc_close(&o);
    return 0;
}

static void test_portmap(void **state)
{
    (void)state;
    run_script(portmap_script);
}

/* ---- what a client needs around its mount, over UDP ---- */

static int udp_script(struct vworld *w)
{
    struct onc_client o;
    struct xdr_out out;
    struct onc_answer a;

    share_begin(w);
    onc_open_udp(&o, "0.0.0.0:0", portmap_addrs[1]);
    CHECK(port_of(&o, MOUNT_PROGRAM, MOUNT_V3, 17) == 2049);
    onc_close(&o);
    onc_open_udp(&o, "0.0.0.0:0", nfs_addrs[1]);
    onc_begin(&o, &out, MOUNT_PROGRAM, MOUNT_V3, MOUNT3_MNT);
    xdr_put_string(&out, "/" SHARE);
    onc_ask(&o, &out, &a);
    CHECK(xdr_u32(&a.in) == MNT3_OK);
    onc_answer_free(&a);
    onc_begin(&o, &out, NFS_PROGRAM, NFS_V3, NFS3_NULL);
    CHECK(onc_send(&o, &out) == 0 && onc_recv(&o, &a) == 0 && a.stat == ONC_PROG_UNAVAIL);
    onc_answer_free(&a);
    onc_close(&o);
    return 0;
}

static void test_udp(void **state)
{
    (void)state;
    run_script(udp_script);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mount),   cmocka_unit_test(test_lists),
        cmocka_unit_test(test_squash),  cmocka_unit_test(test_handles),
        cmocka_unit_test(test_portmap), cmocka_unit_test(test_udp),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
