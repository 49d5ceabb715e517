/* SPDX-License-Identifier: Apache-2.0 */
/* quarry bench: which benchmark; what they share is the measurement of the ceiling. */
#include <stdlib.h>
#include <string.h>

#include "serve/bench.h"

static int ascending(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

uint64_t qyi_bench_median(uint64_t *samples, size_t n)
{
    qsort(samples, n, sizeof *samples, ascending);
    return n % 2 == 1 ? samples[n / 2] : (samples[n / 2 - 1] + samples[n / 2]) / 2;
}

struct copy {
    uint8_t *to;
    const uint8_t *from;
    size_t bytes;
};

static void copy_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct copy *copy = arg;
    size_t begin, end;
    qy_team_range(copy->bytes, thread, n_threads, &begin, &end);
    memcpy(copy->to + begin, copy->from + begin, end - begin);
}

double qyi_bench_memcpy_gbps(struct qy_team *team)
{
    enum { RUNS = 5 };
    const size_t bytes = (size_t)256 << 20;
    struct copy copy = {.to = malloc(bytes), .from = calloc(1, bytes), .bytes = bytes};
    uint64_t samples[RUNS];
    if (copy.to == NULL || copy.from == NULL) {
        free(copy.to);
        free((void *)(uintptr_t)copy.from);
        return 0;
    }
    memset((void *)(uintptr_t)copy.from, 1, bytes); /* real pages, not the zero page */
    qy_team_run(team, copy_share, &copy);           /* touches the target */
    for (int i = 0; i < RUNS; i++) {
        const uint64_t begin = qy_clock_ns();
        qy_team_run(team, copy_share, &copy);
        samples[i] = qy_clock_ns() - begin;
    }
    free(copy.to);
    free((void *)(uintptr_t)copy.from);
    return (double)bytes / (double)qyi_bench_median(samples, RUNS);
}

int qyi_cmd_bench(struct qyi_app *app)
{
    struct qy_error err = {0};
    const enum qy_status st = strcmp(app->args->topic, "decode") == 0
                                  ? qyi_bench_decode(app, &err)
                                  : qyi_bench_kernels(app, &err);
    return st == QY_OK ? (qyi_interrupted() ? 130 : 0) : qyi_fail(&err);
}
