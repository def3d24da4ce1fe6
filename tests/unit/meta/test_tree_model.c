/* SPDX-License-Identifier: Apache-2.0
 *
 * Random requests about a share: what is decided must be what a simple model of a file tree says,
 * and the records, packed and unpacked like log entries, must keep two states and what their stores
 * hold equal (invariant 7). */
#include "tests/unit/meta/tree_rig.h"

#include "common/base/prng.h"
#include "common/env/sim.h"

#define NAMES   6u
#define NODES   4096u
#define FIRST   0u /* the root's place in the model */
#define NOBODY  UINT32_MAX
#define DATA    64u /* bytes of a small file, at most */
#define WRITERS 3u  /* sessions */

/* A node of the model; children by the number of their name. */
struct node {
    uint64_t id;
    Zbs__Meta__InodeType type;
    uint32_t names;
    uint32_t child[NAMES];
    bool volume; /* a file's bytes are there, so not here */
    uint64_t size, dirty_end;
    uint64_t leases[WRITERS]; /* 0: none */
    uint8_t data[DATA];
};

struct model {
    struct rig a;
    struct state b;
    struct kv *kv_a, *kv_b;
    struct kv_batch *batch_b;
    struct prng prng;
    struct node nodes[NODES];
    uint32_t n_nodes;
    uint64_t incarnation; /* of the newest session */
    uint32_t ok, refused;
};

static struct model *the_model; /* of the rig's hook */

static uint64_t below(struct model *m, uint64_t n)
{
    return prng_below(&m->prng, n);
}

static const char *name_of(struct model *m, uint32_t n)
{
    return pad_printf(&m->a.pad, "name-%u", n);
}

/* ---- the model ---- */

static uint32_t node_add(struct model *m, uint64_t id, Zbs__Meta__InodeType type)
{
    struct node *n = &m->nodes[m->n_nodes];

    assert_true(m->n_nodes < NODES);
    *n = (struct node){.id = id, .type = type};
    memset(n->child, 0xff, sizeof(n->child));
    return m->n_nodes++;
}

static bool node_is_empty(const struct node *n)
{
    for (uint32_t i = 0; i < NAMES; i++) {
        if (n->child[i] != NOBODY)
            return false;
    }
    return true;
}

static bool node_is_below(const struct model *m, uint32_t node, uint32_t top)
{
    if (node == top)
        return true;
    for (uint32_t i = 0; i < NAMES; i++) {
        uint32_t c = m->nodes[top].child[i];

        if (c != NOBODY && m->nodes[c].type == DIR && node_is_below(m, node, c))
            return true;
    }
    return false;
}

static void node_unlink(struct model *m, uint32_t dir, uint32_t name)
{
    uint32_t n = m->nodes[dir].child[name];

    m->nodes[dir].child[name] = NOBODY;
    if (--m->nodes[n].names == 0)
        m->nodes[n].id = 0;
}

static void node_link(struct model *m, uint32_t dir, uint32_t name, uint32_t node)
{
    m->nodes[dir].child[name] = node;
    m->nodes[node].names++;
}

/* A node that is there, a directory if asked for. */
static uint32_t pick(struct model *m, bool directory)
{
    for (;;) {
        uint32_t n = (uint32_t)below(m, m->n_nodes);

        if (m->nodes[n].id != 0 && (!directory || m->nodes[n].type == DIR))
            return n;
    }
}

/* ---- requests, on both ---- */

static void expect(struct model *m, int64_t rc, int want)
{
    assert_int_equal(rc < 0 ? rc : 0, want);
    if (rc < 0)
        m->refused++;
    else
        m->ok++;
}

static void do_create(struct model *m)
{
    uint32_t dir = pick(m, true), name = (uint32_t)below(m, NAMES);
    Zbs__Meta__InodeType type = below(m, 3) == 0 ? DIR : below(m, 2) == 0 ? REG : LNK;
    bool there = m->nodes[dir].child[name] != NOBODY;
    int64_t rc;

    if (m->n_nodes == NODES)
        return;
    rc = create(&m->a, m->nodes[dir].id, name_of(m, name), type);
    expect(m, rc, there ? ERR_EXISTS : 0);
    if (rc > 0)
        node_link(m, dir, name, node_add(m, (uint64_t)rc, type));
}

