/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli: noun-verb commands over the RPC services. Every command builds one JSON value; --json
 * prints it, otherwise a table is drawn from it, so both always say the same. Commands run in one
 * coroutine and end the program with an exit code. */
#ifndef ZBS_TOOLS_CLI_H
#define ZBS_TOOLS_CLI_H

#include <jansson.h>
#include "common/cluster/meta_client.h"

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,      /* the cluster refused or failed */
    CLI_USAGE = 2,       /* the command line or configuration is wrong */
    CLI_NOT_FOUND = 3,   /* what was named does not exist */
    CLI_UNREACHABLE = 4, /* no meta leader, or a server did not answer */
    CLI_DIFFERS = 5,     /* volume verify found differences */
};

#define CLI_ARGS_MAX       8
#define CLI_NAME_ROOM      129 /* of a pool or a volume, with its terminator */
#define CLI_OPTIONS_MAX    16
#define CLI_META_ADDRS_MAX 1024

struct cli_option {
    const char *name;  /* without the dashes */
    const char *value; /* what it takes; NULL: a switch; "WHAT...": may be given several times */
    const char *help;
};

struct cli;

struct cli_command {
    const char *noun, *verb; /* a verb may have two words */
    const char *args;        /* positional ones, for the help */
    uint32_t args_min, args_max;
    const char *help;
    struct cli_option options[8];
    enum cli_exit (*run)(struct cli *c);
};

struct cli {
    const struct cli_command *command;
    const char *args[CLI_ARGS_MAX];
    char *resolved[CLI_ARGS_MAX +
                   CLI_OPTIONS_MAX]; /* what was a path in a share, cli_resolve_paths */
    uint32_t n_resolved;
    uint32_t n_args;
    const char *option_names[CLI_OPTIONS_MAX];
    const char *option_values[CLI_OPTIONS_MAX];
    uint32_t n_options;
    bool json;
    const char *config; /* file */
    char meta_addrs[CLI_META_ADDRS_MAX];
    struct meta_client *meta;
    enum cli_exit exit; /* what the command returned */
};

/* NULL-noun terminated tables, one per file. */
extern const struct cli_command cli_cluster_commands[];
extern const struct cli_command cli_scrub_commands[];
extern const struct cli_command cli_chunk_commands[];
extern const struct cli_command cli_disk_commands[];
extern const struct cli_command cli_pool_commands[];
extern const struct cli_command cli_volume_commands[];
extern const struct cli_command cli_snapshot_commands[];
extern const struct cli_command cli_stream_commands[];
extern const struct cli_command cli_iscsi_commands[];
extern const struct cli_command cli_reservation_commands[];
extern const struct cli_command cli_share_commands[];
extern const struct cli_command cli_nfs_commands[];
extern const struct cli_command cli_setting_commands[];
extern const struct cli_command cli_recovery_commands[];
/* Of the noun chunk (cmd_recovery.c). */
enum cli_exit cli_chunk_maintenance(struct cli *c);
enum cli_exit cli_chunk_remove(struct cli *c);
/* Of the noun iscsi (cmd_session.c). */
enum cli_exit cli_iscsi_sessions(struct cli *c);
enum cli_exit cli_nfs_clients(struct cli *c);

/* ---- arguments (cli_args.c) ---- */

/* The value of an option, NULL if it was not given; "" for a switch that was. */
const char *cli_option(const struct cli *c, const char *name);
/* 0 and *ret unchanged if not given; prints and returns false if it is not a number in range. */
bool cli_option_u32(const struct cli *c, const char *name, uint32_t min, uint32_t max,
                    uint32_t *ret);
/* "4G", "512M", "1048576": bytes. Prints and returns false if it is none. */
bool cli_parse_size(const char *text, uint64_t *ret);
/* Splits "POOL/VOLUME" into two buffers; prints and returns false if it is not that. */
bool cli_parse_volume(const char *text, char pool[CLI_NAME_ROOM], char volume[CLI_NAME_ROOM]);
enum cli_exit cli_usage_error(const struct cli *c, const char *fmt, ...) PRINTF_FMT(2, 3);
enum cli_exit cli_help(const char *noun); /* all commands, or those of a noun */
const struct cli_command *cli_find(const char *noun, const char *verb);
/* Parses everything after the program's name. Prints what is wrong. */
enum cli_exit cli_parse(struct cli *c, int argc, char **argv);

/* ---- paths (cli_path.c) ---- */

/* "nfs:/SHARE/PATH" among arguments and options becomes the POOL/VOLUME that has the file's bytes.
 * Prints what is wrong. */
enum cli_exit cli_resolve_paths(struct cli *c);

/* ---- calls (cli_call.c) ---- */

/* Calls the leader; prints the error (what failed, what to do) and returns its exit code. On
 * CLI_OK r->msg is the reply. */
enum cli_exit cli_meta_call(struct cli *c, enum meta_method method, const ProtobufCMessage *request,
                            struct rpc_reply *r);
/* The state of the cluster: r->msg is a ClusterStatusReply. */
enum cli_exit cli_cluster_status(struct cli *c, struct rpc_reply *r);

struct cli_chunk {
    uint32_t id;
    char host[128], addr[128];
};

/* Finds a chunk server by id or host; prints what is wrong. */
enum cli_exit cli_chunk_find(struct cli *c, const char *name, struct cli_chunk *ret);
/* Calls that server by itself; the method by its name in proto/chunk.proto. 0 or ERR_*, of which it
 * prints nothing; *r is to be freed either way. */
int cli_chunk_try(const struct cli_chunk *chunk, const char *method,
                  const ProtobufCMessage *request, uint32_t seconds, struct rpc_reply *r);
/* Both, else as cli_meta_call. *ret_id (may be NULL): the server's id. */
enum cli_exit cli_chunk_call(struct cli *c, const char *name, const char *method,
                             const ProtobufCMessage *request, uint32_t seconds, uint32_t *ret_id,
                             struct rpc_reply *r);
/* Prints "zbs-cli: text" for a failed call to `where`. */
enum cli_exit cli_report(int rc, const char *where);
/* Says on standard error if fewer failure domains are up than replicas are wanted, or if a host is
 * named that the cluster does not have: allowed, but seldom meant. Either may be 0 or NULL. */
void cli_warn_placement(struct cli *c, uint32_t replicas, const char *domain, const char *host);

/* ---- output (cli_out.c) ---- */

/* Sorts objects by a string in each, numbers in it by value: "access-2" before "access-10". */
void cli_sort(json_t *rows, const char *key);

enum cli_format { CLI_TEXT, CLI_SIZE, CLI_BOOL, CLI_LIST };
struct cli_column {
    const char *key;   /* in each object */
    const char *title; /* NULL ends the list */
    enum cli_format format;
};

/* Prints an array of objects as a table, or as JSON with --json. Takes the reference. */
enum cli_exit cli_print_table(const struct cli *c, json_t *rows, const struct cli_column *columns);
/* One object: "title  value" lines, or JSON. */
enum cli_exit cli_print_object(const struct cli *c, json_t *object,
                               const struct cli_column *columns);
/* The end of a command that has nothing to print; rc: the outcome of its call, whose reply is freed
 * unless NULL. */
enum cli_exit cli_done(const struct cli *c, enum cli_exit rc, struct rpc_reply *r);
/* Only the JSON form differs: used where the text was printed already. Takes the reference. */
enum cli_exit cli_print_json(json_t *value);
/* "8.0 GiB" */
void cli_format_size(uint64_t bytes, char dst[32]);

#endif
