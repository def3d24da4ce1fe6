/* SPDX-License-Identifier: Apache-2.0
 *
 * Structured log: one line an event, "time level service[node] event key=value …", to standard
 * error (the journal) or to a sink that the simulator installs. Callable anywhere. Never log
 * secrets. Values with spaces are quoted by the caller; control characters become '?'.
 *
 *     log_warn("replica.slow", "extent=%" PRIu64 " chunk=%u wait_ms=%d", id, chunk, ms);
 */
#ifndef ZBS_BASE_LOG_H
#define ZBS_BASE_LOG_H

#include "common/base/attr.h"

enum log_level { LOG_LV_DEBUG, LOG_LV_INFO, LOG_LV_WARN, LOG_LV_ERROR };

void log_event(enum log_level level, const char *event, const char *fmt, ...) PRINTF_FMT(3, 4);

extern enum log_level log_threshold; /* what is below is dropped before formatting */

#define log_at(level, ...) ((level) >= log_threshold ? log_event((level), __VA_ARGS__) : (void)0)
#define log_debug(...)     log_at(LOG_LV_DEBUG, __VA_ARGS__)
#define log_info(...)      log_at(LOG_LV_INFO, __VA_ARGS__)
#define log_warn(...)      log_at(LOG_LV_WARN, __VA_ARGS__)
#define log_error(...)     log_at(LOG_LV_ERROR, __VA_ARGS__)

/* Where finished lines go (without the time and the newline). NULL restores standard error. */
typedef void (*log_sink_fn)(void *arg, enum log_level level, const char *line);
void log_set_sink(log_sink_fn fn, void *arg);

/* Name of the service in each line ("zbs-chunkd"); a loop's name is added where there is one. */
void log_set_service(const char *name);

#endif
