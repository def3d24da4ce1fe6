/* SPDX-License-Identifier: Apache-2.0
 *
 * Histograms, windows, the CPU clock of another process. */
#include "tests/lib/loadstat.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include "common/base/err.h"

#define SECOND 1000000000

/* All threads of the process, the kernel's workers for it included. */
static double cpu_of(pid_t pid)
{
    struct timespec t;
    clockid_t clock;

    if (pid == 0 || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return 0;
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int loadstat_start(struct loadstat *s, const struct loadstat_conf *conf, int64_t now)
{
    memset(s, 0, sizeof(*s));
    s->conf = *conf;
    if (s->conf.window == 0)
        s->conf.window = SECOND;
    hist_init(&s->lat[LOADSTAT_READ]);
    hist_init(&s->lat[LOADSTAT_WRITE]);
    hist_init(&s->window);
    s->window_end = now + s->conf.window;
    s->first = s->last = conf->from;
    if (conf->csv == NULL)
        return 0;
    s->csv = fopen(conf->csv, "w");
    if (s->csv == NULL)
        return err_from_errno(errno, "%s", conf->csv);
    fprintf(s->csv, "seconds,ops,mib_s,p50_us,p99_us,p999_us,max_us\n");
    return 0;
}

static double us(uint64_t ns)
{
    return (double)ns / 1000;
}

static void window_close(struct loadstat *s)
{
    const struct hist *h = &s->window;
    int64_t begin = s->window_end - s->conf.window;
    double seconds = (double)s->conf.window / SECOND;

    if (s->csv != NULL)
        fprintf(s->csv, "%.3f,%" PRIu64 ",%.2f,%.1f,%.1f,%.1f,%.1f\n",
                (double)(begin - s->conf.from) / SECOND, h->count,
                (double)s->window_bytes / 1048576 / seconds, us(hist_percentile(h, 50)),
                us(hist_percentile(h, 99)), us(hist_percentile(h, 99.9)), us(h->max));
    hist_init(&s->window);
    s->window_bytes = 0;
    s->window_end += s->conf.window;
}

void loadstat_add(struct loadstat *s, enum loadstat_dir dir, int64_t now, int64_t took,
                  uint32_t bytes)
{
    while (now >= s->window_end)
        window_close(s);
    hist_add(&s->window, (uint64_t)took);
    s->window_bytes += bytes;
    if (now >= s->conf.from && !s->cpu_begun) {
        s->cpu_begun = true;
        s->cpu_begin = cpu_of(s->conf.server);
    }
    if (now >= s->conf.to && !s->cpu_ended) {
        s->cpu_ended = true;
        s->cpu_end = cpu_of(s->conf.server);
    }
    if (now < s->conf.from || now >= s->conf.to)
        return;
    hist_add(&s->lat[dir], (uint64_t)took);
    s->bytes += bytes;
    s->last = now;
}

void loadstat_stop(struct loadstat *s, int64_t now)
{
    if (!s->cpu_ended)
        s->cpu_end = cpu_of(s->conf.server);
    if (s->conf.to != INT64_MAX && now >= s->conf.to)
        s->last = s->conf.to;
    if (s->csv == NULL)
        return;
    while (now >= s->window_end)
        window_close(s);
    fclose(s->csv); /* the last window was not whole */
    s->csv = NULL;
}

static void latencies_print(const struct hist *h, double seconds, FILE *to)
{
    fprintf(to,
            "\"ios\": %" PRIu64 ", \"iops\": %.1f, \"mean_us\": %.2f, \"p50_us\": %.1f, "
            "\"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f",
            h->count, seconds > 0 ? (double)h->count / seconds : 0, hist_mean(h) / 1000,
            us(hist_percentile(h, 50)), us(hist_percentile(h, 99)), us(hist_percentile(h, 99.9)),
            us(h->max));
}

void loadstat_print(const struct loadstat *s, FILE *to)
{
    static const char *const names[] = {"read", "write"};
    double seconds = (double)(s->last - s->first) / SECOND, cpu = s->cpu_end - s->cpu_begin;
    struct hist all = s->lat[LOADSTAT_READ];

    hist_merge(&all, &s->lat[LOADSTAT_WRITE]);
    fprintf(to, "\"seconds\": %.3f, \"bytes\": %" PRIu64 ", \"mib_s\": %.2f, ", seconds, s->bytes,
            seconds > 0 ? (double)s->bytes / 1048576 / seconds : 0);
    latencies_print(&all, seconds, to);
    for (int d = 0; d < 2; d++) {
        if (s->lat[d].count == 0 || s->lat[d].count == all.count)
            continue;
        fprintf(to, ", \"%s\": {", names[d]);
        latencies_print(&s->lat[d], seconds, to);
        fprintf(to, "}");
    }
    if (s->conf.server != 0)
        fprintf(to, ", \"server_cpu_s\": %.4f, \"server_cpu_us_per_io\": %.3f", cpu,
                all.count > 0 ? cpu * 1e6 / (double)all.count : 0);
}
