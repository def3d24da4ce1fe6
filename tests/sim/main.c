/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-sim: seeds of the simulated cluster. Each seed: start three hosts, run clients while faults
 * strike (safety), then end all faults and demand progress: every replica in-sync again, all equal,
 * everything acknowledged readable, the history linearizable (liveness and the final word).
 *
 *   zbs-sim [--from S] [--seeds N] [--seconds T] [--mutation NAME] [--trace] [--twice]
 *           [--watch SECTOR] [--batch] [--print] [--scenario FILE]
 *
 * --print writes the scenario of a seed instead of running it; --scenario runs one that is written
 * down (scenario.h).
 * --watch notes what clients did with a sector in the trace; --batch is for the program that runs
 * many of these (tests/sim/batch.py): a line for each seed, then counts to be added up.
 *
 * One line per failing seed, with how to run it again; exit 1 if any failed. --twice runs each seed
 * two times and demands the same trace. With --mutation a rule is broken on purpose: then the first
 * seed that finds it ends the run with exit 0, and finding nothing is the failure. */
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/mutate.h"
#include "tests/sim/seed.h"

struct totals {
    uint64_t ops, passed, failed, searched, undecided;
    struct fault_stats faults;
    struct workload_stats work;
    struct files_stats files;
};

static void add(struct totals *t, const struct seed_result *r)
{
    t->ops += r->ops;
    for (int f = 0; f < FAULTS; f++) {
        t->faults.count[f] += r->faults.count[f];
        for (int w = 0; w < WHOMS; w++)
            for (int p = 0; p < PHASES; p++)
                t->faults.cover[f][w][p] += r->faults.cover[f][w][p];
    }
    t->work.reads += r->work.reads;
    t->work.writes += r->work.writes;
    t->work.zeroes += r->work.zeroes;
    t->work.compares += r->work.compares;
    t->work.unknown += r->work.unknown;
    t->work.failed_reads += r->work.failed_reads;
    t->work.moves += r->work.moves;
    t->work.no_space += r->work.no_space;
    t->files.names += r->files.names;
    t->files.reads += r->files.reads;
    t->files.writes += r->files.writes;
    t->files.truncations += r->files.truncations;
    t->files.snapshots += r->files.snapshots;
    t->files.repeats += r->files.repeats;
    t->searched += r->searched;
    t->undecided += r->undecided;
}

/* For the program that adds up many processes: "count NAME N". */
static void print_counts(const struct totals *t)
{
    printf("count op writes %" PRIu64 "\ncount op reads %" PRIu64 "\n", t->work.writes,
           t->work.reads);
    printf("count op zeroes and discards %" PRIu64 "\n", t->work.zeroes);
    printf("count op compare-and-writes %" PRIu64 "\n", t->work.compares);
    printf("count op of unknown outcome %" PRIu64 "\n", t->work.unknown);
    printf("count op refused for want of space %" PRIu64 "\n", t->work.no_space);
    printf("count op leases moved %" PRIu64 "\n", t->work.moves);
    printf("count op file names %" PRIu64 "\ncount op file reads %" PRIu64 "\n", t->files.names,
           t->files.reads);
    printf("count op file writes %" PRIu64 "\ncount op file truncations %" PRIu64 "\n",
           t->files.writes, t->files.truncations);
    printf("count op file snapshots %" PRIu64 "\ncount op file requests repeated %" PRIu64 "\n",
           t->files.snapshots, t->files.repeats);
    printf("count check sectors decided by search %" PRIu64 "\n", t->searched);
    printf("count check sectors undecided %" PRIu64 "\n", t->undecided);
    for (int f = 0; f < FAULTS; f++)
        printf("count fault %s %u\n", fault_name((enum fault)f), t->faults.count[f]);
    for (int f = 0; f < FAULTS; f++)
        for (int w = 0; w < WHOMS; w++)
            for (int p = 0; p < PHASES; p++)
                printf("count cover %s %s %s %u\n", fault_name((enum fault)f),
                       whom_name((enum whom)w), phase_name((enum phase)p),
                       t->faults.cover[f][w][p]);
}

struct options {
    uint64_t from, seeds, seconds, watch;
    const char *mutation, *scenario;
    bool trace, twice, verbose, batch, print;
};

