/* SPDX-License-Identifier: Apache-2.0 */
/* Progress on stderr: redrawn on a terminal with rate and time left, one line at the end elsewhere.
 */
#include <unistd.h>

#include "serve/serve.h"

void qyi_progress_start(struct qyi_progress *progress, const char *what, const char *unit,
                        uint64_t total)
{
    progress->what = what;
    progress->unit = unit;
    progress->total = total;
    progress->start_ns = progress->last_ns = qy_clock_ns();
    progress->terminal = isatty(STDERR_FILENO);
}

static double rate(const struct qyi_progress *progress, uint64_t done)
{
    const double seconds = (double)(qy_clock_ns() - progress->start_ns) * 1e-9;
    return seconds > 0 ? (double)done / seconds : 0;
}

void qyi_progress_update(struct qyi_progress *progress, uint64_t done)
{
    const uint64_t now = qy_clock_ns();
    if (!progress->terminal || (done < progress->total && now - progress->last_ns < 100000000)) {
        return;
    }
    progress->last_ns = now;
    const double per_s = rate(progress, done);
    const double left = per_s > 0 ? (double)(progress->total - done) / per_s : 0;
    fprintf(stderr, "\r%s: %llu of %llu %s, %.0f/s, %.0f s left \033[K", progress->what,
            (unsigned long long)done, (unsigned long long)progress->total, progress->unit, per_s,
            left);
}

void qyi_progress_end(struct qyi_progress *progress, uint64_t done)
{
    const double seconds = (double)(qy_clock_ns() - progress->start_ns) * 1e-9;
    fprintf(stderr, "%s%s: %llu %s in %.1f s (%.0f/s)%s\n", progress->terminal ? "\r" : "",
            progress->what, (unsigned long long)done, progress->unit, seconds, rate(progress, done),
            progress->terminal ? "\033[K" : "");
}
