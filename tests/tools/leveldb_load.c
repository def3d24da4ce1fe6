/* SPDX-License-Identifier: Apache-2.0
 *
 * A store of pages on LevelDB, to compare with: 4 KiB values that don't compress, keyed by page
 * number, every operation one synced batch. What LevelDB would make of `depth` concurrent writers,
 * one group commit, is given to it as one batch. Prints one JSON object.
 *
 *   leveldb_load --dir DIR --rw seqwrite|randwrite [--block BYTES] [--depth N]
 *                [--first PAGE] [--pages N] [--ios N]
 *
 * Writes N operations (all of the pages once by default) into pages FIRST to FIRST + N - 1. */
#include <endian.h>
#include <getopt.h>
#include <inttypes.h>
#include <leveldb/c.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/base/prng.h"
#include "common/base/units.h"

struct store {
    leveldb_t *db;
    leveldb_options_t *options;
    leveldb_writeoptions_t *synced;
};

static void die(char *why)
{
    fprintf(stderr, "leveldb_load: %s\n", why);
    exit(1);
}

static double now_sec(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void store_open(struct store *s, const char *dir)
{
    char *err = NULL;

    s->options = leveldb_options_create();
    leveldb_options_set_create_if_missing(s->options, 1);
    leveldb_options_set_compression(s->options, leveldb_no_compression);
    s->synced = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(s->synced, 1);
    s->db = leveldb_open(s->options, dir, &err);
    if (err != NULL)
        die(err);
}

static void store_close(struct store *s)
{
    leveldb_close(s->db);
    leveldb_writeoptions_destroy(s->synced);
    leveldb_options_destroy(s->options);
}

static void store_write(struct store *s, leveldb_writebatch_t *batch)
{
    char *err = NULL;

    leveldb_write(s->db, s->synced, batch, &err);
    if (err != NULL)
        die(err);
    leveldb_writebatch_clear(batch);
}

struct work {
    const char *dir;
    bool random;
    uint64_t block_pages, depth, first, pages, ios;
};

static double work_run(const struct work *w, struct store *s)
{
    leveldb_writebatch_t *batch = leveldb_writebatch_create();
    static uint8_t value[PAGE_BYTES];
    double begin = now_sec();
    struct prng prng;

    prng_init(&prng, 1);
    prng_fill(&prng, value, sizeof(value));
    for (uint64_t i = 0; i < w->ios; i++) {
        uint64_t blocks = w->pages / w->block_pages;
        uint64_t at = (w->random ? prng_below(&prng, blocks) : i % blocks) * w->block_pages;

        for (uint64_t k = 0; k < w->block_pages; k++) {
            uint64_t key = htobe64(w->first + at + k);

            memcpy(value, &i, sizeof(i));
            leveldb_writebatch_put(batch, (const char *)&key, sizeof(key), (const char *)value,
                                   sizeof(value));
        }
        if ((i + 1) % w->depth == 0 || i + 1 == w->ios)
            store_write(s, batch);
    }
    leveldb_writebatch_destroy(batch);
    return now_sec() - begin;
}

static bool options_parse(int argc, char **argv, struct work *w)
{
    static const struct option options[] = {
        {"dir", 1, NULL, 'd'},   {"rw", 1, NULL, 'w'},
        {"block", 1, NULL, 'b'}, {"depth", 1, NULL, 'q'},
        {"first", 1, NULL, 'f'}, {"pages", 1, NULL, 'p'},
        {"ios", 1, NULL, 'i'},   {0},
    };
    int o;

    *w = (struct work){.block_pages = 1, .depth = 1, .pages = 1};
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        const char *text = optarg != NULL ? optarg : "";
        uint64_t n = strtoull(text, NULL, 10);

        if (o == 'd')
            w->dir = text;
        else if (o == 'w')
            w->random = strcmp(text, "randwrite") == 0;
        else if (o == 'b')
            w->block_pages = n / PAGE_BYTES;
        else if (o == 'q')
            w->depth = n;
        else if (o == 'f')
            w->first = n;
        else if (o == 'p')
            w->pages = n;
        else if (o == 'i')
            w->ios = n;
        else
            return false;
    }
    if (w->block_pages == 0 || w->depth == 0 || w->pages < w->block_pages || w->dir == NULL)
        return false;
    if (w->ios == 0)
        w->ios = w->pages / w->block_pages;
    return true;
}

int main(int argc, char **argv)
{
    struct store s;
    struct work w;
    double took;

    if (!options_parse(argc, argv, &w)) {
        fprintf(stderr, "usage: leveldb_load --dir DIR --rw seqwrite|randwrite [--block BYTES] "
                        "[--depth N] [--first PAGE] [--pages N] [--ios N]\n");
        return 2;
    }
    store_open(&s, w.dir);
    took = work_run(&w, &s);
    store_close(&s);
    printf("{\"ios\": %" PRIu64 ", \"seconds\": %.3f, \"iops\": %.1f, \"mib_s\": %.2f, "
           "\"bytes\": %" PRIu64 "}\n",
           w.ios, took, (double)w.ios / took,
           (double)(w.ios * w.block_pages) * PAGE_BYTES / took / 1048576,
           w.ios * w.block_pages * PAGE_BYTES);
    return 0;
}
