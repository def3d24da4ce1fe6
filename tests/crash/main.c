/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-crash: every crash point of recorded workloads of the storage engine.
 *
 *   zbs-crash [--workload NAME] [--seed S] [--from K] [--count N] [--outcome X] [--draws D]
 *             [--damage M] [--step P] [--again A] [--nested B] [--jobs J] [--verbose]
 *
 * A workload runs once on a simulated device that records all its writes. Then power is cut just
 * before each completion of a write or flush, with every outcome for the writes that were not
 * durable: lost, kept, subset (each of them kept, lost or cut short), torn (sector by sector). An
 * engine is started on what is left and compared with what was acknowledged at that moment, unless
 * a process did that before with the same device and the same acknowledgements. One
 * check in A goes on, writes more, is cut again and started once more; one in B is itself
 * recorded from its start on and cut at all points of that, too (0: none).
 *
 * With --damage M pages are damaged instead, all of them in turn, at M moments of each workload.
 * One line per workload; each failure says how to repeat it. Exit 1 if anything failed. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "common/base/log.h"
#include "tests/crash/crash.h"

#define JOBS_MAX     64u
#define FAILURES_MAX 20u /* of one workload: then it ends */

struct options {
    struct crash_conf conf;
    const char *workload;
};

static void usage(void)
{
    fprintf(
        stderr,
        "usage: zbs-crash [--workload NAME] [--seed S] [--from K] [--count N]\n"
        "                 [--outcome lost|kept|subset|torn] [--draws D] [--damage M] [--step P]\n"
        "                 [--again A] [--nested B] [--jobs J] [--verbose]\nworkloads:");
    for (uint32_t i = 0; i < n_workloads; i++)
        fprintf(stderr, " %s", workloads[i].name);
    fprintf(stderr, "\n");
    exit(2);
}

static struct options parse(int argc, char **argv)
{
    static const struct option longs[] = {
        {"workload", 1, NULL, 'w'},
        {"seed", 1, NULL, 's'},
        {"from", 1, NULL, 'f'},
        {"count", 1, NULL, 'n'},
        {"outcome", 1, NULL, 'o'},
        {"draws", 1, NULL, 'd'},
        {"again", 1, NULL, 'a'},
        {"nested", 1, NULL, 'r'},
        {"jobs", 1, NULL, 'j'},
        {"damage", 1, NULL, 'D'},
        {"step", 1, NULL, 'p'},
        {"verbose", 0, NULL, 'v'},
        {0},
    };
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct options o = {.conf = {.seed = 1,
                                 .outcome = -1,
                                 .draws = 1,
                                 .again_every = 8,
                                 .nested_every = 600,
                                 .step = 1,
                                 .jobs = (uint32_t)MIN(MAX(cpus, 1), (long)JOBS_MAX)}};
    int k;

    while ((k = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        uint64_t n = optarg ? strtoull(optarg, NULL, 10) : 0;

        switch (k) {
        case 'w':
            o.workload = optarg;
            break;
        case 's':
            o.conf.seed = n;
            break;
        case 'f':
            o.conf.from = n;
            break;
        case 'n':
            o.conf.count = n;
            break;
        case 'o':
            o.conf.outcome = outcome_by_name(optarg);
            if (o.conf.outcome < 0)
                usage();
            break;
        case 'd':
            o.conf.draws = (uint32_t)n;
            break;
        case 'a':
            o.conf.again_every = (uint32_t)n;
            break;
        case 'r':
            o.conf.nested_every = (uint32_t)n;
            break;
        case 'j':
            o.conf.jobs = (uint32_t)MIN(MAX(n, 1u), JOBS_MAX);
            break;
        case 'D':
            o.conf.moments = (uint32_t)n;
            break;
        case 'p':
            o.conf.step = MAX(n, 1u);
            break;
        case 'v':
            o.conf.verbose = true;
            break;
        default:
            usage();
        }
    }
    return o;
}

static pid_t spawn(const struct recording *r, const struct crash_conf *conf, uint32_t part,
                   uint64_t from, struct tally *t)
{
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        if (conf->moments != 0)
            damage_moments(r, conf, part, from, t);
        else
            crash_points(r, conf, part, from, t);
        fflush(stdout);
        _exit(0);
    }
    if (pid < 0) {
        perror("fork");
        exit(2);
    }
    return pid;
}

