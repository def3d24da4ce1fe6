/* SPDX-License-Identifier: Apache-2.0
 *
 * What access/nfs/file.h needs of the world, in memory: a meta server that knows files, volumes,
 * and several access servers that share both. Each request and each access to a volume takes a
 * while, and may fail or be the last one of its server: nothing that a crashed server begins has an
 * effect. */
#ifndef ZBS_TESTS_FILESWORLD_H
#define ZBS_TESTS_FILESWORLD_H

#include "access/nfs/file.h"
#include "common/base/prng.h"

#define FW_INODES  8u /* numbers 1 .. 8, empty files of uid 100 */
#define FW_SERVERS 3u
#define FW_UID     100u

struct filesworld;

struct fw_server {
    struct filesworld *w;
    struct nfs_files *files; /* NULL: it does not run */
    uint64_t session;
    bool stopped; /* for so long that meta has ended the session */
    bool crashed;
    uint32_t crash_in; /* steps until it crashes; 0: never */
    uint32_t fail_in;  /* steps until one fails; 0: none */
    uint32_t fail_ppm; /* of steps that fail: before they have an effect, or after that */
    uint32_t stop_ppm; /* of steps at which it is stopped so */
    uint64_t steps;
};

struct filesworld {
    struct fw_server servers[FW_SERVERS];
    struct prng prng;
    nsec_t latency; /* at most this for each step; 0: none */
    uint64_t calls[META_METHODS];
    uint64_t volume_reads, volume_writes, volumes_open;
    /* private */
    struct fw_inode *inodes[FW_INODES + 1];
    struct fw_volume *volumes;
    uint64_t last_number, last_volume, last_session;
};

/* Runs the body in a simulated process. The servers run. */
void filesworld_run(struct filesworld *w, uint64_t seed, int (*body)(void *w));
/* Ends it (its session too) and starts it anew. Requests of the former one have ended. */
co_fn void fw_restart(struct fw_server *s);
co_fn void fw_stop(struct fw_server *s);
/* It is stopped; goes on, and has a new session. */
void fw_suspend(struct fw_server *s);
void fw_resume(struct fw_server *s);

/* As a client of a server: errors of meta and of nfs_file_*. */
co_fn int fw_write(struct fw_server *s, uint64_t inode, uint64_t off, const void *data,
                   uint32_t len) MUST_CHECK;
/* Reads until the end of the file or len bytes. */
co_fn int fw_read(struct fw_server *s, uint64_t inode, uint64_t off, void *data, uint32_t len,
                  uint32_t *ret_len, bool *ret_eof) MUST_CHECK;
/* SETATTR of a size, with what goes with it. */
co_fn int fw_resize(struct fw_server *s, uint64_t inode, uint64_t size) MUST_CHECK;

/* How many servers have a write lease. */
uint32_t fw_writers(struct filesworld *w, uint64_t inode);
/* What meta knows. */
const Zbs__Meta__Inode *fw_inode(struct filesworld *w, uint64_t inode);
void fw_remove(struct filesworld *w, uint64_t inode);
/* A byte of a volume, past everybody. */
co_fn uint8_t fw_volume_byte(struct filesworld *w, uint64_t volume, uint64_t off);

#endif
