/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares in meta: what is decided about names and attributes, and what the answers say. */
#include "tests/unit/meta/tree_rig.h"

static int setup(void **state)
{
    static struct rig r;

    rig_init(&r);
    *state = &r;
    return 0;
}

static int teardown(void **state)
{
    rig_fini(*state);
    return 0;
}

static Zbs__Meta__Credentials who(uint32_t uid, uint32_t gid)
{
    Zbs__Meta__Credentials c = ZBS__META__CREDENTIALS__INIT;

    c.uid = uid;
    c.gid = gid;
    return c;
}

static void shares_are_made_changed_and_deleted(void **state)
{
    struct rig *r = *state;
    Zbs__Meta__ShareSetRequest set = ZBS__META__SHARE_SET_REQUEST__INIT;
    Zbs__Meta__ShareDeleteRequest del = ZBS__META__SHARE_DELETE_REQUEST__INIT;
    Zbs__Meta__Share share = ZBS__META__SHARE__INIT;
    const struct share *s = tree_share(&r->st.tree, "s");
    uint64_t version = r->st.tree.shares_version;

    assert_int_equal(share_create(r, "s"), ERR_EXISTS);
    assert_int_equal(share_create(r, "a/b"), ERR_INVAL);
    assert_int_equal(s->n_clients, 1);
    share.name = (char *)"s";
    share.anonymous_uid = 65534;
    set.share = &share;
    assert_int_equal(rig_do(r, decide_share_set, NULL, &set.base, NULL), 0);
    assert_int_equal(s->n_clients, 0);
    assert_int_equal(s->anonymous_uid, 65534);
    assert_true(r->st.tree.shares_version > version);
    assert_true(create(r, r->root, "f", REG) > 0);
    del.name = (char *)"s";
    assert_int_equal(rig_do(r, decide_share_delete, NULL, &del.base, NULL), ERR_NOT_EMPTY);
    assert_int_equal(removes(r, r->root, "f", false), 0);
    assert_int_equal(rig_do(r, decide_share_delete, NULL, &del.base, NULL), 0);
    assert_int_equal(r->st.tree.inodes.count, 0);
    assert_int_equal(share_create(r, "s"), 0);
    assert_int_equal(tree_share(&r->st.tree, "s")->id, 2); /* not used again */
}

static void a_pool_with_a_share_stays(void **state)
{
    struct rig *r = *state;
    Zbs__Meta__PoolDeleteRequest rq = ZBS__META__POOL_DELETE_REQUEST__INIT;

    rq.name = (char *)"p";
    assert_int_equal(rig_do(r, decide_pool_delete, NULL, &rq.base, NULL), ERR_NOT_EMPTY);
}

static void names_are_made_and_found(void **state)
{
    struct rig *r = *state;
    int64_t d = create(r, r->root, "d", DIR), f = create(r, (uint64_t)d, "f", REG);

    assert_int_equal(lookup(r, r->root, "d"), d);
    assert_int_equal(lookup(r, (uint64_t)d, "f"), f);
    assert_int_equal(lookup(r, (uint64_t)d, "."), d);
    assert_int_equal(lookup(r, (uint64_t)d, ".."), r->root);
    assert_int_equal(lookup(r, r->root, ".."), r->root);
    assert_int_equal(lookup(r, r->root, "f"), ERR_NOTFOUND);
    assert_int_equal(lookup(r, (uint64_t)f, "f"), ERR_NOT_DIR);
    assert_int_equal(lookup(r, 999, "f"), ERR_STALE);
    assert_int_equal(inode_of(r, (int64_t)r->root)->nlink, 3);
    assert_int_equal(inode_of(r, d)->nlink, 2);
    assert_int_equal(create(r, r->root, "d", REG), ERR_EXISTS);
    assert_int_equal(create(r, r->root, "..", REG), ERR_EXISTS);
    assert_int_equal(create(r, r->root, "", REG), ERR_INVAL);
    assert_int_equal(create(r, r->root, "a/b", REG), ERR_INVAL);
}

