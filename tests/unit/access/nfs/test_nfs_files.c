/* SPDX-License-Identifier: Apache-2.0
 *
 * Listings of directories, and what files contain, through several access servers at once. */
#include "tests/unit/access/nfs/nfs_world.h"

#define ENTRIES 300u

/* ---- directories ---- */

struct seen {
    uint8_t count[ENTRIES];
    uint32_t total, dots;
};

static void see(struct seen *s, const struct nentry *e)
{
    uint32_t number;

    if (e->name[0] == '.') {
        s->dots++;
        return;
    }
    CHECK(sscanf(e->name, "entry-%u", &number) == 1 && number < ENTRIES);
    s->count[number]++;
    s->total++;
}

/* From the start to the end, in answers of so many bytes; after `at` entries the first 100 are
 * removed, from another access server. */
static void list_all(struct nfs_client *c, struct nfs_client *other, const struct nh *dir,
                     uint32_t bytes, bool plus, bool remove, struct seen *s)
{
    static struct nentry e[ENTRIES + 2];
    uint64_t cookie = 0;
    char name[32];
    uint32_t n;
    bool eof = false;

    memset(s, 0, sizeof(*s));
    while (!eof) {
        OK(nfs_do_readdir(c, dir, cookie, bytes, plus, e, ENTRIES + 2, &n, &eof));
        CHECK(n > 0 || eof);
        for (uint32_t i = 0; i < n; i++) {
            see(s, &e[i]);
            CHECK(e[i].cookie > cookie);
            cookie = e[i].cookie;
            if (plus && strcmp(e[i].name, "..") != 0)
                CHECK(e[i].attr.there && e[i].h.len == 32 && e[i].attr.fileid == e[i].fileid);
        }
        for (uint32_t i = 0; remove && s->total > 50 && i < 100; i++) {
            snprintf(name, sizeof(name), "entry-%u", i);
            OK(nfs_do_remove(other, dir, name));
        }
        remove = remove && s->total <= 50;
    }
}

static int listing_script(struct vworld *w)
{
    struct nfs_client c, other;
    struct nh root, dir;
    struct seen s;
    struct nentry e[4];
    char name[32];
    uint32_t n;
    bool eof;

    share_begin(w);
    client_open(&c, 0, 0, &root);
    client_open(&other, 1, 0, &root);
    OK(nfs_do_mkdir(&c, &root, "dir", 0755, &dir));
    list_all(&c, &other, &dir, 4096, true, false, &s);
    CHECK(s.dots == 2 && s.total == 0);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        snprintf(name, sizeof(name), "entry-%u", i);
        OK(nfs_do_create(i % 2 ? &c : &other, &dir, name, CREATE_GUARDED, NULL, 0, NULL));
    }
    list_all(&c, &other, &dir, 65536, false, false, &s);
    CHECK(s.dots == 2 && s.total == ENTRIES);
    list_all(&c, &other, &dir, 65536, true, false, &s);
    CHECK(s.dots == 2 && s.total == ENTRIES);
    list_all(&c, &other, &dir, 512, true, false, &s);
    CHECK(s.dots == 2 && s.total == ENTRIES);
    CHECK(nfs_do_readdir(&c, &dir, 0, 64, false, e, 4, &n, &eof) == NFS3ERR_TOOSMALL);
    list_all(&c, &other, &dir, 1024, false, true, &s);
    for (uint32_t i = 0; i < ENTRIES; i++)
        CHECK(s.count[i] == 1 || (i < 100 && s.count[i] == 0));
    nfs_close(&c);
    nfs_close(&other);
    return 0;
}

static void test_listing(void **state)
{
    (void)state;
    run_script(listing_script);
}

/* ---- bytes ---- */

static void check_bytes(struct nfs_client *c, const struct nh *h, const uint8_t *want, uint32_t len)
{
    uint8_t *got = mem_alloc(len + 1);
    uint32_t at = 0, n;
    bool eof = false;

    while (!eof) {
        OK(nfs_do_read(c, h, at, len + 1 - at, got + at, &n, &eof));
        at += n;
        CHECK(n > 0 || eof);
    }
    CHECK(at == len && memcmp(got, want, len) == 0);
    mem_free(got);
}

