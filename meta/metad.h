/* SPDX-License-Identifier: Apache-2.0
 *
 * The meta server as a function of its environment and configuration (design section 4): main.c
 * and the simulator both enter here. */
#ifndef ZBS_META_METAD_H
#define ZBS_META_METAD_H

#include "common/co/co.h"

struct metad_conf {
    const char *name;       /* unique among meta servers: "meta-1" */
    const char *listen;     /* RPC address */
    const char *data_dir;   /* LevelDB and small state */
    const char *zookeeper;  /* connect string */
    const char *zk_root;    /* "/zbs" */
    const char *peers;      /* RPC addresses of all configured meta servers, comma separated */
    uint32_t zk_session_ms; /* 0: 1500; how soon a silent ZooKeeper server is given up */
    /* PROTOCOL 12; 0: the default in brackets */
    uint32_t beat_ms;        /* leader's heartbeat [200] */
    uint32_t takeover_ms;    /* silence before a standby takes over [800] */
    uint32_t authority_ms;   /* T_auth [800] */
    uint32_t session_ttl_ms; /* of access sessions [1000] */
    uint32_t chunk_dead_ms;  /* silence before a chunk server counts as dead [1000] */
    uint32_t log_keep;       /* entries kept beyond what must be [1000] */
    /* called once when serving (leader or standby) at addr; may be NULL */
    void (*ready)(void *arg, const char *addr);
    void *ready_arg;
};

/* Runs until cancelled: 0; or a start-up error. A coroutine's body. */
co_fn int metad_main(const struct metad_conf *conf);

#endif