static struct options parse(int argc, char **argv)
{
    static const struct option longs[] = {
        {"from", 1, NULL, 'f'},     {"seeds", 1, NULL, 'n'}, {"seconds", 1, NULL, 's'},
        {"mutation", 1, NULL, 'm'}, {"trace", 0, NULL, 't'}, {"twice", 0, NULL, '2'},
        {"verbose", 0, NULL, 'v'},  {"batch", 0, NULL, 'b'}, {"print", 0, NULL, 'p'},
        {"scenario", 1, NULL, 'c'}, {"watch", 1, NULL, 'w'}, {0},
    };
    struct options o = {.from = 1, .seeds = 1, .seconds = 25, .watch = UINT64_MAX};
    int k;

    while ((k = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (k) {
        case 'f':
            o.from = strtoull(optarg, NULL, 10);
            break;
        case 'n':
            o.seeds = strtoull(optarg, NULL, 10);
            break;
        case 's':
            o.seconds = strtoull(optarg, NULL, 10);
            break;
        case 'm':
            o.mutation = optarg;
            break;
        case 't':
            o.trace = true;
            break;
        case '2':
            o.twice = true;
            break;
        case 'w':
            o.watch = strtoull(optarg, NULL, 10);
            break;
        case 'p':
            o.print = true;
            break;
        case 'c':
            o.scenario = optarg;
            break;
        case 'b':
            o.batch = true;
            break;
        case 'v':
            o.verbose = true;
            break;
        default:
            exit(2);
        }
    }
    return o;
}

static void set_mutation(const char *name)
{
    if (!name)
        return;
#ifdef ZBS_MUTATE
    mutation_active = mutation_by_name(name);
    if (mutation_active != MUT_NONE)
        return;
    fprintf(stderr, "zbs-sim: unknown mutation '%s'\n", name);
#else
    fprintf(stderr, "zbs-sim: built without mutations: use MODE=debug or asan\n");
#endif
    exit(2);
}

/* Runs one scenario, tells how it went, and adds it up. False if it failed. */
static bool run_one(const struct scenario *s, const struct options *o, struct totals *t)
{
    struct seed_result r = seed_run(s, o->trace, o->watch);

    if (o->twice && !r.failure[0] && seed_run(s, false, o->watch).hash != r.hash)
        snprintf(r.failure, sizeof(r.failure), "the second run took another course");
    add(t, &r);
    if (o->verbose)
        printf("seed %" PRIu64 ": %" PRIu64 " operations in %.1f virtual seconds, trace %016" PRIx64
               "%s%s\n",
               s->seed, r.ops, (double)r.virtual_time / 1e9, r.hash, r.failure[0] ? ": " : "",
               r.failure);
    if (r.failure[0])
        printf("seed %" PRIu64 " failed: %s\n", s->seed, r.failure);
    else if (o->batch)
        printf("seed %" PRIu64 " passed\n", s->seed);
    fflush(stdout);
    t->failed += r.failure[0] != 0;
    t->passed += r.failure[0] == 0;
    return r.failure[0] == 0;
}

static bool run_file(const struct options *o, struct totals *t)
{
    FILE *f = fopen(o->scenario, "r");
    struct scenario *s = MEM_NEW(struct scenario);
    bool ok = f && scenario_read(s, f);

    if (f)
        fclose(f);
    if (!ok) {
        fprintf(stderr, "zbs-sim: no scenario in %s\n", o->scenario);
        exit(2);
    }
    ok = run_one(s, o, t);
    mem_free(s);
    return ok;
}

static bool run_seeds(const struct options *o, struct totals *t)
{
    struct scenario *s = MEM_NEW(struct scenario);
    bool ok = true;

    for (uint64_t seed = o->from; seed < o->from + o->seeds; seed++) {
        scenario_draw(s, seed, (nsec_t)o->seconds * NSEC_PER_SEC);
        if (o->print)
            scenario_print(s, stdout);
        else
            ok &= run_one(s, o, t);
        if (o->mutation && !ok) {
            printf("found after %" PRIu64 " seeds\n", seed - o->from + 1);
            break;
        }
    }
    mem_free(s);
    return ok;
}

int main(int argc, char **argv)
{
    struct options o = parse(argc, argv);
    struct totals t = {0};
    bool ok;

    (void)mallopt(M_MMAP_THRESHOLD, 64 << 20); /* worlds come and go: keep their memory */
    (void)mallopt(M_TRIM_THRESHOLD, 512 << 20);
    set_mutation(o.mutation);
    ok = o.scenario ? run_file(&o, &t) : run_seeds(&o, &t);
    if (o.print)
        return 0;
    if (o.batch)
        print_counts(&t);
    printf("%" PRIu64 " passed, %" PRIu64 " failed\n", t.passed, t.failed);
    return ok == (o.mutation == NULL) ? 0 : 1;
}
