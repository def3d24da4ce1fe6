/* SPDX-License-Identifier: Apache-2.0
 *
 * The only door to the world (design section 4): clock, randomness, threads, disks, network,
 * coordination, key-value store, process. Two implementations stand behind it: env_real (libev,
 * io_uring, sockets, ZooKeeper, LevelDB) and env_sim (virtual time, seeded, with faults). All
 * functions act on the environment of the running loop, so code above needs no handle to it and
 * several simulated processes can share one real one. Called from coroutines only, unless said
 * otherwise. */
#ifndef ZBS_ENV_ENV_H
#define ZBS_ENV_ENV_H

#include <sys/uio.h>
#include "common/co/co.h"

/* ---- randomness, wall clock, process ---- */

uint64_t env_random(void); /* uniformly distributed; from the seed in the simulator */
/* Fills with cryptographically strong bytes (keys, challenges); seeded in the simulator. */
void env_random_bytes(void *dst, size_t len);
int64_t env_wall_ns(void); /* UTC, for display and logs only: may jump */

/* Stops this process at once because going on would risk data (a lost invariant that is not a
 * bug: a device that lies, a foreign superblock). Logs the reason. Does not return. */
NORETURN void env_halt(const char *fmt, ...) PRINTF_FMT(1, 2);

/* Holds an advisory lock on a file for as long as this process lives: proof for the next
 * incarnation that this one is dead. ERR_BUSY if another process holds it. */
co_fn int env_lock_file(const char *path) MUST_CHECK;

/* Small files (identity, state of a few KiB). read: *ret is NUL-terminated mem_ memory.
 * write: atomic and durable (temporary file, fsync, rename, fsync of the folder). */
co_fn int env_file_read(const char *path, char **ret, size_t *ret_len) MUST_CHECK;
co_fn int env_file_write(const char *path, const void *data, size_t len) MUST_CHECK;

/* ---- threads ---- */

/* A new thread with its own loop, named in logs. Ends when env_thread_stop is called for it and
 * its coroutines have left. */
co_fn int env_thread_start(const char *name, struct co_loop **ret) MUST_CHECK;
co_fn void env_thread_stop(struct co_loop *loop);

/* A loop of the pool for calls that block (LevelDB, name resolution, fsync of files): enter it,
 * call, enter home. One of a few threads, chosen in turn. */
struct co_loop *env_pool(void);

/* ---- disks: raw block devices or preallocated files, O_DIRECT ---- */

struct disk; /* belongs to the loop that opened it: each worker opens its own handle */

enum disk_flags {
    DISK_READ_ONLY = 1,
    DISK_EXCLUSIVE = 2, /* O_EXCL on block devices; a lock on files: ERR_BUSY if in use */
};

struct disk_info {
    uint64_t size_bytes;
    uint32_t block_bytes; /* smallest unit that can be addressed (logical sector) */
    /* What the device writes in one piece: a smaller write may damage its neighbours when power
     * fails. At least block_bytes. */
    uint32_t physical_bytes;
    bool is_file;
    bool rotational;
    bool discard; /* disk_discard is supported */
    char model[64];
};

co_fn int disk_open(const char *path, unsigned flags, struct disk **ret) MUST_CHECK;
co_fn void disk_close(struct disk *d); /* waits for what is in flight */
const struct disk_info *disk_info(const struct disk *d);

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD };

/* One request, in the caller's memory until it completes. Memory is aligned to 4096; offsets and
 * lengths of reads and writes are multiples of block_bytes, of discards of 4096. Completion order
 * is arbitrary; a write is durable only if `durable` was set (FUA, or write + flush: PROTOCOL 9.5)
 * or a flush submitted after its completion completed. */
