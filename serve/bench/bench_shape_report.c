/* SPDX-License-Identifier: Apache-2.0 */
/* quarry bench decode --shape: the steps as text and as JSON, under the names of the model's. */
#include <inttypes.h>

#include "serve/bench/bench_shape.h"

/* The times of the steps by the policy alone. */
static struct qy_cache_stats policy_stats(const struct qyi_shape_bench *b)
{
    struct qy_cache_stats stats = b->steps.stats;
    for (int i = 0; i < QY_STAGE_COUNT; i++) {
        stats.stage_ns[i] -= b->dense.stage_ns[i];
    }
    return stats;
}

static void add_shape(const struct qyi_shape_bench *b, cJSON *object)
{
    cJSON_AddStringToObject(object, "shape", b->app->args->shape);
    cJSON_AddNumberToObject(object, "n_layers", b->shape.n_layers);
    cJSON_AddNumberToObject(object, "heads", b->shape.n_heads);
    cJSON_AddNumberToObject(object, "kv_heads", b->shape.n_kv_heads);
    cJSON_AddNumberToObject(object, "head_dim", b->shape.head_dim);
    cJSON_AddStringToObject(object, "budget", b->budget_text);
    cJSON_AddNumberToObject(object, "query_drift", b->drift);
}

static void add_dense(const struct qyi_shape_bench *b, double step_ms, cJSON *object)
{
    const struct qyi_shape_dense *dense = &b->dense;
    if (dense->n == 0) {
        cJSON_AddNullToObject(object, "dense_step_ms");
        cJSON_AddNullToObject(object, "ratio");
        cJSON_AddNullToObject(object, "dense_stages_ms");
        return;
    }
    const double ms = (double)qyi_bench_median(dense->samples, dense->n) * 1e-6;
    struct qy_cache_stats stats = {0};
    for (int i = 0; i < QY_STAGE_COUNT; i++) {
        stats.stage_ns[i] = dense->stage_ns[i];
    }
    cJSON_AddNumberToObject(object, "dense_step_ms", ms);
    cJSON_AddNumberToObject(object, "ratio", ms / step_ms);
    qyi_cache_stages_json(&stats, (double)dense->n,
                          cJSON_AddObjectToObject(object, "dense_stages_ms"));
}

static void print_json(struct qyi_shape_bench *b, const struct qy_cache_stats *stats,
                       const struct qyi_bench_summary *s, double ceiling)
{
    const struct qyi_cache_report report = {.cache = b->cache,
                                            .n_layers = b->shape.n_layers,
                                            .policy = b->app->retrieval.policy,
                                            .stats = stats};
    char checksum[24];
    cJSON *object = cJSON_CreateObject();
    add_shape(b, object);
    qyi_cache_report_json(&report, object);
    qyi_cache_stages_json(stats, (double)b->steps.n_timed,
                          cJSON_AddObjectToObject(object, "stages_ms"));
    qyi_bench_summary_json(s, b->app->args, object);
    add_dense(b, s->step_ms, object);
    cJSON_AddStringToObject(object, "device", qy_device_caps(b->dev)->name);
    cJSON_AddStringToObject(object, "kernels", qy_device_caps(b->dev)->kernels);
    cJSON_AddNumberToObject(object, "kv_gbps", qyi_bench_kv_gbps(stats));
    cJSON_AddNumberToObject(object, "ceiling_gbps", ceiling);
    snprintf(checksum, sizeof checksum, "%016" PRIx64, b->checksum);
    cJSON_AddStringToObject(object, "checksum", checksum);
    qyi_bench_steps_json(&b->steps, object);
    qyi_print_json(object);
}

static void print_dense(struct qyi_shape_bench *b, double step_ms)
{
    struct qyi_shape_dense *dense = &b->dense;
    if (dense->n > 0) {
        const double ms = (double)qyi_bench_median(dense->samples, dense->n) * 1e-6;
        printf("  dense         %.3f ms, %.2f times as long; attend %.3f\n", ms, ms / step_ms,
               (double)dense->stage_ns[QY_STAGE_ATTEND] * 1e-6 / (double)dense->n);
    }
}

static void print_text(struct qyi_shape_bench *b, const struct qy_cache_stats *stats,
                       const struct qyi_bench_summary *s, double ceiling)
{
    const struct qyi_args *args = b->app->args;
    const struct qyi_cache_report report = {.cache = b->cache,
                                            .n_layers = b->shape.n_layers,
                                            .policy = b->app->retrieval.policy,
                                            .stats = stats};
    printf(
        "%u x (%u heads, %u KV heads, d = %u), batch %llu, context %llu, policy %s, budget %s: "
        "%.1f tokens/s, median step %.3f ms of %llu\n",
        b->shape.n_layers, b->shape.n_heads, b->shape.n_kv_heads, b->shape.head_dim,
        (unsigned long long)args->batch, (unsigned long long)args->context,
        b->app->retrieval.policy, b->budget_text, (double)args->batch / s->step_ms * 1e3,
        s->step_ms, (unsigned long long)b->steps.n_timed);
    printf(
        "attention alone: rows are random, %.3g of a query is new at each step (--query-drift), "
        "caches are swept between steps\n",
        b->drift);
    printf("KV is read at %.1f GB/s (memcpy reads %.1f GB/s on the same threads)\n",
           qyi_bench_kv_gbps(stats), ceiling);
    qyi_cache_report_print(&report, stdout);
    printf("  device        %s, %u threads\n  decode step  ", qy_device_caps(b->dev)->name,
           b->app->n_threads);
    qyi_cache_stages_print(stats, (double)b->steps.n_timed, 3, stdout);
    putchar('\n');
    print_dense(b, s->step_ms);
    qyi_bench_overlap_print(s);
}

void qyi_shape_report(struct qyi_shape_bench *b)
{
    const struct qyi_bench_summary summary = qyi_bench_steps_summary(&b->steps);
    const struct qy_cache_stats stats = policy_stats(b);
    const double ceiling = qyi_bench_memcpy_gbps(b->app->rt.team);
    (b->app->args->json ? print_json : print_text)(b, &stats, &summary, ceiling);
}