static void names_have_255_bytes(void **state)
{
    struct rig *r = *state;
    char name[258];

    memset(name, 'x', sizeof(name));
    name[256] = 0;
    assert_int_equal(create(r, r->root, name, REG), ERR_NAME_TOO_LONG);
    assert_int_equal(lookup(r, r->root, name), ERR_NAME_TOO_LONG);
    name[255] = 0;
    assert_true(create(r, r->root, name, REG) > 0);
}

static void paths_lead_to_inodes(void **state)
{
    struct rig *r = *state;
    int64_t d = create(r, r->root, "d", DIR), f = create(r, (uint64_t)d, "f", REG);
    const struct {
        const char *path;
        int64_t result;
    } cases[] = {
        {"/s", (int64_t)r->root},  {"/s/", (int64_t)r->root}, {"/s/d", d},
        {"//s//d/f", f},           {"/s/d/../d/f", f},        {"/s/x", ERR_NOTFOUND},
        {"s/d", ERR_NOTFOUND},     {"/x", ERR_NOTFOUND},      {"/", ERR_NOTFOUND},
        {"/s/d/f/x", ERR_NOT_DIR},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        Zbs__Meta__PathGetRequest rq = ZBS__META__PATH_GET_REQUEST__INIT;
        Zbs__Meta__Inode m = ZBS__META__INODE__INIT;
        struct decide dc = {.st = &r->st, .rq = &rq.base, .pad = &r->pad};

        rq.path = (char *)cases[i].path;
        int rc = answer_path_get(&dc, &m.base);
        assert_int_equal(rc < 0 ? rc : (int64_t)m.id, cases[i].result);
    }
}

static void creation_says_what_exists(void **state)
{
    struct rig *r = *state;
    int64_t f = create(r, r->root, "f", REG);
    Zbs__Meta__InodeCreateRequest rq = create_request(r, r->root, "f", REG);
    Zbs__Meta__InodeAttrs attrs = ZBS__META__INODE_ATTRS__INIT;
    Zbs__Meta__InodeAttrs__U64 size = ZBS__META__INODE_ATTRS__U64__INIT;

    assert_int_equal(set_size_of(r, (uint64_t)f, 100), 0);
    rq.how = ZBS__META__INODE_CREATE_REQUEST__HOW__UNCHECKED;
    assert_int_equal(rig_create(r, &rq), f);
    assert_int_equal(inode_of(r, f)->size, 100);
    attrs.size = &size;
    rq.attrs = &attrs;
    assert_int_equal(rig_create(r, &rq), f);
    assert_int_equal(inode_of(r, f)->size, 0);
    assert_true(create(r, r->root, "d", DIR) > 0);
    rq = create_request(r, r->root, "d", REG);
    rq.how = ZBS__META__INODE_CREATE_REQUEST__HOW__UNCHECKED;
    assert_int_equal(rig_create(r, &rq), ERR_EXISTS);
}

static void exclusive_creation_is_repeatable(void **state)
{
    struct rig *r = *state;
    Zbs__Meta__InodeCreateRequest rq = create_request(r, r->root, "f", REG);
    int64_t f;

    rq.how = ZBS__META__INODE_CREATE_REQUEST__HOW__EXCLUSIVE;
    rq.verifier = (ProtobufCBinaryData){.data = (uint8_t *)"verifier", .len = 8};
    f = rig_create(r, &rq);
    assert_true(f > 0);
    assert_int_equal(rig_create(r, &rq), f);
    rq.verifier.data = (uint8_t *)"another!";
    assert_int_equal(rig_create(r, &rq), ERR_EXISTS);
    rq.verifier.len = 7;
    assert_int_equal(rig_create(r, &rq), ERR_INVAL);
    assert_true(create(r, r->root, "plain", REG) > 0);
    rq = create_request(r, r->root, "plain", REG);
    rq.how = ZBS__META__INODE_CREATE_REQUEST__HOW__EXCLUSIVE;
    rq.verifier = (ProtobufCBinaryData){.data = (uint8_t *)"\0\0\0\0\0\0\0", .len = 8};
    assert_int_equal(rig_create(r, &rq), ERR_EXISTS); /* it was made without any */
}