static int remove_expected(const struct model *m, uint32_t node, bool directory)
{
    if (node == NOBODY)
        return ERR_NOTFOUND;
    if (directory != (m->nodes[node].type == DIR))
        return directory ? ERR_NOT_DIR : ERR_IS_DIR;
    return node_is_empty(&m->nodes[node]) ? 0 : ERR_NOT_EMPTY;
}

static void do_remove(struct model *m)
{
    uint32_t dir = pick(m, true), name = (uint32_t)below(m, NAMES);
    bool directory = below(m, 2) == 0;
    int want = remove_expected(m, m->nodes[dir].child[name], directory);

    expect(m, removes(&m->a, m->nodes[dir].id, name_of(m, name), directory), want);
    if (want == 0)
        node_unlink(m, dir, name);
}

static void do_link(struct model *m)
{
    uint32_t dir = pick(m, true), name = (uint32_t)below(m, NAMES), node = pick(m, false);
    int want = m->nodes[node].type == DIR            ? ERR_PERM
               : m->nodes[dir].child[name] != NOBODY ? ERR_EXISTS
                                                     : 0;

    expect(m, links(&m->a, m->nodes[node].id, m->nodes[dir].id, name_of(m, name)), want);
    if (want == 0)
        node_link(m, dir, name, node);
}

static int rename_expected(const struct model *m, uint32_t node, uint32_t to, uint32_t replaced)
{
    bool directory;

    if (node == NOBODY)
        return ERR_NOTFOUND;
    if (replaced == node)
        return 0;
    directory = m->nodes[node].type == DIR;
    if (directory && node_is_below(m, to, node))
        return ERR_INVAL;
    if (replaced == NOBODY)
        return 0;
    if (directory != (m->nodes[replaced].type == DIR))
        return directory ? ERR_NOT_DIR : ERR_IS_DIR;
    return node_is_empty(&m->nodes[replaced]) ? 0 : ERR_NOT_EMPTY;
}

static void do_rename(struct model *m)
{
    uint32_t from = pick(m, true), from_name = (uint32_t)below(m, NAMES);
    uint32_t to = pick(m, true), to_name = (uint32_t)below(m, NAMES);
    uint32_t node = m->nodes[from].child[from_name], replaced = m->nodes[to].child[to_name];
    int want = rename_expected(m, node, to, replaced);

    expect(m,
           renames(&m->a, m->nodes[from].id, name_of(m, from_name), m->nodes[to].id,
                   name_of(m, to_name)),
           want);
    if (want != 0 || replaced == node)
        return;
    if (replaced != NOBODY)
        node_unlink(m, to, to_name);
    m->nodes[from].child[from_name] = NOBODY;
    m->nodes[to].child[to_name] = node;
}

static bool is_leased(const struct node *n)
{
    for (uint32_t i = 0; i < WRITERS; i++) {
        if (n->leases[i] != 0)
            return true;
    }
    return false;
}

static void do_mode(struct model *m)
{
    const struct node *n = &m->nodes[pick(m, false)];
    uint32_t mode = (uint32_t)below(m, 010000), former = tree_inode(&m->a.st.tree, n->id)->mode;
    bool rights = (permission_lost_by_write(mode) & ~former) != 0;

    expect(m, set_mode_of(&m->a, n->id, mode), rights && is_leased(n) ? ERR_BUSY : 0);
}

/* ---- what files contain ---- */

/* Is it to be zeroed before it gets larger? */
static bool is_dirty(const struct node *n, uint64_t size)
{
    return size > n->size && n->dirty_end > n->size;
}

