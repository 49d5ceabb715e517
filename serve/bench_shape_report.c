/* SPDX-License-Identifier: Apache-2.0 */
/* quarry bench decode --shape: the rounds as text and as JSON. */
#include "serve/bench_shape.h"

static void add_stages(const struct qyi_shape_bench *b, cJSON *object, const char *name,
                       const struct qyi_shape_side *side)
{
    cJSON *stages = cJSON_AddObjectToObject(object, name);
    for (int i = 0; i < QY_STAGE_COUNT; i++) {
        cJSON_AddNumberToObject(stages, qy_stage_name((enum qy_stage)i),
                                (double)side->stage_ns[i] * 1e-6 / (double)b->n);
    }
}

static void print_json(const struct qyi_shape_bench *b, const struct qy_cache_stats *stats,
                       double dense_ms, double step_ms, double ceiling)
{
    const struct qyi_args *args = b->app->args;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "shape", args->shape);
    cJSON_AddNumberToObject(object, "layers", b->shape.n_layers);
    cJSON_AddNumberToObject(object, "heads", b->shape.n_heads);
    cJSON_AddNumberToObject(object, "kv_heads", b->shape.n_kv_heads);
    cJSON_AddNumberToObject(object, "head_dim", b->shape.head_dim);
    cJSON_AddNumberToObject(object, "batch", (double)args->batch);
    cJSON_AddNumberToObject(object, "context", (double)args->context);
    cJSON_AddStringToObject(object, "policy", b->app->retrieval.policy);
    cJSON_AddStringToObject(object, "kernels", qy_device_caps(b->dev)->kernels);
    cJSON_AddNumberToObject(object, "tokens_per_s", (double)args->batch / step_ms * 1e3);
    cJSON_AddNumberToObject(object, "step_ms", step_ms);
    cJSON_AddNumberToObject(object, "dense_step_ms", dense_ms);
    cJSON_AddNumberToObject(object, "ratio", dense_ms / step_ms);
    add_stages(b, object, "stages_ms", &b->sparse);
    add_stages(b, object, "dense_stages_ms", &b->dense);
    cJSON *bytes = cJSON_AddObjectToObject(object, "bytes"); /* a unified device moves none */
    static const char *const tiers[] = {"h2d", "d2h", "net", "disk"};
    for (int i = 0; i < 4; i++) {
        cJSON_AddNumberToObject(bytes, tiers[i], 0);
    }
    cJSON_AddNullToObject(object, "hit_rate");
    cJSON_AddNullToObject(object, "overlap");
    cJSON_AddNumberToObject(object, "attended", qyi_attended(stats));
    cJSON_AddNumberToObject(object, "attended_sparse", qyi_attended_sparse(stats));
    cJSON_AddNumberToObject(object, "read_bytes", (double)stats->read_bytes);
    cJSON_AddNumberToObject(object, "index_read_bytes", (double)stats->index_read_bytes);
    cJSON_AddNumberToObject(object, "dense_read_bytes", (double)stats->dense_read_bytes);
    cJSON_AddNumberToObject(object, "kv_bytes", (double)stats->host_bytes);
    cJSON_AddNumberToObject(object, "index_bytes", (double)stats->index_bytes);
    cJSON_AddNumberToObject(object, "ceiling_gbps", ceiling);
    qyi_print_json(object);
}

static void print_side(const struct qyi_shape_bench *b, const char *name, double ms,
                       const struct qyi_shape_side *side)
{
    printf("  %-10s %9.1f tokens/s, median step %.3f ms:", name,
           (double)b->app->args->batch / ms * 1e3, ms);
    for (int i = 0; i < QY_STAGE_COUNT; i++) {
        printf(" %s %.3f", qy_stage_name((enum qy_stage)i),
               (double)side->stage_ns[i] * 1e-6 / (double)b->n);
    }
    putchar('\n');
}

static void print_text(const struct qyi_shape_bench *b, const struct qy_cache_stats *stats,
                       double dense_ms, double step_ms, double ceiling)
{
    const struct qyi_args *args = b->app->args;
    char kv[32], index[32];
    printf(
        "%u x (%u heads, %u KV heads, d = %u), batch %llu, context %llu; attention alone, random "
        "rows\n",
        b->shape.n_layers, b->shape.n_heads, b->shape.n_kv_heads, b->shape.head_dim,
        (unsigned long long)args->batch, (unsigned long long)args->context);
    print_side(b, "dense", dense_ms, &b->dense);
    print_side(b, b->app->retrieval.policy, step_ms, &b->sparse);
    printf(
        "  %.2f times dense, %.2f %% of the rows attended; KV %s, index %s; memcpy reads %.1f "
        "GB/s\n",
        dense_ms / step_ms, 100.0 * qyi_attended(stats),
        qy_format_size(stats->host_bytes, kv, sizeof kv),
        qy_format_size(stats->index_bytes, index, sizeof index), ceiling);
}

void qyi_shape_report(struct qyi_shape_bench *b)
{
    struct qy_cache_stats stats;
    const double dense_ms = (double)qyi_bench_median(b->dense.samples, b->n) * 1e-6;
    const double step_ms = (double)qyi_bench_median(b->sparse.samples, b->n) * 1e-6;
    const double ceiling = qyi_bench_memcpy_gbps(b->app->rt.team);
    qy_cache_stats(b->cache, &stats);
    (b->app->args->json ? print_json : print_text)(b, &stats, dense_ms, step_ms, ceiling);
}
