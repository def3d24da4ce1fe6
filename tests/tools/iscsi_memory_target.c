/* SPDX-License-Identifier: Apache-2.0
 *
 * The iSCSI target over memory, without a cluster: for conformance suites, fuzzing by hand and
 * measuring the front end alone.
 *
 *     iscsi_memory_target [-a ADDR:PORT] [-n IQN] [-s SIZE_MIB] [-l LUNS] [-u USER:SECRET]
 *                         [-i INITIATOR] [-r]
 *
 * -r: the last unit is read-only. Prints one line, "iscsi://ADDR:PORT/IQN/0", when it serves. Ends
 * at SIGTERM or SIGINT. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "access/iscsi/iscsi.h"
#include "common/base/mem.h"
#include "common/env/env_real.h"

#define LUNS_MAX 64

struct options {
    char *addr, *iqn, *user, *secret, *initiator;
    uint64_t size_bytes;
    uint32_t luns;
    bool read_only;
};

static co_fn int open_backend(void *arg, uint64_t volume_id, struct block_backend **ret)
{
    struct options *o = arg;

    *ret = block_backend_mem_new(volume_id, o->size_bytes);
    block_backend_mem_protect(*ret, o->read_only && volume_id == o->luns);
    return 0;
}

static void export_all(struct iscsi_target *t, struct options *o)
{
    Zbs__Meta__Lun luns[LUNS_MAX], *lun_ptrs[LUNS_MAX];
    Zbs__Meta__Target target = ZBS__META__TARGET__INIT, *targets[1] = {&target};
    Zbs__Meta__ExportsGetReply exports = ZBS__META__EXPORTS_GET_REPLY__INIT;

    for (uint32_t i = 0; i < o->luns; i++) {
        zbs__meta__lun__init(&luns[i]);
        luns[i].lun = i;
        luns[i].volume_id = i + 1;
        lun_ptrs[i] = &luns[i];
    }
    target.iqn = o->iqn;
    target.n_luns = o->luns;
    target.luns = lun_ptrs;
    target.chap_user = o->user;
    target.chap_secret = o->secret;
    target.n_initiators = o->initiator != NULL;
    target.initiators = &o->initiator;
    exports.n_targets = 1;
    exports.targets = targets;
    iscsi_target_exports_update(t, &exports);
}

static co_fn int serve(void *arg)
{
    struct options *o = arg;
    struct iscsi_conf conf = {
        .listen = o->addr, .open = open_backend, .arg = o, .reservations = true};
    struct iscsi_target *t;
    int rc = iscsi_target_start(&conf, &t);

    if (rc < 0) {
        fprintf(stderr, "%s\n", err_text(rc));
        return rc;
    }
    export_all(t, o);
    printf("iscsi://%s/%s/0\n", iscsi_target_addr(t), o->iqn);
    fflush(stdout);
    while (!co_canceled())
        co_sleep(3600 * NSEC_PER_SEC);
    iscsi_target_stop(t);
    return 0;
}

int main(int argc, char **argv)
{
    static char default_addr[] = "127.0.0.1:0", default_iqn[] = "iqn.2024-01.example:memory",
                none[] = "";
    struct options o = {.addr = default_addr,
                        .iqn = default_iqn,
                        .user = none,
                        .secret = none,
                        .size_bytes = 1024u * 1024 * 1024,
                        .luns = 1};
    struct env_real_conf conf = {.name = "iscsi_memory_target", .handle_signals = true};
    int opt;

    while ((opt = getopt(argc, argv, "a:n:s:l:u:i:r")) != -1) {
        switch (opt) {
        case 'a':
            o.addr = optarg;
            break;
        case 'n':
            o.iqn = optarg;
            break;
        case 's':
            o.size_bytes = strtoull(optarg, NULL, 10) * 1024 * 1024;
            break;
        case 'l':
            o.luns = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'u':
            o.user = optarg;
            o.secret = strchr(optarg, ':');
            if (o.secret == NULL)
                return 2;
            *o.secret++ = '\0';
            break;
        case 'r':
            o.read_only = true;
            break;
        case 'i':
            o.initiator = optarg;
            break;
        default:
            return 2;
        }
    }
    if (o.luns < 1 || o.luns > LUNS_MAX || o.size_bytes == 0)
        return 2;
    return env_real_run(&conf, serve, &o) < 0;
}
