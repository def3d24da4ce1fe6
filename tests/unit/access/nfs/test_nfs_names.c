/* SPDX-License-Identifier: Apache-2.0
 *
 * NFS procedures about names and attributes, through real access servers to real meta servers. */
#include "tests/unit/access/nfs/nfs_world.h"

/* ---- files, directories, links ---- */

static int tree_script(struct vworld *w)
{
    struct nfs_client c;
    struct nh root, dir, file, again;
    struct nattr attr, attr2;
    char target[1025];

    share_begin(w);
    client_open(&c, 0, 0, &root);
    OK(nfs_do_getattr(&c, &root, &attr));
    CHECK(attr.type == 2 && attr.mode == 0755 && attr.uid == 0 && attr.nlink == 2);
    OK(nfs_do_mkdir(&c, &root, "dir", 0750, &dir));
    OK(nfs_do_create(&c, &dir, "file", CREATE_GUARDED, NSET_MODE(0640), 0, &file));
    CHECK(nfs_do_create(&c, &dir, "file", CREATE_GUARDED, NULL, 0, NULL) == NFS3ERR_EXIST);
    OK(nfs_do_create(&c, &dir, "file", CREATE_UNCHECKED, NULL, 0, &again));
    CHECK(memcmp(&again, &file, sizeof(file)) == 0);
    OK(nfs_do_lookup(&c, &dir, "file", &again, &attr));
    CHECK(memcmp(&again, &file, sizeof(file)) == 0);
    CHECK(attr.there && attr.type == 1 && attr.mode == 0640 && attr.size == 0 && attr.nlink == 1);
    OK(nfs_do_lookup(&c, &dir, "..", &again, NULL));
    CHECK(memcmp(&again, &root, sizeof(root)) == 0);
    CHECK(nfs_do_lookup(&c, &dir, "nothing", NULL, NULL) == NFS3ERR_NOENT);
    CHECK(nfs_do_lookup(&c, &file, "x", NULL, NULL) == NFS3ERR_NOTDIR);
    OK(nfs_do_link(&c, &file, &root, "second"));
    OK(nfs_do_getattr(&c, &file, &attr2));
    CHECK(attr2.nlink == 2 && attr2.fileid == attr.fileid && attr2.fsid == attr.fsid);
    CHECK(nfs_do_link(&c, &dir, &root, "hard") != NFS3_OK);
    OK(nfs_do_symlink(&c, &root, "symbolic", "dir/file", &again));
    OK(nfs_do_readlink(&c, &again, target));
    CHECK(strcmp(target, "dir/file") == 0);
    CHECK(nfs_do_readlink(&c, &file, target) == NFS3ERR_INVAL);
    OK(nfs_do_mknod(&c, &root, "null", 4, UINT64_C(1) << 32 | 3, &again));
    OK(nfs_do_getattr(&c, &again, &attr));
    CHECK(attr.type == 4 && attr.rdev == (UINT64_C(1) << 32 | 3));
    OK(nfs_do_mknod(&c, &root, "pipe", 7, 0, &again));
    CHECK(nfs_do_mknod(&c, &root, "what", 1, 0, &again) == NFS3ERR_BADTYPE);
    nfs_close(&c);
    return 0;
}

static void test_tree(void **state)
{
    (void)state;
    run_script(tree_script);
}

static int removal_script(struct vworld *w)
{
    struct nfs_client c;
    struct nh root, dir, sub, file;
    struct nattr attr;

    share_begin(w);
    client_open(&c, 0, 0, &root);
    OK(nfs_do_mkdir(&c, &root, "dir", 0755, &dir));
    OK(nfs_do_mkdir(&c, &dir, "sub", 0755, &sub));
    OK(nfs_do_create(&c, &sub, "file", CREATE_GUARDED, NULL, 0, &file));
    CHECK(nfs_do_rmdir(&c, &root, "dir") == NFS3ERR_NOTEMPTY);
    CHECK(nfs_do_rmdir(&c, &sub, "file") == NFS3ERR_NOTDIR);
    CHECK(nfs_do_remove(&c, &dir, "sub") == NFS3ERR_ISDIR);
    CHECK(nfs_do_rename(&c, &root, "dir", &sub, "loop") == NFS3ERR_INVAL);
    OK(nfs_do_rename(&c, &sub, "file", &root, "moved"));
    CHECK(nfs_do_lookup(&c, &sub, "file", NULL, NULL) == NFS3ERR_NOENT);
    OK(nfs_do_lookup(&c, &root, "moved", NULL, NULL));
    OK(nfs_do_create(&c, &root, "replaced", CREATE_GUARDED, NULL, 0, &file));
    OK(nfs_do_rename(&c, &root, "moved", &root, "replaced"));
    CHECK(nfs_do_getattr(&c, &file, &attr) == NFS3ERR_STALE);
    OK(nfs_do_remove(&c, &root, "replaced"));
    CHECK(nfs_do_remove(&c, &root, "replaced") == NFS3ERR_NOENT);
    OK(nfs_do_rmdir(&c, &dir, "sub"));
    CHECK(nfs_do_create(&c, &sub, "x", CREATE_GUARDED, NULL, 0, NULL) == NFS3ERR_STALE);
    OK(nfs_do_rmdir(&c, &root, "dir"));
    OK(nfs_do_getattr(&c, &root, &attr));
    CHECK(attr.nlink == 2);
    nfs_close(&c);
    return 0;
}

