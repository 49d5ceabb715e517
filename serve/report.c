/* SPDX-License-Identifier: Apache-2.0 */
/* The summary of a run: tokens, bytes by tier, rates, time by stage; as text and as JSON. */
#include "serve/serve.h"

void qyi_report_read(const struct qyi_engine *engine, struct qyi_report *report)
{
    qy_model_times(engine->model, report->stage_ns);
    qy_cache_stats(engine->cache, &report->cache);
}

double qyi_per_second(uint64_t count, uint64_t ns)
{
    return ns > 0 ? (double)count / ((double)ns * 1e-9) : 0;
}

double qyi_attended(const struct qy_cache_stats *stats)
{
    return stats->total_rows > 0 ? (double)stats->attended_rows / (double)stats->total_rows : 1.0;
}

static void print_stages(const struct qyi_report *report, FILE *out)
{
    uint64_t total = 0;
    for (int i = 0; i < QY_MODEL_STAGE_COUNT; i++) {
        total += report->stage_ns[i];
    }
    if (report->n_steps == 0 || total == 0) {
        return;
    }
    fprintf(out, "  decode step   %.1f ms:", (double)total * 1e-6 / (double)report->n_steps);
    for (int i = 0; i < QY_MODEL_STAGE_COUNT; i++) {
        if (i != QY_MODEL_KV) {
            fprintf(out, " %s %.1f", qy_model_stage_name((enum qy_model_stage)i),
                    (double)report->stage_ns[i] * 1e-6 / (double)report->n_steps);
        }
    }
    for (int i = 0; i < QY_STAGE_COUNT; i++) {
        fprintf(out, " %s %.1f", qy_stage_name((enum qy_stage)i),
                (double)report->cache.stage_ns[i] * 1e-6 / (double)report->n_steps);
    }
    fprintf(out, "\n");
}

void qyi_report_print(const struct qyi_engine *engine, const struct qyi_report *report, FILE *out)
{
    const struct qy_cache_stats *c = &report->cache;
    char a[32], b[32], d[32], e[32];
    fprintf(out, "  tokens        %llu read, %llu generated\n",
            (unsigned long long)report->prompt_tokens, (unsigned long long)report->new_tokens);
    fprintf(out, "  load          %.1f s to read the file and pack its weights\n",
            (double)engine->load_ns * 1e-9);
    fprintf(out, "  speed         prefill %.0f tokens/s, decode %.1f tokens/s\n",
            qyi_per_second(report->prefill_tokens, report->prefill_ns),
            qyi_per_second(report->new_tokens, report->decode_ns));
    fprintf(out, "  KV            %s on the host, %s on the device, %s index (%s reserved)\n",
            qy_format_size(c->host_bytes, a, sizeof a),
            qy_format_size(c->device_bytes, b, sizeof b),
            qy_format_size(c->index_bytes, d, sizeof d),
            qy_format_size(c->reserved_bytes, e, sizeof e));
    fprintf(
        out, "  attended      %.1f %% of the rows by policy '%s'; %s read, dense would read %s\n",
        100.0 * qyi_attended(c), engine->policy->name, qy_format_size(c->read_bytes, a, sizeof a),
        qy_format_size(c->dense_read_bytes, b, sizeof b));
    fprintf(out, "  memory        weights %s packed beside the file, activations %s\n",
            qy_format_size(qy_model_weight_bytes(engine->model), a, sizeof a),
            qy_format_size(qy_model_activation_bytes(engine->model), b, sizeof b));
    fprintf(out, "  device        %s, %s, %u threads\n", qy_device_caps(engine->dev)->name,
            qy_device_caps(engine->dev)->dense, engine->app->n_threads);
    print_stages(report, out);
}

void qyi_report_json(const struct qyi_report *report, cJSON *object)
{
    const struct qy_cache_stats *c = &report->cache;
    cJSON_AddNumberToObject(object, "prompt_tokens", (double)report->prompt_tokens);
    cJSON *bytes = cJSON_AddObjectToObject(object, "kv_bytes");
    cJSON_AddNumberToObject(bytes, "device", (double)c->device_bytes);
    cJSON_AddNumberToObject(bytes, "host", (double)c->host_bytes);
    cJSON_AddNumberToObject(bytes, "index", (double)c->index_bytes);
    cJSON_AddNumberToObject(bytes, "remote", 0);
    cJSON_AddNumberToObject(bytes, "disk", 0);
    cJSON_AddNumberToObject(object, "attended", qyi_attended(c));
    cJSON_AddNumberToObject(object, "read_bytes", (double)c->read_bytes);
    cJSON_AddNumberToObject(object, "dense_read_bytes", (double)c->dense_read_bytes);
    cJSON_AddNumberToObject(object, "prefill_tps",
                            qyi_per_second(report->prefill_tokens, report->prefill_ns));
    cJSON_AddNumberToObject(object, "decode_tps",
                            qyi_per_second(report->new_tokens, report->decode_ns));
    cJSON *stages = cJSON_AddObjectToObject(object, "stages_ms");
    const double steps = report->n_steps > 0 ? (double)report->n_steps : 1;
    for (int i = 0; i < QY_MODEL_STAGE_COUNT; i++) {
        cJSON_AddNumberToObject(stages, qy_model_stage_name((enum qy_model_stage)i),
                                (double)report->stage_ns[i] * 1e-6 / steps);
    }
    for (int i = 0; i < QY_STAGE_COUNT; i++) {
        cJSON_AddNumberToObject(stages, qy_stage_name((enum qy_stage)i),
                                (double)c->stage_ns[i] * 1e-6 / steps);
    }
}
