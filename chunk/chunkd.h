/* SPDX-License-Identifier: Apache-2.0
 *
 * The chunk server as a function of its environment and configuration: main.c and the simulator
 * both enter here. */
#ifndef ZBS_CHUNK_CHUNKD_H
#define ZBS_CHUNK_CHUNKD_H

#include "common/co/co.h"

#define CHUNKD_DISKS_MAX 64

/* When a disk is taken out of service (health.c); 0: the default. */
struct chunkd_health {
    uint32_t errors;       /* failed requests within a minute; 8 */
    nsec_t hung;           /* a request without an answer; 10 s */
    uint32_t slow_factor;  /* against the median of its peers; 8 */
    nsec_t slow_floor;     /* never below this; 50 ms */
    uint32_t slow_windows; /* of a second, one after the other; 10 */
};

struct chunkd_conf {
    const char *listen;      /* RPC address */
    const char *listen_unix; /* "unix:…" or NULL */
    const char *data_dir;    /* lock file */
    const char *meta; /* addresses of the meta servers, comma separated; "" runs alone (tests) */
    const char *host, *rack, *zone;
    const char *disks[CHUNKD_DISKS_MAX]; /* devices; unformatted ones are refused */
    uint32_t n_disks;
    uint64_t memory_bytes;      /* 0: 1 GiB */
    uint32_t flush_delay_ms;    /* of quiet, before journaled pages go home; 0: 1000 */
    uint32_t merge_us;          /* engine_conf.merge_us */
    uint32_t readahead;         /* engine_conf.readahead */
    uint64_t drain_bytes_per_s; /* all workers together; 0: whatever requests leave */
    uint64_t scrub_bytes_per_s; /* all workers together; 0: only when asked */
    nsec_t scrub_interval;      /* from the start of a round to that of the next */
    struct chunkd_health health;
    void (*ready)(void *arg, const char *addr); /* serving at addr; may be NULL */
    void *ready_arg;
};

struct super_block;
struct chunk_format_conf {
    uint32_t workers;        /* 1 .. 64, the same on all disks of a server; 0: 1 */
    uint64_t journal_bytes;  /* per worker; 0: a default from the device's size */
    bool force;              /* also if it carries data */
    uint8_t server_uuid[16]; /* of the chunk server; all zero: a new one */
    uint32_t guests;         /* also places for the journals of so many other devices */
    /* The device that has room for this one's journals, of the same server, which it has the size
     * of the journals and the number of workers from (workers 0: no matter). NULL: its own. */
    const char *journal_on;
    /* Its superblock in a server that is running and keeps it open; it is changed, too. NULL: it is
     * nobody's at the moment. */
    struct super_block *journal_super;
};

/* Writes an empty superblock, journals and metadata to a device. ERR_EXISTS names what it carries
 * unless forced; ERR_TOO_LARGE/ERR_INVAL if the size does not fit. */
co_fn int chunk_format(const char *path, const struct chunk_format_conf *conf) MUST_CHECK;

/* Runs until cancelled: 0; or a start-up error. A coroutine's body. */
co_fn int chunkd_main(const struct chunkd_conf *conf);

#endif
