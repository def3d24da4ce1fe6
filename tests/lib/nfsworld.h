/* SPDX-License-Identifier: Apache-2.0
 *
 * An NFS server in a simulated process over what the meta servers would decide, which is done at
 * once in the same process, and over volumes in memory that forget when they are closed. For
 * fuzzing: the tests of access/nfs have a whole cluster. */
#ifndef ZBS_TESTS_NFSWORLD_H
#define ZBS_TESTS_NFSWORLD_H

#include "access/nfs/nfs_int.h"
#include "common/rpc/arena.h"
#include "meta/state.h"

#define NFSW_SHARE "s" /* in pool "p", for everybody, nobody is squashed */

struct nfsworld {
    /* set by the test */
    void (*body)(struct nfsworld *w);
    void *arg;
    struct nfs_conf conf; /* addresses, cluster and back end are filled in */
    /* for the body */
    struct nfs_server *server;
    const char *addr, *portmap_addr;
    /* private */
    struct state st;
    int64_t wall_ns;
    uint64_t mutation;
    struct arena_pool *arenas;
};

/* Runs the body; stops the server afterwards. No memory may be left. */
void nfsworld_run(struct nfsworld *w);
/* Waits until no connection is left. */
co_fn void nfsworld_quiet(struct nfsworld *w);

#endif