/* A checker that died found something: say what, and go on behind it. */
static void part_died(const struct recording *r, const struct crash_conf *conf, struct tally *t,
                      int status)
{
    t->failures++;
    printf("%s: number %" PRIu64 ": the process ended by %s %d\n", r->w->name, t->at_point,
           WIFSIGNALED(status) ? "signal" : "status",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    if (conf->moments != 0)
        damage_again(r, conf, t->at_point);
    else
        crash_again(r, conf, t->at_point, t->at_outcome);
}

static void check_all(const struct recording *r, const struct crash_conf *conf, struct tally *t)
{
    pid_t pid[JOBS_MAX];
    uint32_t running = conf->jobs;

    for (uint32_t i = 0; i < conf->jobs; i++)
        pid[i] = spawn(r, conf, i, conf->from, &t[i]);
    while (running > 0) {
        int status;
        pid_t dead = wait(&status);

        for (uint32_t i = 0; i < conf->jobs; i++) {
            if (pid[i] != dead)
                continue;
            running--;
            if (status == 0)
                continue;
            part_died(r, conf, &t[i], status);
            if (t[i].failures < FAILURES_MAX) {
                pid[i] = spawn(r, conf, i, t[i].at_point + 1, &t[i]);
                running++;
            }
        }
    }
}

static void tally_add(struct tally *sum, const struct tally *t)
{
    sum->points += t->points;
    sum->checks += t->checks;
    sum->nested_points += t->nested_points;
    sum->restarts += t->restarts;
    sum->known += t->known;
    sum->failures += t->failures;
    for (uint32_t i = 0; i < DAMAGE_STRUCTS; i++) {
        sum->damaged[i] += t->damaged[i];
        for (uint32_t v = 0; v < VERDICTS; v++)
            sum->verdict[i][v] += t->verdict[i][v];
        for (uint32_t v = 0; v < FSCK_COUNTS; v++)
            sum->fsck[i][v] += t->fsck[i][v];
    }
}

static void report(const struct recording *r, const struct crash_conf *conf,
                   const struct tally *sum, int seconds)
{
    printf("%-12s %5" PRIu64 " requests, %3" PRIu64 " found no space, %5" PRIu64
           " device writes of %3" PRIu64 " MiB; ",
           r->w->name, r->ops, r->refused, r->tape->n_w, r->tape->bytes >> 20);
    if (conf->moments != 0)
        printf("%6" PRIu64 " damaged pages", sum->checks);
    else
        printf("%5" PRIu64 " crash points and %5" PRIu64 " inside recoveries, %6" PRIu64
               " crashes checked (%6" PRIu64 " like an earlier one), %6" PRIu64 " starts",
               sum->points, sum->nested_points, sum->checks, sum->known, sum->restarts);
    printf(", %" PRIu64 " failed (%d s)\n", sum->failures, seconds);
    if (conf->moments != 0)
        damage_print(sum);
    fflush(stdout);
}

/* True if all is well. */
static bool run_workload(const struct workload *w, const struct crash_conf *conf)
{
    size_t bytes = JOBS_MAX * sizeof(struct tally);
    struct tally *t = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct tally sum = {0};
    time_t began = time(NULL);
    struct recording r;

    recording_make(&r, w, conf->seed);
    if (r.failure[0] != 0) {
        printf("%s: recording failed: %s\n", w->name, r.failure);
        sum.failures = 1;
    } else {
        check_all(&r, conf, t);
    }
    for (uint32_t i = 0; i < conf->jobs; i++)
        tally_add(&sum, &t[i]);
    report(&r, conf, &sum, (int)(time(NULL) - began));
    recording_free(&r);
    munmap(t, bytes);
    return sum.failures == 0;
}

int main(int argc, char **argv)
{
    struct options o = parse(argc, argv);
    uint32_t passed = 0, failed = 0;

    log_threshold = o.conf.verbose ? LOG_LV_INFO : LOG_LV_ERROR + 1;
    for (uint32_t i = 0; i < n_workloads; i++) {
        if ((o.workload && strcmp(o.workload, workloads[i].name) != 0) ||
            (o.conf.moments != 0 && workloads[i].disks > 1))
            continue;
        if (run_workload(&workloads[i], &o.conf))
            passed++;
        else
            failed++;
    }
    if (passed + failed == 0)
        usage();
    printf("%u passed, %u failed\n", passed, failed);
    return failed > 0;
}
