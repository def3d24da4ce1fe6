/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-fsck: checks and explains a device of a chunk server that is not running. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/fsck.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/env/env_real.h"

/* As other programs of the kind end. */
enum { EXIT_CLEAN = 0, EXIT_REPAIRED = 1, EXIT_LEFT = 4, EXIT_FAILED = 8, EXIT_USAGE = 16 };

struct program {
    const char *device;
    struct fsck_conf conf;
    bool quiet;
    int end;
};

static const char usage[] =
    "usage: zbs-fsck [--data] [--repair] [--quiet] [--journal DEVICE] DEVICE\n"
    "\n"
    "Checks a device of a chunk server that is not running: superblocks, journals, allocation,\n"
    "heads, block maps and references, and explains what it finds. Without --repair the device is\n"
    "opened for reading only. What is in use is refused.\n"
    "\n"
    "options\n"
    "  -d, --data     reads all data, too, and checks it\n"
    "  -r, --repair   rebuilds what can be rebuilt: a copy of the superblock, the allocation, the\n"
    "                 counts of references. It is tried in memory first, and done only if less is\n"
    "                 wrong afterwards\n"
    "  -j, --journal DEVICE  the device that has its journals, if that is another one\n"
    "  -q, --quiet    findings and the result only\n"
    "  -h, --help     this text\n"
    "\n"
    "what is found\n"
    "  a copy of the superblock is damaged       the other one counts; --repair writes both\n"
    "  blocks are taken and nothing names them   space is lost; --repair gives it back\n"
    "  counts as free, counts N references       dangerous, do not start the chunk server before\n"
    "                                            --repair\n"
    "  promised to reserved extents, are free    a write to a thick volume may find no space: "
    "make\n"
    "                                            some, or --repair where blocks are lost\n"
    "  an extent is void, its map is damaged,    that replica is lost: the cluster replaces it\n"
    "  heads can't be read                       when the chunk server runs again\n"
    "  extent X page Y fails its checksum        the owner writes it anew from another replica\n"
    "                                            when it is read, or when the scrubber finds it\n"
    "  allocation bitmap, neither anchor         nothing of that worker's part can be used. If\n"
    "                                            --repair does not help, format the disk: the\n"
    "                                            cluster makes its replicas anew\n"
    "\n"
    "exit codes\n"
    "  0   nothing is wrong\n"
    "  1   something was wrong, and all of it is repaired\n"
    "  4   something is wrong\n"
    "  8   the check failed: the device is in use, can't be read, or is not one of ZBS\n"
    "  16  wrong usage\n"
    "\n"
    "example\n"
    "  systemctl stop zbs-chunkd && zbs-fsck --data /dev/sdb && systemctl start zbs-chunkd\n";

static void finding(void *arg, const char *text)
{
    (void)arg;
    printf("found: %s\n", text);
}

static void note(void *arg, const char *text)
{
    const struct program *p = arg;

    if (!p->quiet)
        printf("%s\n", text);
}

static co_fn int check(void *arg)
{
    struct program *p = arg;
    struct fsck_result r;
    int rc = fsck_device(p->device, &p->conf, &r);

    if (rc < 0) {
        fprintf(stderr, "zbs-fsck: %s\n", err_text(rc));
        p->end = EXIT_FAILED;
        return 0;
    }
    if (!p->quiet)
        printf("%" PRIu64 " extents, %" PRIu64 " blocks in use, %" PRIu64
               " of them shared, %" PRIu64 " pages%s\n",
               r.extents, r.blocks, r.shared_blocks, r.pages,
               p->conf.data ? ", all of them read" : "");
    if (r.findings == 0)
        printf("%s: clean\n", p->device);
    else if (r.left == 0)
        printf("%s: %" PRIu64 " findings, all repaired\n", p->device, r.findings);
    else
        printf("%s: %" PRIu64 " findings, %" PRIu64 " left%s\n", p->device, r.findings, r.left,
               p->conf.repair ? "" : "; see --repair");
    p->end = r.findings == 0 ? EXIT_CLEAN : r.left == 0 ? EXIT_REPAIRED : EXIT_LEFT;
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"data", no_argument, NULL, 'd'},  {"repair", no_argument, NULL, 'r'},
        {"quiet", no_argument, NULL, 'q'}, {"journal", required_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},  {0}};
    struct env_real_conf env = {.name = "zbs-fsck", .handle_signals = true};
    struct program p = {.conf = {.finding = finding, .note = note}, .end = EXIT_FAILED};
    int opt;

    p.conf.arg = &p;
    while ((opt = getopt_long(argc, argv, "drqj:h", options, NULL)) != -1) {
        switch (opt) {
        case 'd':
            p.conf.data = true;
            break;
        case 'r':
            p.conf.repair = true;
            break;
        case 'q':
            p.quiet = true;
            break;
        case 'j':
            p.conf.journal = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return EXIT_CLEAN;
        default:
            fputs(usage, stderr);
            return EXIT_USAGE;
        }
    }
    if (optind != argc - 1) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    p.device = argv[optind];
    log_set_service("zbs-fsck");
    log_threshold = LOG_LV_ERROR + 1; /* what the engine would log is among the findings */
    if (env_real_run(&env, check, &p) < 0)
        return EXIT_FAILED;
    return p.end;
}