static int bytes_script(struct vworld *w)
{
    static const uint32_t sizes[] = {1, 100, 4096, 4097, 100000, 1 << 20};
    uint8_t *data = mem_alloc(1 << 20), verifier[2][8];
    struct nfs_client c[2];
    struct nh root, h;
    struct nattr attr;
    char name[32];

    share_begin(w);
    client_open(&c[0], 0, 0, &root);
    client_open(&c[1], 1, 0, &root);
    for (uint32_t i = 0; i < 1 << 20; i++)
        data[i] = (uint8_t)(i * 31 + i / 253);
    for (uint32_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        snprintf(name, sizeof(name), "file-%u", i);
        OK(nfs_do_create(&c[0], &root, name, CREATE_GUARDED, NULL, 0, &h));
        OK(nfs_do_write(&c[0], &h, 0, data, sizes[i], UNSTABLE, verifier[0]));
        OK(nfs_do_getattr(&c[1], &h, &attr));
        CHECK(attr.size == sizes[i]);
        check_bytes(&c[1], &h, data, sizes[i]);
        OK(nfs_do_commit(&c[1], &h, verifier[1]));
        CHECK(memcmp(verifier[0], verifier[1], 8) == 0);
    }
    OK(nfs_do_setattr(&c[1], &h, &(struct nset){.size_set = true, .size = 777}, 0, &attr));
    CHECK(attr.size == 777);
    OK(nfs_do_setattr(&c[0], &h, &(struct nset){.size_set = true, .size = 9000}, 0, NULL));
    memset(data + 777, 0, 9000 - 777);
    OK(nfs_do_getattr(&c[0], &h, NULL));
    check_bytes(&c[0], &h, data, 9000);
    OK(nfs_do_create(&c[0], &root, name, CREATE_UNCHECKED,
                     &(struct nset){.size_set = true, .size = 0}, 0, &h));
    OK(nfs_do_getattr(&c[1], &h, &attr));
    CHECK(attr.size == 0);
    CHECK(nfs_do_write(&c[0], &root, 0, data, 10, UNSTABLE, NULL) != NFS3_OK);
    c[0].onc.uid = c[0].onc.gid = 3;
    OK(nfs_do_setattr(&c[1], &h, NSET_MODE(0600), 0, NULL));
    OK(nfs_do_getattr(&c[0], &h, NULL));
    CHECK(nfs_do_write(&c[0], &h, 0, data, 10, UNSTABLE, NULL) == NFS3ERR_ACCES);
    nfs_close(&c[0]);
    nfs_close(&c[1]);
    mem_free(data);
    return 0;
}

static void test_bytes(void **state)
{
    (void)state;
    run_script(bytes_script);
}

/* ---- write leases ---- */

/* Through both servers, so often that they need not ask meta any more. */
static void write_often(struct nfs_client *c, const struct nh *h, uint8_t *data)
{
    for (uint32_t k = 0; k < 20; k++) {
        data[k] = (uint8_t)('a' + k);
        OK(nfs_do_write(&c[k % 2], h, k, &data[k], 1, FILE_SYNC, NULL));
    }
}

