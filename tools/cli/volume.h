/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli: what the volume commands share. */
#ifndef ZBS_TOOLS_CLI_VOLUME_H
#define ZBS_TOOLS_CLI_VOLUME_H

#include "tools/cli/cli.h"

json_t *volume_json(const Zbs__Meta__Volume *v);

/* The volume named POOL/VOLUME; on CLI_OK r->msg is a Volume. */
enum cli_exit volume_get(struct cli *c, const char *name, struct rpc_reply *r);

/* Calls fn for every volume and snapshot of a pool ("": of all), by name. */
enum cli_exit volumes_each(struct cli *c, const char *pool,
                           void (*fn)(void *arg, const Zbs__Meta__Volume *v), void *arg);

/* A page of its extent table from first_slot on; r->msg is a VolumeMapReply. */
enum cli_exit volume_map_page(struct cli *c, const Zbs__Meta__Volume *v, uint32_t first_slot,
                              struct rpc_reply *r);

/* Prints the reply of a call, a Volume, and frees it; rc: the call's outcome. */
enum cli_exit volume_print(struct cli *c, enum cli_exit rc, struct rpc_reply *r);

/* What a change of the volume that the first argument names begins with; prints and returns false
 * if it names none. */
struct volume_change {
    Zbs__Meta__Mutation mutation;
    char pool[CLI_NAME_ROOM], name[CLI_NAME_ROOM];
};
bool volume_change_begin(struct cli *c, struct volume_change *ret);
/* Puts it into a request, which it outlives. */
#define VOLUME_CHANGE(q, v)                                                                        \
    do {                                                                                           \
        (q)->mutation = &(v)->mutation;                                                            \
        (q)->pool = (v)->pool;                                                                     \
        (q)->name = (v)->name;                                                                     \
    } while (0)

/* In cmd_snapshot.c. */
/* Splits POOL/VOLUME@SNAPSHOT; prints and returns false if it is not that. */
bool snapshot_parse(const char *text, char pool[CLI_NAME_ROOM], char volume[CLI_NAME_ROOM],
                    char snapshot[CLI_NAME_ROOM]);
enum cli_exit volume_clone(struct cli *c);

enum cli_exit volume_flatten(struct cli *c); /* cmd_flatten.c */
enum cli_exit volume_verify(struct cli *c);

#endif
