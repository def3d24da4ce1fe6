/* SPDX-License-Identifier: Apache-2.0
 *
 * What tests of the real environment share: a directory of their own, and running a body in it. */
#ifndef ZBS_TESTS_UNIT_COMMON_ENV_RIG_H
#define ZBS_TESTS_UNIT_COMMON_ENV_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/base/assert.h"
#include "common/env/env.h"
#include "common/env/env_real.h"

static char dir[64];

static inline const char *path_in_dir(const char *name)
{
    static char path[100];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static inline int dir_make(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/zbs-env-XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static inline int run_conf(const struct env_real_conf *conf, int (*fn)(void *arg), void *arg)
{
    return env_real_run(conf, fn, arg);
}

static inline int run(int (*fn)(void *arg))
{
    struct env_real_conf conf = {.name = "test"};

    return run_conf(&conf, fn, NULL);
}

/* ---- loop, timers, randomness ---- */

#endif
