/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may do what with an inode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "common/cluster/permission.h"

static const uint32_t groups[] = {20, 30};
static const struct permission_who root = {0}, ann = {.uid = 1, .gid = 10},
                                   ben = {.uid = 2, .gid = 10, .gids = groups, .n_gids = 2};

static uint32_t file_bits(const struct permission_who *who, uint32_t mode, uint32_t uid,
                          uint32_t gid)
{
    struct permission_of of = {.mode = mode, .uid = uid, .gid = gid};

    return permission_bits(who, &of);
}

static void one_class_of_bits_counts(void **state)
{
    (void)state;
    assert_int_equal(file_bits(&ann, 0741, 1, 10), 7);
    assert_int_equal(file_bits(&ben, 0741, 1, 10), 4);
    assert_int_equal(file_bits(&ben, 0741, 1, 30), 4);
    assert_int_equal(file_bits(&ben, 0741, 1, 40), 1);
    assert_int_equal(file_bits(&ann, 0077, 1, 10), 0); /* the owner's, though the others allow it */
    assert_int_equal(file_bits(&ben, 0707, 1, 20), 0);
}

static void root_may_but_execute(void **state)
{
    const struct permission_of dir = {.uid = 1, .directory = true};

    (void)state;
    assert_int_equal(file_bits(&root, 0, 1, 1), 6);
    assert_int_equal(file_bits(&root, 0010, 1, 1), 7);
    assert_int_equal(permission_bits(&root, &dir), 7);
    assert_int_equal(file_bits(NULL, 0, 1, 1), 7);
}

static void the_owner_may_read_and_write_bytes(void **state)
{
    const struct permission_of of = {.mode = 0, .uid = 1, .gid = 10};

    (void)state;
    assert_int_equal(permission_io_bits(&ann, &of), 6);
    assert_int_equal(permission_io_bits(&ben, &of), 0);
}

static void sticky_directories_keep_what_is_anothers(void **state)
{
    struct permission_of dir = {.mode = 01777, .uid = 5, .directory = true};

    (void)state;
    assert_true(permission_may_remove(&ann, &dir, 1));
    assert_false(permission_may_remove(&ben, &dir, 1));
    assert_true(permission_may_remove(&root, &dir, 1));
    dir.uid = 2;
    assert_true(permission_may_remove(&ben, &dir, 1));
    dir = (struct permission_of){.mode = 0777, .uid = 5, .directory = true};
    assert_true(permission_may_remove(&ben, &dir, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_class_of_bits_counts),
        cmocka_unit_test(root_may_but_execute),
        cmocka_unit_test(the_owner_may_read_and_write_bytes),
        cmocka_unit_test(sticky_directories_keep_what_is_anothers),
    };

    return cmocka_run_group_tests_name("permission", tests, NULL, NULL);
}
