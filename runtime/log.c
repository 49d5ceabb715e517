/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Levels, the list of modules that have their own, and a sink that writes to stderr. Which sink is
 * used is the program's choice; nothing here decides to print.
 */
#include "runtime/runtime.h"

#include <stdio.h>
#include <string.h>

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};
enum { N_LEVELS = sizeof(level_names) / sizeof(level_names[0]) };

static int find_level(const char *text, size_t n)
{
    for (int i = 0; i < N_LEVELS; i++) {
        if (strlen(level_names[i]) == n && memcmp(level_names[i], text, n) == 0) {
            return i;
        }
    }
    return -1;
}

static void write_stderr(void *ctx, enum qy_log_level level, const char *module, const char *text)
{
    (void)ctx;
    fprintf(stderr, "quarry %s: %s: %s\n", module, level_names[level], text);
}

struct qy_log qy_log_stderr(enum qy_log_level level)
{
    return (struct qy_log){.ctx = NULL, .write = write_stderr, .level = level, .modules = NULL};
}

/* Length of the item at the start of a comma-separated list. */
static size_t item_length(const char *list)
{
    return strcspn(list, ",");
}

enum qy_status qy_log_parse(const char *text, struct qy_log *log, struct qy_error *err)
{
    enum qy_log_level level = log->level;
    const char *modules = NULL;

    for (const char *p = text;;) {
        size_t n = item_length(p);
        const char *equal = memchr(p, '=', n);
        const char *name = equal == NULL ? p : equal + 1;
        int found = find_level(name, n - (size_t)(name - p));

        if (found < 0 || equal == p) {
            return qy_error_set(err, QY_ERR_CONFIG,
                                "log levels '%s': '%.*s' refused; a level (error, warn, info, "
                                "debug, trace) or module=level is accepted, with commas between",
                                text, (int)n, p);
        }
        if (equal == NULL) {
            level = (enum qy_log_level)found;
        } else {
            modules = text;
        }
        if (p[n] == '\0') {
            break;
        }
        p += n + 1;
    }
    log->level = level;
    log->modules = modules;
    return QY_OK;
}

/* The last item that names the module decides; items that are no module=level are passed over. */
static enum qy_log_level level_of(const struct qy_log *log, const char *module)
{
    enum qy_log_level level = log->level;
    size_t length = strlen(module);

    if (log->modules == NULL) {
        return level;
    }
    for (const char *p = log->modules;;) {
        size_t n = item_length(p);

        if (n > length && p[length] == '=' && memcmp(p, module, length) == 0) {
            int found = find_level(p + length + 1, n - length - 1);

            level = found < 0 ? level : (enum qy_log_level)found;
        }
        if (p[n] == '\0') {
            return level;
        }
        p += n + 1;
    }
}

void qy_log_write(const struct qy_log *log, enum qy_log_level level, const char *module,
                  const char *format, ...)
{
    char text[1024];
    va_list args;

    if (log == NULL || log->write == NULL || level > level_of(log, module)) {
        return;
    }
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log->write(log->ctx, level, module, text);
}