static void test_removal(void **state)
{
    (void)state;
    run_script(removal_script);
}

static int names_script(struct vworld *w)
{
    char name[257];
    struct nfs_client c;
    struct nh root;

    share_begin(w);
    client_open(&c, 0, 0, &root);
    memset(name, 'x', sizeof(name));
    name[256] = '\0';
    CHECK(nfs_do_create(&c, &root, name, CREATE_GUARDED, NULL, 0, NULL) == NFS3ERR_NAMETOOLONG);
    name[255] = '\0';
    OK(nfs_do_create(&c, &root, name, CREATE_GUARDED, NULL, 0, NULL));
    OK(nfs_do_lookup(&c, &root, name, NULL, NULL));
    OK(nfs_do_create(&c, &root, "caf\xe9 \xff", CREATE_GUARDED, NULL, 0, NULL)); /* not UTF-8 */
    OK(nfs_do_lookup(&c, &root, "caf\xe9 \xff", NULL, NULL));
    CHECK(nfs_do_create(&c, &root, "a/b", CREATE_GUARDED, NULL, 0, NULL) != NFS3_OK);
    CHECK(nfs_do_create(&c, &root, "", CREATE_GUARDED, NULL, 0, NULL) != NFS3_OK);
    CHECK(nfs_do_mkdir(&c, &root, ".", 0755, NULL) != NFS3_OK);
    CHECK(nfs_do_rmdir(&c, &root, "..") != NFS3_OK);
    nfs_close(&c);
    return 0;
}

static void test_names(void **state)
{
    (void)state;
    run_script(names_script);
}

/* ---- attributes ---- */

static int attributes_script(struct vworld *w)
{
    struct nset set = {.mode_set = true, .mode = 0600, .mtime_set = true, .mtime = 12345678901234};
    struct nfs_client c;
    struct nh root, file;
    struct nattr attr, after;

    share_begin(w);
    client_open(&c, 0, 0, &root);
    OK(nfs_do_create(&c, &root, "file", CREATE_GUARDED, NSET_MODE(0644), 0, &file));
    OK(nfs_do_getattr(&c, &file, &attr));
    OK(nfs_do_setattr(&c, &file, &set, 0, &after));
    CHECK(after.there && after.mode == 0600 && after.mtime == set.mtime);
    CHECK(after.ctime > attr.ctime && after.atime == attr.atime);
    CHECK(nfs_do_setattr(&c, &file, &set, attr.ctime, NULL) == NFS3ERR_NOT_SYNC);
    OK(nfs_do_setattr(&c, &file, &set, after.ctime, NULL));
    set = (struct nset){.uid_set = true, .uid = 7, .gid_set = true, .gid = 8};
    OK(nfs_do_setattr(&c, &file, &set, 0, &after));
    CHECK(after.uid == 7 && after.gid == 8);
    c.onc.uid = 9;
    CHECK(nfs_do_setattr(&c, &file, NSET_MODE(0777), 0, NULL) == NFS3ERR_PERM);
    c.onc.uid = 7;
    OK(nfs_do_setattr(&c, &file, NSET_MODE(0400), 0, &after));
    CHECK(after.mode == 0400);
    nfs_close(&c);
    return 0;
}

static void test_attributes(void **state)
{
    (void)state;
    run_script(attributes_script);
}

static uint32_t bits(struct nfs_client *c, const struct nh *h)
{
    uint32_t got = 0;

    OK(nfs_do_access(c, h, 0x3f, &got));
    return got;
}