static void do_size(struct model *m)
{
    struct node *n = &m->nodes[pick(m, false)];
    uint64_t size = below(m, 2) == 0 ? below(m, DATA) : below(m, 4 * MIB);
    int want = n->type == DIR ? ERR_IS_DIR : n->type != REG ? ERR_INVAL : 0;

    if (want == 0 && (is_dirty(n, size) || (size < n->size && is_leased(n))))
        want = ERR_BUSY;
    expect(m, set_size_of(&m->a, n->id, size), want);
    if (want != 0)
        return;
    if (n->volume && size < n->size)
        n->dirty_end = MAX(n->dirty_end, MIN(n->size, MIB));
    if (n->dirty_end <= size)
        n->dirty_end = 0;
    if (size < DATA)
        memset(n->data + size, 0, DATA - size);
    n->size = size;
}

static void do_write(struct model *m)
{
    struct node *n = &m->nodes[pick(m, false)];
    char text[9] = "";
    uint64_t at = below(m, DATA - sizeof(text)), len = 1 + below(m, sizeof(text) - 1);
    int want = n->type == DIR   ? ERR_IS_DIR
               : n->type != REG ? ERR_INVAL
               : n->volume      ? ERR_TOO_LARGE
                                : 0;

    for (uint64_t i = 0; i < len; i++)
        text[i] = (char)('a' + below(m, 26));
    expect(m, writes(&m->a, n->id, at, text), want);
    if (want != 0)
        return;
    memcpy(n->data + at, text, len);
    n->size = MAX(n->size, at + len);
}

static void do_attach(struct model *m)
{
    struct node *n = &m->nodes[pick(m, false)];
    int64_t v;

    if (n->type != REG)
        return;
    v = volume_for(&m->a, n->id, MIB);
    if (n->volume || below(m, 2) == 0) {
        expect(m, v, 0);
        return;
    }
    expect(m, attaches(&m->a, n->id, (uint64_t)v, tree_inode(&m->a.st.tree, n->id)->change), 0);
    n->volume = true;
}

static void do_written(struct model *m)
{
    struct node *n = &m->nodes[pick(m, false)];
    uint64_t size = below(m, MIB);

    if (n->type != REG)
        return;
    if (n->dirty_end > 0 && below(m, 2) == 0) {
        expect(m, takes_zeroing(&m->a, n->id, ZEROER), 0);
        expect(m, zeroed(&m->a, n->id, n->size, n->dirty_end), 0);
        n->dirty_end = 0;
        return;
    }
    expect(m, written(&m->a, n->id, size, 0),
           size <= n->size     ? 0
           : !n->volume        ? ERR_INVAL
           : is_dirty(n, size) ? ERR_BUSY
                               : 0);
    if (n->volume && !is_dirty(n, size))
        n->size = MAX(n->size, size);
}

static void do_lock(struct model *m)
{
    const struct node *n = &m->nodes[pick(m, false)];
    Zbs__Meta__Lock l = lock_of(n->id, below(m, 2) == 0 ? "ann" : "ben", (uint32_t)below(m, 2),
                                below(m, 20), below(m, 20), below(m, 2) == 0);

    if (n->type != REG)
        return;
    if (below(m, 30) == 0)
        expect(m, forgets(&m->a, l.client), 0);
    else if (below(m, 3) == 0)
        expect(m, unlocks(&m->a, l), 0);
    else if (locks(&m->a, l) == ERR_CONFLICT)
        m->refused++;
}

/* Another session of a writer, whose former one ends. */
static void session_open(struct model *m, uint32_t writer)
{
    Zbs__Meta__SessionOpenRequest rq = ZBS__META__SESSION_OPEN_REQUEST__INIT;

    rq.name = (char *)pad_printf(&m->a.pad, "writer-%u", writer);
    rq.addr = (char *)"127.1.0.1:7300";
    rq.incarnation = ++m->incarnation;
    rq.former_is_dead = true;
    assert_int_equal(rig_do(&m->a, decide_session_open, NULL, &rq.base, NULL), 0);
    for (uint32_t i = 0; i < m->n_nodes; i++)
        m->nodes[i].leases[writer] = 0;
}

