/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests about shares that are sent again, to another leader: they get the first answer, or where
 * the answer is the inode as it is, that. */
#include "tests/unit/meta/world.h"

static Zbs__Meta__Mutation mutation(uint64_t number)
{
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;

    m.client = 77; /* a client of NFS, whichever access server asks */
    m.number = number;
    return m;
}

static uint64_t share(struct mworld *w)
{
    Zbs__Meta__ShareCreateRequest rq = ZBS__META__SHARE_CREATE_REQUEST__INIT;
    Zbs__Meta__Share s = ZBS__META__SHARE__INIT;
    Zbs__Meta__Mutation m = mutation(1);
    struct rpc_reply r;
    uint64_t root;

    s.name = (char *)"s";
    s.pool = (char *)"p";
    rq.mutation = &m;
    rq.share = &s;
    assert_int_equal(call(w, META_SHARE_CREATE, &rq.base, &r), 0);
    root = ((Zbs__Meta__Share *)r.msg)->root;
    rpc_reply_free(&r);
    return root;
}

static uint64_t create(struct mworld *w, uint64_t dir)
{
    Zbs__Meta__InodeCreateRequest rq = ZBS__META__INODE_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation m = mutation(2);
    struct rpc_reply r;
    uint64_t id;

    rq.mutation = &m;
    rq.dir_id = dir;
    rq.name = (char *)"f";
    rq.type = ZBS__META__INODE_TYPE__INODE_REG;
    assert_int_equal(call(w, META_INODE_CREATE, &rq.base, &r), 0);
    id = ((Zbs__Meta__InodeCreateReply *)r.msg)->inode->id;
    rpc_reply_free(&r);
    return id;
}

/* The file's `change` afterwards. */
static uint64_t write_file(struct mworld *w, uint64_t inode, uint64_t change)
{
    Zbs__Meta__FileWriteRequest rq = ZBS__META__FILE_WRITE_REQUEST__INIT;
    Zbs__Meta__Mutation m = mutation(3);
    const Zbs__Meta__Inode *i;
    struct rpc_reply r;

    rq.mutation = &m;
    rq.inode_id = inode;
    rq.change = change;
    rq.data = (ProtobufCBinaryData){.data = (uint8_t *)"bytes", .len = 5};
    assert_int_equal(call(w, META_FILE_WRITE, &rq.base, &r), 0);
    i = (const Zbs__Meta__Inode *)r.msg;
    assert_int_equal(i->id, inode);
    assert_int_equal(i->data.len, 5);
    change = i->change;
    rpc_reply_free(&r);
    return change;
}

static int repeated_requests(struct mworld *w)
{
    uint64_t root, f, change;
    uint32_t first;

    assert_int_equal(pool_create(w, "p", 1), 0);
    root = share(w);
    f = create(w, root);
    change = write_file(w, f, f); /* a new inode's change is its id */
    assert_int_equal(create(w, root), f);
    first = wait_leader(w);
    sim_proc_crash(w->metas[first].proc);
    assert_int_equal(share(w), root);
    assert_int_equal(create(w, root), f);
    assert_int_equal(write_file(w, f, f), change);
    world_start(w, first);
    check_equal(w);
    return 0;
}

static void another_leader_gives_the_first_answer(void **state)
{
    (void)state;
    for_seeds(repeated_requests, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_leader_gives_the_first_answer),
    };

    return cmocka_run_group_tests_name("tree retry", tests, NULL, NULL);
}
