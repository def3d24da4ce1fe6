/* SPDX-License-Identifier: Apache-2.0
 *
 * One line an event. A line is built in a local buffer and leaves in one write, so that lines of
 * several threads do not mix. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "common/base/log.h"
#include "common/base/thread_ctx.h"

#define LOG_LINE_MAX 2048

enum log_level log_threshold = LOG_LV_INFO;

/* Set while a program starts, before it has threads. */
static struct {
    log_sink_fn fn;
    void *arg;
    char service[32];
} sink;

static const char *const level_names[] = {"DEBUG", "INFO", "WARN", "ERROR"};

void log_set_sink(log_sink_fn fn, void *arg)
{
    sink.fn = fn;
    sink.arg = arg;
}

void log_set_service(const char *name)
{
    (void)snprintf(sink.service, sizeof(sink.service), "%s", name);
}

/* Length that snprintf really wrote. */
static size_t written(int len, size_t room)
{
    if (len < 0)
        return 0;
    return (size_t)len < room ? (size_t)len : room - 1;
}

/* The clock is for people and only on standard error: a sink's lines must be reproducible. */
static size_t put_time(char *dst, size_t room)
{
    struct timespec ts;
    struct tm tm;
    size_t len;

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    (void)gmtime_r(&ts.tv_sec, &tm);
    len = strftime(dst, room, "%Y-%m-%dT%H:%M:%S", &tm);
    return len +
           written(snprintf(dst + len, room - len, ".%06ldZ ", ts.tv_nsec / 1000), room - len);
}

void log_event(enum log_level level, const char *event, const char *fmt, ...)
{
    const struct thread_ctx *ctx = thread_ctx_get();
    log_sink_fn fn = sink.fn;
    char line[LOG_LINE_MAX];
    size_t room = sizeof(line) - 1; /* for the newline */
    size_t len = fn == NULL ? put_time(line, room) : 0;
    va_list ap;

    len += written(snprintf(line + len, room - len, "%s %s[%s] %s ", level_names[level],
                            sink.service[0] != '\0' ? sink.service : "zbs",
                            ctx != NULL ? ctx->loop_name : "-", event),
                   room - len);
    va_start(ap, fmt);
    len += written(vsnprintf(line + len, room - len, fmt, ap), room - len);
    va_end(ap);
    for (size_t i = 0; i < len; i++) /* values may come from outside */
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    if (fn != NULL) {
        line[len] = '\0';
        fn(sink.arg, level, line);
        return;
    }
    line[len++] = '\n';
    if (write(STDERR_FILENO, line, len) < 0) {
        /* nowhere to report it */
    }
}