struct disk_req {
    enum disk_op op;
    bool durable;
    bool urgent; /* leaves at once, with what was queued before: somebody waits for the device */
    struct disk *disk;
    uint64_t off;
    uint64_t len;            /* DISCARD only; reads and writes: sum of iov */
    const struct iovec *iov; /* at most 1024 entries */
    int iov_count;
    /* result */
    struct co_wait wait;
    int rc; /* 0, ERR_IO (short transfers are retried inside) */
    nsec_t submitted, latency_ns;
    struct list waited; /* of the handle: until disk_wait has returned */
    void *priv[5];
};

/* Queues the request; it leaves for the kernel with all others queued in this turn of the loop,
 * unless it is urgent. */
void disk_submit(struct disk_req *r);
/* Waits, uninterruptibly, for one submitted request. */
co_fn int disk_wait(struct disk_req *r) MUST_CHECK;

/* Submit and wait. */
co_fn int disk_read(struct disk *d, void *dst, size_t len, uint64_t off) MUST_CHECK;
co_fn int disk_readv(struct disk *d, const struct iovec *iov, int n, uint64_t off) MUST_CHECK;
co_fn int disk_write(struct disk *d, const void *src, size_t len, uint64_t off,
                     bool durable) MUST_CHECK;
co_fn int disk_writev(struct disk *d, const struct iovec *iov, int n, uint64_t off,
                      bool durable) MUST_CHECK;
co_fn int disk_flush(struct disk *d) MUST_CHECK;
/* The range reads as anything until written again. May be slow: runs in the pool. */
co_fn int disk_discard(struct disk *d, uint64_t off, uint64_t len) MUST_CHECK;

/* ---- what a device did lately, for whoever judges it (disk_window.c) ---- */

enum disk_window_class { DISK_WINDOW_READS, DISK_WINDOW_DURABLE, DISK_WINDOW_CLASSES };
#define DISK_WINDOW_BUCKETS 104u
struct disk_window {
    uint32_t errors;                     /* requests of any kind that failed */
    uint32_t count[DISK_WINDOW_CLASSES]; /* that succeeded: reads; durable writes and flushes */
    uint32_t hist[DISK_WINDOW_CLASSES][DISK_WINDOW_BUCKETS]; /* of their latencies */
    nsec_t oldest; /* age of the oldest request that the device has not answered; 0: none */
};
/* Of one handle, since the last time. */
void disk_window_take(struct disk *d, struct disk_window *ret);
void disk_window_add(struct disk_window *to, const struct disk_window *from);
/* At most a fifth too high; 0 if there was none. */
nsec_t disk_window_p99(const struct disk_window *w, enum disk_window_class c);
void disk_window_count(struct disk_window *w, const struct disk_req *r); /* for env.c */

/* What a device carries, for a refusal to format it: 0 if blank (no known signature, first and
 * last MiB zero, not in use), ERR_EXISTS with a text that names what was found. */
co_fn int disk_probe(const char *path) MUST_CHECK;

/* ---- network: streams ---- */

/* Addresses: "127.0.0.1:9000", "[::1]:9000", "unix:/run/zbs/chunk.sock". Numeric only. A port of
 * 0 asks for a free one. */
#define NET_ADDR_MAX 128

struct net_listener;
struct net_conn; /* belongs to one loop; at most one reading and one writing coroutine at a time */

co_fn int net_listen(const char *addr, struct net_listener **ret) MUST_CHECK;
const char *net_listener_addr(const struct net_listener *l); /* with the real port */
/* Interruptible. Peer's address through net_peer. */
co_fn int net_accept(struct net_listener *l, struct net_conn **ret) MUST_CHECK;
void net_listener_close(struct net_listener *l);

/* Interruptible; ERR_UNREACHABLE, ERR_TIMEOUT, ERR_CANCELED. */
co_fn int net_connect(const char *addr, struct net_conn **ret) MUST_CHECK;
/* The same from an address of this host, as the peer will see it; its port does not count. */
co_fn int net_connect_from(const char *from, const char *addr, struct net_conn **ret) MUST_CHECK;

/* Reads at least one byte, at most the iov's sum. Bytes read, or ERR_CLOSED (also at a clean
 * end), ERR_TIMEOUT, ERR_CANCELED. Interruptible. */
