/* SPDX-License-Identifier: Apache-2.0 */
/* quarry doctor: from what context length on choosing tokens pays on this machine, by the trial
 * that a cache runs at open, for the shapes of a small and a usual model. */
#include <math.h>
#include <string.h>

#include "serve/codebook.h"
#include "serve/doctor/doctor.h"

enum { TOKENS = 8192, SEQUENCES = 8, MAX_D = 128 };

struct trial_shape {
    const char *name;
    struct qy_kv_shape shape;
};

static const struct trial_shape shapes[] = {
    {"d 64, 3 heads a KV head", {1, 9, 3, 64}},
    {"d 128, 4 heads a KV head", {1, 32, 8, 128}},
};

static enum qy_status measure(const struct qyi_app *app, struct qy_device *dev,
                              const struct qy_kv_shape *shape, enum qy_preset preset,
                              struct qy_cache_cost *cost, struct qy_error *err)
{
    struct qy_retrieval_settings settings = app->retrieval;
    struct qy_cache *cache = NULL;
    float inv_freq[MAX_D / 2];
    uint64_t state = 1;
    settings.preset = preset;
    settings.min_tokens = -1;
    settings.first_stage = QY_STAGE1_PQ4;
    settings.rerank = QY_RERANK_AUTO;
    for (uint32_t i = 0; i < shape->head_dim / 2; i++) {
        inv_freq[i] = powf(10000.0F, -2.0F * (float)i / (float)shape->head_dim);
    }
    struct qy_cache_params params = {
        .rt = &app->rt,
        .dev = dev,
        .shape = *shape,
        .rope = {.dim = shape->head_dim, .pairs = QY_ROPE_HALVES, .inv_freq = inv_freq},
        .settings = app->cache,
        .policy = qy_policy_find("a2ats+"),
        .retrieval = &settings,
        .max_sequences = SEQUENCES,
        .max_tokens = TOKENS,
        .max_step_tokens = SEQUENCES,
        .total_tokens = TOKENS};
    struct qy_codebook *codebook = NULL;
    enum qy_status st = qy_budget_parse(params.policy->budget(&settings), &params.budget, err);
    if (st == QY_OK) {
        st = qyi_codebook_random(&app->rt.mem, QY_CODEBOOK_PQ4, shape, &state, &codebook, err);
    }
    if (st == QY_OK) {
        params.codebook = codebook;
        st = qy_cache_open(&params, &cache, err);
    }
    if (st == QY_OK) {
        qy_cache_cost(cache, cost);
    }
    qy_cache_close(cache);
    qy_codebook_close(codebook);
    return st;
}

void qyi_doctor_selection(struct qyi_doctor *d, const struct qyi_app *app, struct qy_device *dev)
{
    static const char *const presets[] = {
        [QY_PRESET_FAITHFUL] = "faithful", [QY_PRESET_FAST] = "fast"};
    cJSON *list = cJSON_AddArrayToObject(d->root, "selection");
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof shapes[0]; i++) {
        const struct trial_shape *s = &shapes[i / 2];
        const enum qy_preset preset = i % 2 ? QY_PRESET_FAITHFUL : QY_PRESET_FAST;
        struct qy_cache_cost cost = {0};
        struct qy_error err = {0};
        char text[240], from[64];
        if (measure(app, dev, &s->shape, preset, &cost, &err) != QY_OK) {
            qyi_doctor_line(d, "selection", err.text);
            continue;
        }
        if (cost.min_tokens == 0) {
            snprintf(from, sizeof from, "at any length");
        } else {
            snprintf(from, sizeof from, "from %u tokens", cost.min_tokens);
        }
        snprintf(text, sizeof text,
                 "a2ats+ %s, %s: %.1f us and %.2f ns a token; attend %.1f ns a row, %.1f by a "
                 "list; pays %s",
                 presets[preset], s->name, cost.select_ns * 1e-3, cost.select_token_ns,
                 cost.attend_row_ns, cost.gather_row_ns, from);
        qyi_doctor_line(d, "selection", text);
        cJSON *item = cJSON_CreateObject();
        cJSON_AddItemToArray(list, item);
        cJSON_AddStringToObject(item, "preset", presets[preset]);
        cJSON_AddNumberToObject(item, "head_dim", s->shape.head_dim);
        cJSON_AddNumberToObject(item, "group", s->shape.n_heads / (double)s->shape.n_kv_heads);
        cJSON_AddNumberToObject(item, "select_ns", cost.select_ns);
        cJSON_AddNumberToObject(item, "select_token_ns", cost.select_token_ns);
        cJSON_AddNumberToObject(item, "attend_row_ns", cost.attend_row_ns);
        cJSON_AddNumberToObject(item, "gather_row_ns", cost.gather_row_ns);
        cJSON_AddNumberToObject(item, "min_tokens", cost.min_tokens);
    }
}
