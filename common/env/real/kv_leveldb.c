/* SPDX-License-Identifier: Apache-2.0
 *
 * The key-value store on LevelDB. Calls block, so they run on other threads: writes one after
 * another on a thread of the store's own (a write may wait for a compaction, and the pool has few
 * threads), reads in the pool.
 *
 * Durability: LevelDB keeps recent writes in a log file and a table in memory; when the table is
 * full it goes on with a new pair and does not sync the old log. After a power failure unsynced
 * writes of the old log could be missing while later ones of the new log survived, which kv.h
 * forbids. So we never let it switch by itself while writes are unsynced: we bound from above what
 * the table can hold, and before the bound reaches its size have it written out, which is
 * synced, before the next write. */
#include <leveldb/c.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/co/sync.h"
#include "common/env/real/real.h"

#define WRITE_BUFFER_BYTES (16u * 1024 * 1024)
#define BLOCK_CACHE_BYTES  (64u * 1024 * 1024)
#define BLOOM_BITS_PER_KEY 10
#define OPEN_FILES_MAX     256
#define SCAN_PAIRS_MAX     256u
#define SCAN_BYTES_MAX     (512u * 1024)
#define CLEAR_KEYS_MAX     4096u
/* Upper bound of what one operation takes in the table in memory: key, value and their header
 * (18), a skip-list node of full height (104), alignment; and the waste in its arena, which is a
 * quarter of each 4 KiB block, so a third on top. */
#define TABLE_OP_BYTES    144u
#define TABLE_SLACK_BYTES 8192u

struct kv_real {
    struct kv base; /* must be first */
    char *path;
    struct real_loop *writer;
    struct co_wg calls;
    leveldb_t *db;
    leveldb_options_t *options;
    leveldb_filterpolicy_t *bloom;
    leveldb_cache_t *cache;
    leveldb_readoptions_t *read_options;
    leveldb_writeoptions_t *write_synced, *write_unsynced;
    /* owned by the writer thread */
    uint64_t table_bytes; /* bound since the table in memory was last known to be empty */
    bool unsynced;        /* writes since the last sync */
};

static struct kv_real *kv_of(struct kv *kv)
{
    return CONTAINER_OF(kv, struct kv_real, base);
}

/* LevelDB reports errors as text: frees it. */
static int kv_error(const struct kv_real *kv, char *text)
{
    int rc;

    if (strncmp(text, "Corruption", 10) == 0)
        rc = ERR_CORRUPT;
    else if (strncmp(text, "IO error: lock ", 15) == 0)
        rc = ERR_BUSY;
    else if (strstr(text, "No space left") != NULL)
        rc = ERR_NOSPACE;
    else
        rc = ERR_IO;
    err_set(rc, "store %s: %s", kv->path, text);
    leveldb_free(text);
    return rc;
}

/* ---- open and close ---- */

static void handles_free(struct kv_real *kv)
{
    if (kv->db != NULL)
        leveldb_close(kv->db);
    leveldb_writeoptions_destroy(kv->write_unsynced);
    leveldb_writeoptions_destroy(kv->write_synced);
    leveldb_readoptions_destroy(kv->read_options);
    leveldb_options_destroy(kv->options);
    leveldb_cache_destroy(kv->cache);
    leveldb_filterpolicy_destroy(kv->bloom);
}

static void options_make(struct kv_real *kv)
{
    kv->bloom = leveldb_filterpolicy_create_bloom(BLOOM_BITS_PER_KEY);
    kv->cache = leveldb_cache_create_lru(BLOCK_CACHE_BYTES);
    kv->options = leveldb_options_create();
    leveldb_options_set_create_if_missing(kv->options, 1);
    /* A damaged log is an error, not a reason to drop what follows it. */
    leveldb_options_set_paranoid_checks(kv->options, 1);
    leveldb_options_set_write_buffer_size(kv->options, WRITE_BUFFER_BYTES);
    leveldb_options_set_max_open_files(kv->options, OPEN_FILES_MAX);
    leveldb_options_set_cache(kv->options, kv->cache);
    leveldb_options_set_filter_policy(kv->options, kv->bloom);
    kv->read_options = leveldb_readoptions_create();
    leveldb_readoptions_set_verify_checksums(kv->read_options, 1);
    kv->write_synced = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(kv->write_synced, 1);
    kv->write_unsynced = leveldb_writeoptions_create();
}

static int open_blocking(void *arg)
{
    struct kv_real *kv = arg;
    char *text = NULL;
    int rc;

    options_make(kv);
    kv->db = leveldb_open(kv->options, kv->path, &text);
    if (text == NULL)
        return 0;
    rc = kv_error(kv, text);
    handles_free(kv);
    return rc;
}

static int close_blocking(void *arg)
{
    handles_free(arg);
    return 0;
}

static co_fn void kv_free(struct kv_real *kv)
{
    if (kv->writer != NULL)
        real_thread_stop(kv->writer);
    mem_free(kv->path);
    mem_free(kv);
}