static int access_script(struct vworld *w)
{
    struct nfs_client c;
    struct nh root, dir, file;

    share_begin(w);
    client_open(&c, 0, 0, &root);
    OK(nfs_do_mkdir(&c, &root, "dir", 0751, &dir));
    OK(nfs_do_create(&c, &dir, "file", CREATE_GUARDED, NSET_MODE(0654), 0, &file));
    CHECK(bits(&c, &dir) == 0x1f && bits(&c, &file) == 0x2d);
    c.onc.uid = c.onc.gid = 5;
    CHECK(bits(&c, &dir) == ACCESS3_LOOKUP);
    CHECK(bits(&c, &file) == ACCESS3_READ);
    CHECK(nfs_do_create(&c, &dir, "mine", CREATE_GUARDED, NULL, 0, NULL) == NFS3ERR_ACCES);
    CHECK(nfs_do_remove(&c, &dir, "file") == NFS3ERR_ACCES);
    c.onc.gid = 0;
    CHECK(bits(&c, &file) == (ACCESS3_READ | ACCESS3_EXECUTE));
    nfs_close(&c);
    return 0;
}

static void test_access(void **state)
{
    (void)state;
    run_script(access_script);
}

/* ---- retries ---- */

/* A retry gets the first answer from whichever access server; another call of the same name not. */
static int retry_script(struct vworld *w)
{
    struct nfs_client c[2];
    struct nh root, dir, first, second;

    share_begin(w);
    client_open(&c[0], 0, 0, &root);
    client_open(&c[1], 1, 0, &root);
    OK(nfs_do_mkdir(&c[0], &root, "dir", 0755, &dir));
    c[0].repeat = c[0].onc.xid;
    OK(nfs_do_mkdir(&c[0], &root, "dir", 0755, &second));
    CHECK(memcmp(&dir, &second, sizeof(dir)) == 0);
    c[1].repeat = c[0].onc.xid;
    OK(nfs_do_mkdir(&c[1], &root, "dir", 0755, &second));
    CHECK(memcmp(&dir, &second, sizeof(dir)) == 0);
    CHECK(nfs_do_mkdir(&c[1], &root, "dir", 0755, NULL) == NFS3ERR_EXIST);
    OK(nfs_do_create(&c[0], &root, "x", CREATE_GUARDED, NULL, 0, NULL));
    OK(nfs_do_remove(&c[0], &root, "x"));
    c[1].repeat = c[0].onc.xid;
    OK(nfs_do_remove(&c[1], &root, "x"));
    CHECK(nfs_do_remove(&c[1], &root, "x") == NFS3ERR_NOENT);
    OK(nfs_do_rename(&c[0], &root, "dir", &root, "renamed"));
    c[1].repeat = c[0].onc.xid;
    OK(nfs_do_rename(&c[1], &root, "dir", &root, "renamed"));
    /* exclusive: by its verifier, however often */
    OK(nfs_do_create(&c[0], &root, "ex", CREATE_EXCLUSIVE, NULL, 77, &first));
    OK(nfs_do_create(&c[1], &root, "ex", CREATE_EXCLUSIVE, NULL, 77, &second));
    CHECK(memcmp(&first, &second, sizeof(first)) == 0);
    CHECK(nfs_do_create(&c[1], &root, "ex", CREATE_EXCLUSIVE, NULL, 78, NULL) == NFS3ERR_EXIST);
    nfs_close(&c[0]);
    nfs_close(&c[1]);
    return 0;
}

static void test_retry(void **state)
{
    (void)state;
    run_script(retry_script);
}

/* Handles and retries outlive every server. */
static int restart_script(struct vworld *w)
{
    struct nfs_client c;
    struct nh root, dir, again;
    uint32_t xid;

    share_begin(w);
    client_open(&c, 0, 0, &root);
    OK(nfs_do_mkdir(&c, &root, "dir", 0755, &dir));
    xid = c.onc.xid;
    nfs_close(&c);
    for (uint32_t i = 0; i < HOSTS; i++)
        crash(w, i, META);
    crash(w, 0, ACCESS);
    for (uint32_t i = 0; i < HOSTS; i++)
        start(w, i, META);
    start(w, 0, ACCESS);
    wait_ready(w);
    nfs_open(&c, nfs_addrs[0]);
    c.onc.uid = c.onc.gid = 0;
    c.repeat = xid;
    OK(nfs_do_mkdir(&c, &root, "dir", 0755, &again));
    CHECK(memcmp(&dir, &again, sizeof(dir)) == 0);
    OK(nfs_do_lookup(&c, &root, "dir", &again, NULL));
    CHECK(memcmp(&dir, &again, sizeof(dir)) == 0);
    nfs_close(&c);
    return 0;
}

static void test_restart(void **state)
{
    (void)state;
    run_script(restart_script);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),    cmocka_unit_test(test_removal),
        cmocka_unit_test(test_names),   cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_access),  cmocka_unit_test(test_retry),
        cmocka_unit_test(test_restart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