static void do_lease(struct model *m)
{
    struct node *n = &m->nodes[pick(m, false)];
    uint32_t writer = (uint32_t)below(m, WRITERS);
    const struct session *s =
        state_session_by_name(&m->a.st, pad_printf(&m->a.pad, "writer-%u", writer));
    uint64_t lease;

    if (s == NULL || below(m, 20) == 0) {
        session_open(m, writer);
    } else if (n->leases[writer] != 0 && below(m, 4) > 0) {
        returns_lease(&m->a, n->id, n->leases[writer]);
        n->leases[writer] = 0;
    } else if (n->type == REG) {
        lease = takes_lease(&m->a, n->id, s->id);
        assert_true((lease > n->leases[writer]) == n->volume);
        n->leases[writer] = lease;
    }
}

/* ---- checks ---- */

static void check_file(const struct node *n, const struct inode *i)
{
    uint8_t data[DATA] = {0};

    if (n->type != REG)
        return;
    assert_int_equal(i->size, n->size);
    assert_int_equal(i->dirty_end, n->dirty_end);
    assert_true((i->volume_id != 0) == n->volume);
    assert_true(i->data_len <= (n->volume ? 0 : DATA));
    if (i->data_len > 0)
        memcpy(data, i->data, i->data_len);
    if (!n->volume)
        assert_memory_equal(data, n->data, DATA);
}

static void check_node(struct model *m, const struct state *st, uint32_t at, uint32_t parent)
{
    const struct node *n = &m->nodes[at];
    const struct inode *i = tree_inode(&st->tree, n->id);
    uint32_t entries = 0, directories = 0;

    assert_non_null(i);
    assert_int_equal(i->type, n->type);
    if (n->type != DIR) {
        assert_int_equal(i->nlink, n->names);
        check_file(n, i);
        return;
    }
    assert_int_equal(i->parent->id, m->nodes[parent].id);
    for (uint32_t k = 0; k < NAMES; k++) {
        const struct dir_entry *e = tree_entry(&st->tree, i, name_of(m, k));

        assert_true((e == NULL) == (n->child[k] == NOBODY));
        if (e == NULL)
            continue;
        assert_int_equal(e->inode->id, m->nodes[n->child[k]].id);
        entries++;
        directories += inode_is_dir(e->inode);
        check_node(m, st, n->child[k], at);
    }
    assert_int_equal(i->entries.count, entries);
    assert_int_equal(i->nlink, 2 + directories);
    for (uint32_t k = 1; k < entries; k++)
        assert_true(((const struct dir_entry *)i->entries.items[k - 1])->cookie <
                    ((const struct dir_entry *)i->entries.items[k])->cookie);
}

static void check_state(struct model *m, const struct state *st)
{
    uint32_t alive = 0;

    check_node(m, st, FIRST, FIRST);
    for (uint32_t i = 0; i < m->n_nodes; i++)
        alive += m->nodes[i].id != 0;
    assert_int_equal(st->tree.inodes.count, alive);
    assert_int_equal(tree_share(&st->tree, "s")->inodes, alive);
}

static void write_stores(struct model *m)
{
    struct codec_sink to_a = {.batch = m->a.batch}, to_b = {.batch = m->batch_b};
    struct codec_header h = {.applied = m->a.st.next_mutation};

    codec_header_take(&h, &m->a.st);
    codec_put_header(&to_a, &h);
    codec_put_header(&to_b, &h);
    assert_int_equal(kv_write(m->kv_a, m->a.batch, false), 0);
    assert_int_equal(kv_write(m->kv_b, m->batch_b, false), 0);
    kv_batch_free(m->a.batch);
    kv_batch_free(m->batch_b);
    m->a.batch = kv_batch_new();
    m->batch_b = kv_batch_new();
}

static int count_pair(void *arg, const void *key, size_t key_len, const void *val, size_t val_len)
{
    (void)key;
    (void)key_len;
    (void)val;
    (void)val_len;
    ++*(uint64_t *)arg;
    return 0;
}

