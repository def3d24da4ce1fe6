/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-bench: what the building blocks cost on this machine, each beside a limit or a peer.
 *
 *   zbs-bench micro [--json] [--seconds S]    coroutines and RPC */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "tools/bench/bench_co.h"
#include "tools/bench/bench_rpc.h"

struct figure {
    char name[64];
    double value;
};

static struct figure figures[64];
static unsigned n_figures;

static void put(const char *name, double value)
{
    snprintf(figures[n_figures].name, sizeof(figures[0].name), "%s", name);
    figures[n_figures++].value = value;
}

static void put_load(const char *name, const struct bench_rpc_load *l)
{
    char full[64];

    snprintf(full, sizeof(full), "%s.calls_per_s", name);
    put(full, l->calls_per_s);
    snprintf(full, sizeof(full), "%s.cpu_us_per_call", name);
    put(full, l->cpu_us_per_call);
}

static void put_size(const char *size, const struct bench_rpc_size *s)
{
    static const char *const kinds[] = {"rpc.tcp", "rpc.unix", "bare.tcp"};
    const struct bench_rpc_load *loads[3][2] = {{&s->tcp_depth1, &s->tcp_depth32},
                                                {&s->unix_depth1, &s->unix_depth32},
                                                {&s->bare_depth1, &s->bare_depth32}};

    for (int k = 0; k < 3; k++)
        for (int d = 0; d < 2; d++) {
            char name[48];

            snprintf(name, sizeof(name), "%s.%s_qd%d", kinds[k], size, d ? 32 : 1);
            put_load(name, loads[k][d]);
        }
}

static int micro(double seconds)
{
    struct bench_rpc_result rpc;
    struct bench_co co;
    int rc;

    bench_co_run(&co);
    put("co.switch_in_out_ns", co.switch_in_out_ns);
    put("co.yield_ns", co.yield_ns);
    put("co.create_destroy_ns", co.create_destroy_ns);
    put("sjlj.switch_in_out_ns", co.sjlj_switch_in_out_ns);
    put("swapcontext.switch_in_out_ns", co.swapcontext_switch_in_out_ns);
    rc = bench_rpc_run(seconds, &rpc);
    if (rc < 0) {
        fprintf(stderr, "zbs-bench: %s\n", err_text(rc));
        return 1;
    }
    put_size("empty", &rpc.small);
    put_size("4k", &rpc.page);
    return 0;
}

static void print(bool json)
{
    if (json)
        printf("{");
    for (unsigned i = 0; i < n_figures; i++) {
        if (json)
            printf("%s\n \"%s\": %.3f", i ? "," : "", figures[i].name, figures[i].value);
        else
            printf("%-40s %14.2f\n", figures[i].name, figures[i].value);
    }
    if (json)
        printf("\n}\n");
}

int main(int argc, char **argv)
{
    double seconds = 1;
    bool json = false;
    int rc;

    if (argc < 2 || strcmp(argv[1], "micro") != 0) {
        fprintf(stderr, "usage: zbs-bench micro [--json] [--seconds S]\n");
        return 2;
    }
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) {
            json = true;
        } else if (!strcmp(argv[i], "--seconds") && i + 1 < argc) {
            seconds = strtod(argv[++i], NULL);
        } else {
            fprintf(stderr, "zbs-bench: '%s' is not understood\n", argv[i]);
            return 2;
        }
    }
    rc = micro(seconds);
    if (rc == 0)
        print(json);
    return rc;
}