static void links_hold_what_they_say(void **state)
{
    struct rig *r = *state;
    Zbs__Meta__InodeCreateRequest rq = create_request(r, r->root, "l", LNK);
    uint8_t target[SYMLINK_BYTES_MAX + 1];
    int64_t l = rig_create(r, &rq);

    assert_int_equal(inode_of(r, l)->size, 6);
    assert_memory_equal(inode_of(r, l)->data, "target", 6);
    memset(target, 't', sizeof(target));
    rq = create_request(r, r->root, "m", LNK);
    rq.target = (ProtobufCBinaryData){.data = target, .len = sizeof(target)};
    assert_int_equal(rig_create(r, &rq), ERR_NAME_TOO_LONG);
    rq.target.len = 0;
    assert_int_equal(rig_create(r, &rq), ERR_INVAL);
    assert_int_equal(set_size_of(r, (uint64_t)l, 1), ERR_INVAL);
}

static void the_last_name_takes_the_inode_along(void **state)
{
    struct rig *r = *state;
    int64_t f = create(r, r->root, "f", REG), d = create(r, r->root, "d", DIR);

    assert_int_equal(links(r, (uint64_t)f, (uint64_t)d, "g"), 0);
    assert_int_equal(inode_of(r, f)->nlink, 2);
    assert_int_equal(links(r, (uint64_t)d, r->root, "e"), ERR_PERM);
    assert_int_equal(links(r, (uint64_t)f, r->root, "d"), ERR_EXISTS);
    assert_int_equal(removes(r, r->root, "f", true), ERR_NOT_DIR);
    assert_int_equal(removes(r, r->root, "d", false), ERR_IS_DIR);
    assert_int_equal(removes(r, r->root, "d", true), ERR_NOT_EMPTY);
    assert_int_equal(removes(r, r->root, "f", false), 0);
    assert_int_equal(inode_of(r, f)->nlink, 1);
    assert_int_equal(removes(r, (uint64_t)d, "g", false), 0);
    assert_null(tree_inode(&r->st.tree, (uint64_t)f));
    assert_int_equal(removes(r, r->root, "d", true), 0);
    assert_int_equal(removes(r, r->root, "d", true), ERR_NOTFOUND);
    assert_int_equal(removes(r, r->root, ".", true), ERR_INVAL);
    assert_int_equal(inode_of(r, (int64_t)r->root)->nlink, 2);
    assert_int_equal(tree_share(&r->st.tree, "s")->inodes, 1);
}

static void renaming_moves_and_replaces(void **state)
{
    struct rig *r = *state;
    int64_t a = create(r, r->root, "a", DIR), b = create(r, (uint64_t)a, "b", DIR);
    int64_t f = create(r, r->root, "f", REG), g = create(r, (uint64_t)b, "g", REG);

    assert_int_equal(renames(r, r->root, "f", (uint64_t)b, "g"), 0);
    assert_null(tree_inode(&r->st.tree, (uint64_t)g));
    assert_int_equal(lookup(r, (uint64_t)b, "g"), f);
    assert_int_equal(lookup(r, r->root, "f"), ERR_NOTFOUND);
    assert_int_equal(renames(r, (uint64_t)a, "b", r->root, "c"), 0);
    assert_int_equal(lookup(r, (uint64_t)b, ".."), r->root);
    assert_int_equal(inode_of(r, a)->nlink, 2);
    assert_int_equal(inode_of(r, (int64_t)r->root)->nlink, 4);
    assert_int_equal(renames(r, r->root, "a", r->root, "c"), ERR_NOT_EMPTY);
    assert_int_equal(renames(r, r->root, "c", r->root, "a"), 0); /* an empty one is replaced */
    assert_int_equal(lookup(r, r->root, "a"), b);
    assert_int_equal(inode_of(r, (int64_t)r->root)->nlink, 3);
    assert_int_equal(renames(r, r->root, "a", r->root, "a"), 0);
    assert_int_equal(renames(r, r->root, "x", r->root, "y"), ERR_NOTFOUND);
    assert_int_equal(renames(r, r->root, "a", r->root, ".."), ERR_INVAL);
}