int real_kv_open(struct env *env, const char *path, struct kv **ret)
{
    struct kv_real *kv = MEM_NEW(struct kv_real);
    int rc;

    kv->base.env = env;
    kv->base.loop = co_loop();
    kv->path = mem_strdup(path);
    co_wg_init(&kv->calls);
    rc = real_thread_start(CONTAINER_OF(env, struct real_env, base), "kv", true, &kv->writer);
    if (rc == 0)
        rc = real_blocking(kv->writer->co, open_blocking, kv);
    if (rc < 0) {
        kv_free(kv);
        return rc;
    }
    *ret = &kv->base;
    return 0;
}

void real_kv_close(struct kv *base)
{
    struct kv_real *kv = kv_of(base);

    co_wg_wait(&kv->calls);
    (void)real_blocking(kv->writer->co, close_blocking, kv);
    kv_free(kv);
}

/* ---- calls ---- */

/* loop: NULL for the pool. */
static co_fn int kv_call(struct kv_real *kv, struct co_loop *loop, int (*fn)(void *arg), void *arg)
{
    int rc;

    co_wg_add(&kv->calls, 1);
    rc = real_blocking(loop, fn, arg);
    co_wg_done(&kv->calls);
    return rc;
}

struct get_job {
    struct kv_real *kv;
    const void *key;
    size_t key_len, val_len;
    void *val;
};

static int get_blocking(void *arg)
{
    struct get_job *job = arg;
    char *text = NULL, *val;

    val = leveldb_get(job->kv->db, job->kv->read_options, job->key, job->key_len, &job->val_len,
                      &text);
    if (text != NULL)
        return kv_error(job->kv, text);
    if (val == NULL)
        return err_set(ERR_NOTFOUND, "store %s: no such key", job->kv->path);
    job->val = mem_alloc(job->val_len + 1);
    memcpy(job->val, val, job->val_len);
    leveldb_free(val);
    return 0;
}

int real_kv_get(struct kv *base, const void *key, size_t key_len, void **ret, size_t *ret_len)
{
    struct get_job job = {.kv = kv_of(base), .key = key, .key_len = key_len};
    int rc = kv_call(job.kv, NULL, get_blocking, &job);

    if (rc < 0)
        return rc;
    *ret = job.val;
    *ret_len = job.val_len;
    return 0;
}

/* ---- writes, on the writer thread ---- */

/* Has the table in memory written out and waits for it: an empty range has nothing to compact. */
static void table_flush(struct kv_real *kv)
{
    static const char nowhere[] = "\xff\xff\xff\xff\xff\xff\xff\xff";

    leveldb_compact_range(kv->db, nowhere, sizeof(nowhere) - 1, nowhere, sizeof(nowhere) - 1);
    kv->table_bytes = 0;
    kv->unsynced = false;
}

static int batch_write(struct kv_real *kv, leveldb_writebatch_t *batch, uint64_t bound, bool sync)
{
    char *text = NULL;

    if (kv->table_bytes + bound > WRITE_BUFFER_BYTES - TABLE_SLACK_BYTES && (kv->unsynced || !sync))
        table_flush(kv);
    leveldb_write(kv->db, sync ? kv->write_synced : kv->write_unsynced, batch, &text);
    if (text != NULL)
        return kv_error(kv, text);
    kv->table_bytes += bound;
    kv->unsynced = !sync;
    return 0;
}

static uint64_t op_bound(size_t key_len, size_t val_len)
{
    uint64_t bytes = key_len + val_len + TABLE_OP_BYTES;

    return bytes + bytes / 3 + 16;
}

struct write_job {
    struct kv_real *kv;
    const struct kv_batch *batch;
    bool sync;
};

static int write_blocking(void *arg)
{
    struct write_job *job = arg;
    leveldb_writebatch_t *batch = leveldb_writebatch_create();
    struct kv_batch_iter it;
    struct kv_batch_item item;
    uint64_t bound = 0;
    int rc;

    kv_batch_iter_init(&it, job->batch);
    while (kv_batch_iter_next(&it, &item)) {
        if (item.is_delete)
            leveldb_writebatch_delete(batch, item.key, item.key_len);
        else
            leveldb_writebatch_put(batch, item.key, item.key_len, item.val, item.val_len);
        bound += op_bound(item.key_len, item.val_len);
    }
    rc = batch_write(job->kv, batch, bound, job->sync);
    leveldb_writebatch_destroy(batch);
    return rc;
}

int real_kv_write(struct kv *base, const struct kv_batch *b, bool sync)
{
    struct write_job job = {.kv = kv_of(base), .batch = b, .sync = sync};

    return kv_call(job.kv, job.kv->writer->co, write_blocking, &job);
}

/* Deletes up to CLEAR_KEYS_MAX keys from the iterator's place. */
static int clear_some(struct kv_real *kv, leveldb_iterator_t *it)
{
    leveldb_writebatch_t *batch = leveldb_writebatch_create();
    uint64_t bound = 0;
    int rc;

    for (uint32_t n = 0; n < CLEAR_KEYS_MAX && leveldb_iter_valid(it); n++) {
        size_t len;
        const char *key = leveldb_iter_key(it, &len);

        leveldb_writebatch_delete(batch, key, len);
        bound += op_bound(len, 0);
        leveldb_iter_next(it);
    }
    rc = batch_write(kv, batch, bound, true);
    leveldb_writebatch_destroy(batch);
    return rc;
}