co_fn ssize_t net_readv(struct net_conn *c, const struct iovec *iov, int n) MUST_CHECK;
/* Exactly len bytes: 0 or an error; a clean end before the first byte is ERR_CLOSED with the text
 * "end of stream". After an error in the middle the connection is useless: close it. */
co_fn int net_read_full(struct net_conn *c, void *dst, size_t len) MUST_CHECK;
/* Everything or an error; after an error the connection is useless. Interruptible. The iov array
 * may be changed by the call. */
co_fn int net_writev_full(struct net_conn *c, struct iovec *iov, int n) MUST_CHECK;
/* Is at least one byte there to read without waiting? */
bool net_readable(struct net_conn *c);

const char *net_peer(const struct net_conn *c); /* remote address, for logs and access lists */
const char *net_local(const struct net_conn *c);
/* Ends both directions: a reader or writer suspended in it gets ERR_CLOSED. Any coroutine of the
 * loop may call it; idempotent. */
void net_shutdown(struct net_conn *c);
void net_close(struct net_conn *c); /* nobody may be suspended in it; frees */

/* ---- streams through shared memory ----
 *
 * Both ends of a stream on one host may agree, by whatever they say on it, that its bytes go
 * through memory from then on: the side that connected calls net_share, the other net_share_take,
 * with nothing on its way between them. The stream behaves as before, its end included: the socket
 * stays open underneath as the sign of life. */

/* Is this a stream whose ends may share memory: on one host, and the peer as privileged as we are
 * or more? */
bool net_can_share(struct net_conn *c);
/* Interruptible. After an error the connection is useless. */
co_fn int net_share(struct net_conn *c) MUST_CHECK;
co_fn int net_share_take(struct net_conn *c) MUST_CHECK;

/* The peer's buffers (common/base/buf.h, buf_arena_set), mapped here until net_close. The peer may
 * change them at any time. */
struct net_arena {
    uint8_t *base; /* page-aligned */
    uint64_t bytes;
};
/* On the side that took: false if the peer has none. */
bool net_peer_arena(struct net_conn *c, struct net_arena *ret);
/* Waits until the peer has closed its end of a shared stream that was shut down here: then nobody
 * there touches our buffers on its account any more. Interruptible. */
co_fn int net_wait_end(struct net_conn *c) MUST_CHECK;

/* Hands an idle connection to another loop: call on its present loop, nobody suspended in it;
 * use it only on the target afterwards. */
void net_conn_move(struct net_conn *c, struct co_loop *target);

/* ---- network: datagrams ----
 *
 * UDP. Any of them may be lost, come twice, or after one that was sent later; what comes is whole.
 */
#define NET_DATAGRAM_MAX 65507u /* bytes of one, over IPv4 */

struct net_dgram; /* a socket; belongs to one loop; at most one receiving coroutine at a time */

/* The two ends of a datagram's way: an answer goes back from where the question came to, also if
 * the socket is open at all addresses of the host. */
struct net_way {
    char local[NET_ADDR_MAX]; /* "": as the system chooses */
    char peer[NET_ADDR_MAX];
};

/* No UNIX sockets. ERR_BUSY: another program has the port. */
co_fn int net_dgram_open(const char *addr, struct net_dgram **ret) MUST_CHECK;
const char *net_dgram_addr(const struct net_dgram *d); /* with the real port */
/* Bytes of the next one, of which no more than len are kept. Interruptible. */
co_fn ssize_t net_dgram_recv(struct net_dgram *d, void *dst, size_t len,
                             struct net_way *ret) MUST_CHECK;
/* Does not suspend; one that can't leave now is lost like others are on their way. ERR_INVAL: the
 * address is none. */
int net_dgram_send(struct net_dgram *d, const void *src, size_t len, const struct net_way *way);
void net_dgram_close(struct net_dgram *d); /* nobody may be suspended in it; frees */

#endif