static void renaming_refuses_what_can_not_be(void **state)
{
    struct rig *r = *state;
    int64_t a = create(r, r->root, "a", DIR), b = create(r, (uint64_t)a, "b", DIR);
    int64_t f = create(r, r->root, "f", REG);

    assert_int_equal(renames(r, r->root, "a", (uint64_t)a, "x"), ERR_INVAL);
    assert_int_equal(renames(r, r->root, "a", (uint64_t)b, "x"), ERR_INVAL);
    assert_int_equal(renames(r, r->root, "a", r->root, "f"), ERR_NOT_DIR);
    assert_int_equal(renames(r, r->root, "f", (uint64_t)a, "b"), ERR_IS_DIR);
    assert_int_equal(links(r, (uint64_t)f, (uint64_t)b, "g"), 0);
    assert_int_equal(renames(r, r->root, "f", (uint64_t)b, "g"), 0); /* the same inode */
    assert_int_equal(lookup(r, r->root, "f"), f);
    assert_int_equal(lookup(r, (uint64_t)b, "g"), f);
    assert_int_equal(share_create(r, "t"), 0);
    uint64_t other = tree_share(&r->st.tree, "t")->root;
    assert_int_equal(renames(r, r->root, "f", other, "f"), ERR_INVAL);
    assert_int_equal(links(r, (uint64_t)f, other, "f"), ERR_INVAL);
}

static void mode_bits_are_obeyed(void **state)
{
    struct rig *r = *state;
    Zbs__Meta__Credentials root = who(0, 0), ann = who(1, 1), ben = who(2, 2);

    r->who = &ann;
    assert_int_equal(create(r, r->root, "f", REG), ERR_ACCESS);
    r->who = &root;
    assert_int_equal(set_mode_of(r, r->root, 01777), 0);
    r->who = &ann;
    int64_t d = create(r, r->root, "d", DIR), f = create(r, r->root, "f", REG);
    assert_int_equal(inode_of(r, f)->uid, 1);
    assert_int_equal(inode_of(r, d)->mode, 0700);
    r->who = &ben;
    assert_int_equal(lookup(r, (uint64_t)d, "x"), ERR_ACCESS);
    assert_int_equal(create(r, (uint64_t)d, "x", REG), ERR_ACCESS);
    assert_int_equal(removes(r, r->root, "f", false), ERR_PERM); /* sticky */
    assert_int_equal(renames(r, r->root, "f", r->root, "g"), ERR_PERM);
    assert_int_equal(set_mode_of(r, (uint64_t)f, 0777), ERR_PERM);
    assert_int_equal(set_size_of(r, (uint64_t)f, 0), ERR_ACCESS);
    r->who = &ann;
    assert_int_equal(set_mode_of(r, (uint64_t)f, 0), 0);
    assert_int_equal(set_size_of(r, (uint64_t)f, 10), 0); /* the owner's */
    assert_int_equal(removes(r, r->root, "f", false), 0);
}

static int give(struct rig *r, uint64_t inode, int64_t uid, int64_t gid)
{
    Zbs__Meta__InodeAttrs attrs = ZBS__META__INODE_ATTRS__INIT;
    Zbs__Meta__InodeAttrs__U32 u = ZBS__META__INODE_ATTRS__U32__INIT, g = u;

    u.value = (uint32_t)uid;
    g.value = (uint32_t)gid;
    attrs.uid = uid >= 0 ? &u : NULL;
    attrs.gid = gid >= 0 ? &g : NULL;
    return sets(r, inode, &attrs);
}