static void check_all(struct model *m)
{
    uint64_t digest = codec_digest(&m->a.st), applied, pairs_a = 0, pairs_b = 0;
    struct state loaded;

    assert_int_equal(codec_digest(&m->b), digest);
    state_init(&loaded);
    assert_int_equal(codec_load(m->kv_a, &loaded, &applied), 0);
    assert_int_equal(codec_digest(&loaded), digest);
    check_state(m, &m->a.st);
    check_state(m, &loaded);
    state_fini(&loaded);
    assert_int_equal(kv_scan(m->kv_a, "", 0, NULL, 0, count_pair, &pairs_a), 0);
    assert_int_equal(kv_scan(m->kv_b, "", 0, NULL, 0, count_pair, &pairs_b), 0);
    assert_int_equal(pairs_a, pairs_b);
}

/* The second state gets the record as another server gets it. */
static void replay(struct rig *r, const Zbs__Metalog__Record *record)
{
    struct model *m = the_model;
    size_t len = zbs__metalog__record__get_packed_size(record);
    uint8_t *bytes = pad_alloc(&r->pad, len);
    struct packed reply;

    zbs__metalog__record__pack(record, bytes);
    assert_int_equal(apply_record(&m->b,
                                  zbs__metalog__record__unpack(&r->pad.allocator, len, bytes),
                                  m->batch_b, &r->pad, &reply),
                     0);
    assert_int_equal(reply.len, r->reply.len);
    assert_memory_equal(reply.bytes, r->reply.bytes, reply.len);
}

/* The leader's, beside requests: removed volumes go. */
static void do_sweep(struct model *m)
{
    Zbs__Metalog__Record *r = decide_sweep(&m->a.st, &m->a.pad);

    if (r == NULL)
        return;
    assert_int_equal(apply_record(&m->a.st, r, m->a.batch, &m->a.pad, &m->a.reply), 0);
    replay(&m->a, r);
}

static void (*const actions[])(struct model *) = {
    do_create, do_create, do_remove,  do_link,  do_rename, do_mode, do_size,  do_write,
    do_write,  do_attach, do_written, do_sweep, do_lock,   do_lock, do_lease, do_lease};

static void model_begin(struct model *m)
{
    Zbs__Meta__PoolCreateRequest rq = ZBS__META__POOL_CREATE_REQUEST__INIT;

    assert_int_equal(kv_open("/a", &m->kv_a), 0);
    assert_int_equal(kv_open("/b", &m->kv_b), 0);
    state_init(&m->a.st);
    state_init(&m->b);
    pad_init(&m->a.pad);
    m->a.applied = replay;
    m->a.batch = kv_batch_new();
    m->batch_b = kv_batch_new();
    rq.name = (char *)"p";
    rq.replicas = 1;
    assert_int_equal(rig_do(&m->a, decide_pool_create, NULL, &rq.base, NULL), 0);
    assert_int_equal(share_create(&m->a, "s"), 0);
    m->a.root = tree_share(&m->a.st.tree, "s")->root;
    m->nodes[node_add(m, m->a.root, DIR)].names = 1;
}

static int model_main(void *arg)
{
    struct model *m = arg;

    the_model = m;
    model_begin(m);
    for (uint32_t i = 0; i < 6000; i++) {
        actions[below(m, ARRAY_SIZE(actions))](m);
        if (i % 64 == 63 || below(m, 100) == 0)
            write_stores(m);
        if (i % 500 == 499) {
            write_stores(m);
            check_all(m);
        }
        pad_fini(&m->a.pad);
    }
    assert_true(m->ok > 1000 && m->refused > 500);
    kv_batch_free(m->a.batch);
    kv_batch_free(m->batch_b);
    kv_close(m->kv_a);
    kv_close(m->kv_b);
    state_fini(&m->a.st);
    state_fini(&m->b);
    return 0;
}

static void random_requests_do_what_a_file_tree_does(void **state)
{
    static struct model m;

    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct sim_conf conf = {.seed = seed};
        struct sim *s = sim_new(&conf);

        memset(&m, 0, sizeof(m));
        prng_init(&m.prng, seed);
        sim_control(s, "127.1.0.9", "model", model_main, &m);
        while (sim_control_running(s) > 0)
            assert_true(sim_step(s));
        sim_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_requests_do_what_a_file_tree_does),
    };

    return cmocka_run_group_tests_name("tree model", tests, NULL, NULL);
}
