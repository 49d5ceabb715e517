/* SPDX-License-Identifier: Apache-2.0 */
/* quarry bench: which benchmark; what they share is the measurement of the ceiling. */
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench.h"

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

void qyi_bench_copy_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct qyi_bench_copy *copy = arg;
    size_t begin, end;
    qy_team_range(copy->bytes, thread, n_threads, &begin, &end);
    memcpy(copy->to + begin, copy->from + begin, end - begin);
}

double qyi_bench_memcpy_gbps(struct qy_team *team)
{
    enum { RUNS = 5 };
    const size_t bytes = (size_t)256 << 20;
    struct qyi_bench_copy copy = {.to = malloc(bytes), .from = calloc(1, bytes), .bytes = bytes};
    uint64_t samples[RUNS];
    if (copy.to == NULL || copy.from == NULL) {
        free(copy.to);
        free((void *)(uintptr_t)copy.from);
        return 0;
    }
    memset((void *)(uintptr_t)copy.from, 1, bytes); /* real pages, not the zero page */
    qy_team_run(team, qyi_bench_copy_share, &copy); /* touches the target */
    for (int i = 0; i < RUNS; i++) {
        const uint64_t begin = qy_clock_ns();
        qy_team_run(team, qyi_bench_copy_share, &copy);
        samples[i] = qy_clock_ns() - begin;
    }
    free(copy.to);
    free((void *)(uintptr_t)copy.from);
    return (double)bytes / (double)qyi_bench_median(samples, RUNS);
}

void qyi_bench_report(struct qyi_bench_report *report, const char *name, uint64_t p50, double bytes,
                      double ceiling, double flops)
{
    const double gbps = bytes > 0 ? bytes / (double)p50 : 0;
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "name", name);
    cJSON_AddNumberToObject(item, "p50_ns", (double)p50);
    cJSON_AddNumberToObject(item, "bytes", bytes);
    cJSON_AddNumberToObject(item, "gbps", gbps);
    cJSON_AddNumberToObject(item, "ceiling_gbps", ceiling);
    if (flops > 0) {
        cJSON_AddNumberToObject(item, "gflops", flops / (double)p50);
    }
    cJSON_AddItemToArray(report->results, item);
    if (!report->json && flops > 0) {
        printf("%-34s %10.1f us %8.1f GFLOP/s, weights at %.2f GB/s\n", name, (double)p50 * 1e-3,
               flops / (double)p50, gbps);
    } else if (!report->json) {
        printf("%-34s %10.1f us %8.2f GB/s of %6.2f (%3.0f %%)\n", name, (double)p50 * 1e-3, gbps,
               ceiling, ceiling > 0 ? 100.0 * gbps / ceiling : 0);
        fflush(stdout);
    }
}

int qyi_cmd_bench(struct qyi_app *app)
{
    struct qy_error err = {0};
    const char *topic = app->args->topic;
    if (app->args->report != NULL && strcmp(topic, "decode") != 0) {
        qy_error_set(&err, QY_ERR_CONFIG, "option '--report': bench decode has one, bench %s none",
                     topic);
        return qyi_fail(&err);
    }
    const enum qy_status st = strcmp(topic, "decode") == 0      ? qyi_bench_decode(app, &err)
                              : strcmp(topic, "link") == 0      ? qyi_bench_link(app, &err)
                              : strcmp(topic, "net") == 0       ? qyi_bench_net(app, &err)
                              : strcmp(topic, "compare") == 0   ? qyi_bench_compare(app, &err)
                              : strcmp(topic, "residency") == 0 ? qyi_bench_residency(app, &err)
                                                                : qyi_bench_kernels(app, &err);
    return st == QY_OK ? (qyi_interrupted() ? 130 : 0) : qyi_fail(&err);
}
