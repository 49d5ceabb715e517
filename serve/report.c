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

/* The part of a report that needs no model. */
static struct qyi_cache_report cache_report(const struct qyi_engine *engine,
                                            const struct qyi_report *report)
{
    return (struct qyi_cache_report){.cache = engine->cache,
                                     .n_layers = qy_model_info(engine->model)->n_layers,
                                     .policy = engine->app->retrieval.policy,
                                     .stats = &report->cache,
                                     .n_steps = report->n_steps,
                                     .steps_ns = report->decode_ns};
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
    qyi_cache_stages_print(&report->cache, (double)report->n_steps, 1, out);
    fprintf(out, "\n");
}

void qyi_report_print(const struct qyi_engine *engine, const struct qyi_report *report, FILE *out)
{
    const struct qyi_cache_report cache = cache_report(engine, report);
    char a[32], b[32];
    fprintf(out, "  tokens        %llu read, %llu generated\n",
            (unsigned long long)report->prompt_tokens, (unsigned long long)report->new_tokens);
    fprintf(out, "  load          %.1f s to read the file and pack its weights\n",
            (double)engine->load_ns * 1e-9);
    fprintf(out, "  speed         prefill %.0f tokens/s, decode %.1f tokens/s\n",
            qyi_per_second(report->prefill_tokens, report->prefill_ns),
            qyi_per_second(report->new_tokens, report->decode_ns));
    qyi_cache_report_print(&cache, out);
    fprintf(out, "  memory        weights %s packed beside the file, activations %s\n",
            qy_format_size(qy_model_weight_bytes(engine->model), a, sizeof a),
            qy_format_size(qy_model_activation_bytes(engine->model), b, sizeof b));
    fprintf(out, "  device        %s, %s, %u threads\n", qy_device_caps(engine->dev)->name,
            qy_device_caps(engine->dev)->dense, engine->app->n_threads);
    print_stages(report, out);
}

void qyi_report_json(const struct qyi_engine *engine, const struct qyi_report *report,
                     cJSON *object)
{
    const struct qyi_cache_report cache = cache_report(engine, report);
    cJSON_AddNumberToObject(object, "prompt_tokens", (double)report->prompt_tokens);
    cJSON_AddStringToObject(object, "device", qy_device_caps(engine->dev)->name);
    qyi_cache_report_json(&cache, object);
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
    qyi_cache_stages_json(&report->cache, steps, stages);
}