static int leases_script(struct vworld *w)
{
    static uint8_t data[100000];
    struct nfs_client c[2];
    struct nh root, h;
    struct nattr attr;
    nsec_t begin;

    share_begin(w);
    client_open(&c[0], 0, 0, &root);
    client_open(&c[1], 1, 0, &root);
    OK(nfs_do_create(&c[0], &root, "f", CREATE_GUARDED, NULL, 0, &h));
    for (uint32_t round = 0; round < 3; round++) {
        memset(data, 'x', sizeof(data));
        OK(nfs_do_write(&c[0], &h, 0, data, sizeof(data), UNSTABLE, NULL));
        write_often(c, &h, data);
        begin = co_now();
        OK(nfs_do_setattr(&c[round % 2], &h, &(struct nset){.size_set = true, .size = 777}, 0,
                          NULL));
        CHECK(co_now() - begin < NSEC_PER_SEC / 2); /* nobody waits for a session to end */
        memset(data + 777, 0, sizeof(data) - 777);
        data[50000] = 'y';
        OK(nfs_do_write(&c[(round + 1) % 2], &h, 50000, data + 50000, 1, UNSTABLE, NULL));
        OK(nfs_do_getattr(&c[round % 2], &h, &attr));
        CHECK(attr.size == 50001);
        check_bytes(&c[round % 2], &h, data, 50001);
        (void)co_sleep(3 * NSEC_PER_SEC); /* what was recalled is not taken again at once */
    }
    write_often(c, &h, data);
    OK(nfs_do_create(&c[1], &root, "f", CREATE_UNCHECKED,
                     &(struct nset){.size_set = true, .size = 0}, 0, &h));
    OK(nfs_do_getattr(&c[0], &h, &attr));
    CHECK(attr.size == 0);
    nfs_close(&c[0]);
    nfs_close(&c[1]);
    return 0;
}

static void test_leases(void **state)
{
    (void)state;
    run_script(leases_script);
}

/* ---- the file system ---- */

static int info_script(struct vworld *w)
{
    struct nfs_client c;
    struct nh root;
    uint64_t total, available, size;
    uint32_t rtmax, name_max;

    share_begin(w);
    client_open(&c, 0, 0, &root);
    OK(nfs_do_fsinfo(&c, &root, &rtmax, &size));
    CHECK(rtmax == 1 << 20 && size == UINT64_C(64) << 40);
    OK(nfs_do_pathconf(&c, &root, &name_max));
    CHECK(name_max == 255);
    OK(nfs_do_fsstat(&c, &root, &total, &available));
    CHECK(total > 0 && total <= 256 * MIB && available > 0 && available <= total);
    nfs_close(&c);
    return 0;
}

static void test_info(void **state)
{
    (void)state;
    run_script(info_script);
}

/* ---- rights of programs ---- */

static uint32_t mode_of(struct nfs_client *c, const struct nh *h)
{
    struct nattr attr;

    OK(nfs_do_getattr(c, h, &attr));
    return attr.mode;
}

static void expect_rights(struct nfs_client *writer, struct nfs_client *owner, const struct nh *h,
                          uint64_t off, uint32_t mode)
{
    OK(nfs_do_setattr(owner, h, NSET_MODE(06777), 0, NULL));
    OK(nfs_do_write(writer, h, off, "x", 1, UNSTABLE, NULL));
    CHECK(mode_of(owner, h) == mode && mode_of(writer, h) == mode);
}

static int rights_script(struct vworld *w)
{
    struct nfs_client owner, user, root_user;
    struct nset cut = {.size_set = true, .size = 1};
    struct nh root, file;

    share_begin(w);
    client_open(&owner, 0, 7, &root);
    client_open(&user, 1, 8, &root);
    client_open(&root_user, 2, 0, &root);
    OK(nfs_do_setattr(&root_user, &root, NSET_MODE(0777), 0, NULL));
    OK(nfs_do_create(&owner, &root, "file", CREATE_GUARDED, NSET_MODE(0777), 0, &file));
    /* in the inode, behind it, over what is in the volume */
    for (uint64_t off = 0; off <= 2 * 5000; off += 5000) {
        expect_rights(&user, &owner, &file, off % 10000, 0777);
        expect_rights(&owner, &owner, &file, off % 10000, 0777);
        expect_rights(&root_user, &owner, &file, off % 10000, 06777);
    }
    OK(nfs_do_setattr(&user, &file, &cut, 0, NULL));
    CHECK(mode_of(&owner, &file) == 0777);
    nfs_close(&owner);
    nfs_close(&user);
    nfs_close(&root_user);
    return 0;
}

static void test_rights(void **state)
{
    (void)state;
    run_script(rights_script);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_listing), cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_leases),  cmocka_unit_test(test_info),
        cmocka_unit_test(test_rights),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