static void owners_change_as_posix_says(void **state)
{
    struct rig *r = *state;
    Zbs__Meta__Credentials root = who(0, 0), ann = who(1, 1);
    uint32_t groups[] = {7};

    ann.gids = groups;
    ann.n_gids = 1;
    assert_int_equal(set_mode_of(r, r->root, 0777), 0);
    r->who = &ann;
    int64_t f = create(r, r->root, "f", REG);
    assert_int_equal(give(r, (uint64_t)f, 2, -1), ERR_PERM);
    assert_int_equal(give(r, (uint64_t)f, 1, 8), ERR_PERM);
    assert_int_equal(set_mode_of(r, (uint64_t)f, 06755), 0);
    assert_int_equal(give(r, (uint64_t)f, -1, 7), 0);
    assert_int_equal(inode_of(r, f)->gid, 7);
    assert_int_equal(inode_of(r, f)->mode, 0755); /* no rights are given away */
    r->who = &root;
    assert_int_equal(give(r, (uint64_t)f, 2, 8), 0);
    r->who = &ann;
    assert_int_equal(give(r, (uint64_t)f, 1, -1), ERR_PERM);
}

static void a_directory_passes_its_group_on(void **state)
{
    struct rig *r = *state;
    Zbs__Meta__Credentials ann = who(1, 1);

    assert_int_equal(give(r, r->root, 0, 50), 0);
    assert_int_equal(set_mode_of(r, r->root, 02777), 0);
    r->who = &ann;
    int64_t d = create(r, r->root, "d", DIR), f = create(r, r->root, "f", REG);
    assert_int_equal(inode_of(r, d)->gid, 50);
    assert_int_equal(inode_of(r, d)->mode, 02700);
    assert_int_equal(inode_of(r, f)->gid, 50);
    assert_int_equal(inode_of(r, f)->mode, 0600);
}

static void times_follow_changes(void **state)
{
    struct rig *r = *state;
    int64_t f = create(r, r->root, "f", REG);
    struct inode *root = inode_of(r, (int64_t)r->root), *i = inode_of(r, f);
    uint64_t dir_mtime = root->mtime_ns, mtime = i->mtime_ns, ctime = i->ctime_ns;

    assert_int_equal(dir_mtime, r->w.wall_ns);
    assert_int_equal(set_mode_of(r, (uint64_t)f, 0640), 0);
    assert_true(i->ctime_ns > ctime && i->mtime_ns == mtime && root->mtime_ns == dir_mtime);
    assert_int_equal(set_size_of(r, (uint64_t)f, 5), 0);
    assert_int_equal(i->mtime_ns, r->w.wall_ns);
    r->w.wall_ns -= 100000; /* another leader's clock */
    ctime = i->ctime_ns;
    assert_int_equal(links(r, (uint64_t)f, r->root, "g"), 0);
    assert_int_equal(i->ctime_ns, ctime + 1);
    assert_true(root->mtime_ns > dir_mtime);
}

static void a_guard_is_compared(void **state)
{
    struct rig *r = *state;
    int64_t f = create(r, r->root, "f", REG);
    Zbs__Meta__InodeSetRequest rq = ZBS__META__INODE_SET_REQUEST__INIT;

    rq.inode_id = (uint64_t)f;
    rq.guard = true;
    rq.guard_ctime_ns = inode_of(r, f)->ctime_ns;
    assert_int_equal(rig_do(r, decide_inode_set, NULL, &rq.base, NULL), 0);
    assert_int_equal(rig_do(r, decide_inode_set, NULL, &rq.base, NULL), ERR_MISCOMPARE);
}

static void answers_show_before_and_after(void **state)
{
    struct rig *r = *state;
    const struct inode *root = inode_of(r, (int64_t)r->root);
    uint64_t ctime = root->ctime_ns;
    Zbs__Meta__InodeCreateReply *m;

    assert_true(create(r, r->root, "f", REG) > 0);
    m = rig_reply(r, &zbs__meta__inode_create_reply__descriptor);
    assert_int_equal(m->dir->ctime_ns, ctime);
    assert_int_equal(m->dir->size, 0);
    assert_int_equal(m->dir->after->ctime_ns, root->ctime_ns);
    assert_int_equal(m->dir->after->size, 32);
}