static int clear_blocking(void *arg)
{
    struct kv_real *kv = arg;
    leveldb_iterator_t *it = leveldb_create_iterator(kv->db, kv->read_options);
    char *text = NULL;
    int rc = 0;

    leveldb_iter_seek_to_first(it);
    do {
        rc = clear_some(kv, it); /* at least once: makes earlier writes durable too */
    } while (rc == 0 && leveldb_iter_valid(it));
    leveldb_iter_get_error(it, &text);
    leveldb_iter_destroy(it);
    if (text != NULL && rc == 0)
        return kv_error(kv, text);
    leveldb_free(text);
    return rc;
}

int real_kv_clear(struct kv *base)
{
    struct kv_real *kv = kv_of(base);

    return kv_call(kv, kv->writer->co, clear_blocking, kv);
}

/* ---- scan ---- */

struct scan {
    struct kv_real *kv;
    struct co_loop *loop; /* one pool thread for the whole scan */
    const void *first, *last;
    size_t first_len, last_len;
    leveldb_iterator_t *it;
    /* one batch: pairs of key and value, one after the other in bytes */
    uint8_t *bytes;
    size_t used, room;
    struct {
        size_t key_len, val_len;
    } pairs[SCAN_PAIRS_MAX];
    uint32_t count;
    bool end;
};

static bool scan_beyond(const struct scan *s, const char *key, size_t len)
{
    int order;

    if (s->last == NULL)
        return false;
    order = memcmp(key, s->last, MIN(len, s->last_len));
    return order > 0 || (order == 0 && len >= s->last_len);
}

static void scan_add(struct scan *s, const char *key, size_t key_len, const char *val,
                     size_t val_len)
{
    size_t need = s->used + key_len + val_len;

    if (need > s->room) {
        s->room = MAX(need, MAX(s->room * 2, (size_t)64 * 1024));
        s->bytes = mem_realloc(s->bytes, s->room);
    }
    memcpy(s->bytes + s->used, key, key_len);
    memcpy(s->bytes + s->used + key_len, val, val_len);
    s->used = need;
    s->pairs[s->count].key_len = key_len;
    s->pairs[s->count++].val_len = val_len;
}

static int scan_batch_blocking(void *arg)
{
    struct scan *s = arg;
    char *text = NULL;

    if (s->it == NULL) { /* an iterator is a snapshot of the moment it was made */
        s->it = leveldb_create_iterator(s->kv->db, s->kv->read_options);
        leveldb_iter_seek(s->it, s->first_len > 0 ? s->first : "", s->first_len);
    }
    s->count = 0;
    s->used = 0;
    while (s->count < SCAN_PAIRS_MAX && s->used < SCAN_BYTES_MAX) {
        size_t key_len, val_len;
        const char *key, *val;

        s->end = !leveldb_iter_valid(s->it);
        if (s->end)
            break;
        key = leveldb_iter_key(s->it, &key_len);
        s->end = scan_beyond(s, key, key_len);
        if (s->end)
            break;
        val = leveldb_iter_value(s->it, &val_len);
        scan_add(s, key, key_len, val, val_len);
        leveldb_iter_next(s->it);
    }
    leveldb_iter_get_error(s->it, &text);
    return text != NULL ? kv_error(s->kv, text) : 0;
}

static int scan_end_blocking(void *arg)
{
    struct scan *s = arg;

    if (s->it != NULL)
        leveldb_iter_destroy(s->it);
    return 0;
}

static co_fn int scan_deliver(struct scan *s, kv_scan_fn fn, void *arg)
{
    const uint8_t *p = s->bytes;
    int rc = 0;

    for (uint32_t i = 0; i < s->count && rc == 0; i++) {
        size_t key_len = s->pairs[i].key_len, val_len = s->pairs[i].val_len;

        rc = fn(arg, p, key_len, p + key_len, val_len);
        p += key_len + val_len;
    }
    return rc;
}

int real_kv_scan(struct kv *base, const void *first, size_t first_len, const void *last,
                 size_t last_len, kv_scan_fn fn, void *arg)
{
    struct scan *s = MEM_NEW(struct scan);
    int rc = 0;

    s->kv = kv_of(base);
    s->loop = real_pool(base->env);
    s->first = first;
    s->first_len = first_len;
    s->last = last;
    s->last_len = last_len;
    co_wg_add(&s->kv->calls, 1); /* between batches too: close waits for the whole scan */
    while (rc == 0 && !s->end) {
        rc = real_blocking(s->loop, scan_batch_blocking, s);
        if (rc == 0)
            rc = scan_deliver(s, fn, arg);
    }
    (void)real_blocking(s->loop, scan_end_blocking, s);
    co_wg_done(&s->kv->calls);
    mem_free(s->bytes);
    mem_free(s);
    return rc;
}
