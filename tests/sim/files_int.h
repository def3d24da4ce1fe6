/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside the clients of the share: their lives (files.c), and what is done for a request about
 * names (files_names.c) and about what files contain (files_data.c). All memory but that of access
 * servers is the world's. */
#ifndef ZBS_TESTS_SIM_FILES_INT_H
#define ZBS_TESTS_SIM_FILES_INT_H

#include "access/nfs/file.h"
#include "common/base/limits.h"
#include "tests/sim/files.h"

#define FILES_CLIENTS 4u
#define FILES_RUNNERS 2u  /* of each access server */
#define FILES_MAX     96u /* in a seed */
#define NAMES         5u  /* that a client uses in its directory */
#define CELL_BYTES    128u
#define INODE_CELLS   (FILE_INLINE_BYTES / CELL_BYTES)
#define PLACE_CELLS   96u /* of one of the places in a file that are used */
#define PLACES_MAX    2u
#define SNAPSHOTS_MAX 8u

enum request_kind {
    REQUEST_SETUP,
    REQUEST_CREATE,
    REQUEST_REMOVE,
    REQUEST_RENAME,
    REQUEST_LINK,
    REQUEST_LIST, /* up to here about names */
    REQUEST_SNAPSHOT,
    REQUEST_TRUNCATE,
    REQUEST_READ,
    REQUEST_WRITE,
};

struct sfile {
    uint64_t inode;
    uint32_t space; /* of the history */
    uint32_t links;
    bool shared;    /* all clients read and write it; else its owner only */
    bool going;     /* its last name is being removed, or is */
    uint32_t small; /* so many requests about what it contains stay within the inode */
    uint64_t size;  /* exact unless shared */
};

/* Of a file that only its owner uses, so it is known what it holds. */
struct fsnapshot {
    const struct sfile *file;
    char name[64];
    uint64_t volume, size, call, ret;
};

struct request {
    enum request_kind kind;
    uint64_t number;   /* of its mutation: the same for each attempt */
    int expected;      /* the only answer that there can be */
    uint32_t name, to; /* in the client's directory */
    struct sfile *file;
    uint64_t first; /* cells */
    uint32_t count;
    uint64_t size;               /* new one */
    uint64_t zeroed[PLACES_MAX]; /* what a truncation is in the history */
    uint64_t called;             /* when a snapshot was */
};

/* What an attempt found. */
struct answer {
    uint64_t inode, size;
    uint64_t volume;
    uint64_t listed[NAMES]; /* inodes; 0: no such name */
    uint32_t n_listed;
};

/* A client's request is at one access server at a time; when that is gone or silent, another one
 * gets it, and what comes from the former is not heard any more. */
struct fclient {
    struct files *fs;
    uint32_t number;
    uint32_t turn; /* counts the servers that it was given to */
    uint32_t node; /* which has it */
    bool taken, pending;
    nsec_t taken_at;
    uint64_t requests;
    uint64_t dir;
    struct sfile *names[NAMES];
    struct request rq;
};

/* In an access server; its memory. */
struct fnode {
    struct node *n;
    struct nfs_files *files;
    struct meta_client *meta;
    struct co_group group;
    bool started;
};

struct files {
    struct cluster *c;
    bool running, finals, done;
    uint32_t final_node;
    uint64_t root;
    struct fnode nodes[HOSTS];
    struct fclient clients[FILES_CLIENTS];
    struct sfile files[FILES_MAX];
    uint32_t n_files;
    struct fsnapshot snapshots[SNAPSHOTS_MAX];
    uint32_t n_snapshots;
    struct files_stats stats;
};

static inline uint64_t files_draw(struct files *fs, uint64_t n) /* below n */
{
    return sim_random(fs->c->sim) % n;
}

/* A request to meta; *r is initialised here and has to be freed in every case. */
co_fn int files_meta(struct fnode *n, enum meta_method method, const ProtobufCMessage *rq,
                     struct rpc_reply *r) MUST_CHECK;
void files_mutation(const struct fclient *cl, Zbs__Meta__Mutation *ret);

/* ---- files_names.c ---- */

const char *files_name(uint32_t number); /* in a client's directory */
/* Completes a request that was drawn. */
void names_prepare(struct fclient *cl, struct request *rq);
co_fn int names_attempt(struct fnode *n, struct fclient *cl, const struct request *rq,
                        struct answer *ret);
/* It was answered as expected. */
void names_done(struct fclient *cl, const struct request *rq, const struct answer *a);
/* Everything of all clients goes. */
co_fn void names_remove_all(struct fnode *n);

/* ---- files_data.c ---- */

void data_prepare(struct fclient *cl, struct request *rq);
co_fn int data_attempt(struct fnode *n, struct fclient *cl, const struct request *rq,
                       struct answer *ret);
void data_done(struct fclient *cl, const struct request *rq, const struct answer *a);
/* All of a file, or of a snapshot of one, once more. */
co_fn void data_final(struct fnode *n, struct sfile *f);
co_fn void data_final_snapshot(struct fnode *n, const struct fsnapshot *s);

#endif