/* Lists on behind a cookie; the number of entries. */
static uint32_t list(struct rig *r, uint64_t dir, uint64_t *cookie, uint32_t max, bool *end)
{
    Zbs__Meta__DirListRequest rq = ZBS__META__DIR_LIST_REQUEST__INIT;
    Zbs__Meta__DirListReply m = ZBS__META__DIR_LIST_REPLY__INIT;
    struct decide d = {.st = &r->st, .rq = &rq.base, .pad = &r->pad};

    rq.dir_id = dir;
    rq.after = *cookie;
    rq.max_entries = max;
    rq.with_inodes = true;
    assert_int_equal(answer_dir_list(&d, &m.base), 0);
    for (size_t i = 0; i < m.n_entries; i++) {
        assert_true(m.entries[i]->cookie > *cookie);
        assert_int_equal(m.entries[i]->inode->id, m.entries[i]->inode_id);
        *cookie = m.entries[i]->cookie;
    }
    *end = m.end;
    return (uint32_t)m.n_entries;
}

static void listings_go_on_behind_cookies(void **state)
{
    struct rig *r = *state;
    uint64_t cookie = 0;
    bool end;

    for (int i = 0; i < 10; i++)
        assert_true(create(r, r->root, pad_printf(&r->pad, "f%d", i), REG) > 0);
    assert_int_equal(list(r, r->root, &cookie, 4, &end), 4);
    assert_false(end);
    for (int i = 2; i < 6; i++) /* the last that was seen, too */
        assert_int_equal(removes(r, r->root, pad_printf(&r->pad, "f%d", i), false), 0);
    assert_int_equal(list(r, r->root, &cookie, 3, &end), 3);
    assert_int_equal(list(r, r->root, &cookie, 3, &end), 1);
    assert_true(end);
    assert_int_equal(list(r, r->root, &cookie, 3, &end), 0);
    assert_true(end);
}

static void listings_are_bounded(void **state)
{
    struct rig *r = *state;
    uint64_t cookie = 0;
    uint32_t n;
    bool end;

    for (int i = 0; i < 2000; i++)
        assert_true(create(r, r->root, pad_printf(&r->pad, "%0250d", i), REG) > 0);
    n = list(r, r->root, &cookie, 5000, &end);
    assert_true(n > 500 && n <= DIR_LIST_MAX && !end);
}

static void retries_get_the_first_answer(void **state)
{
    struct rig *r = *state;
    Zbs__Meta__InodeCreateRequest rq = create_request(r, r->root, "f", REG);
    struct decide d = {.st = &r->st, .w = &r->w, .rq = &rq.base, .pad = &r->pad};
    Zbs__Metalog__Record *record = NULL;
    const struct result *kept;
    struct packed reply;

    assert_int_equal(decide_inode_create(&d, &record), 0);
    record->client = 77;
    record->number = 5;
    assert_int_equal(apply_record(&r->st, record, NULL, &r->pad, &reply), 0);
    kept = state_result(&r->st, 77, 5);
    assert_non_null(kept);
    assert_int_equal(kept->reply_len, reply.len);
    assert_memory_equal(kept->reply, reply.bytes, reply.len);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(shares_are_made_changed_and_deleted),
        T(a_pool_with_a_share_stays),
        T(names_are_made_and_found),
        T(names_have_255_bytes),
        T(paths_lead_to_inodes),
        T(creation_says_what_exists),
        T(exclusive_creation_is_repeatable),
        T(links_hold_what_they_say),
        T(the_last_name_takes_the_inode_along),
        T(renaming_moves_and_replaces),
        T(renaming_refuses_what_can_not_be),
        T(mode_bits_are_obeyed),
        T(owners_change_as_posix_says),
        T(a_directory_passes_its_group_on),
        T(times_follow_changes),
        T(a_guard_is_compared),
        T(answers_show_before_and_after),
        T(listings_go_on_behind_cookies),
        T(listings_are_bounded),
        T(retries_get_the_first_answer),
    };

    return cmocka_run_group_tests_name("tree", tests, NULL, NULL);
}
