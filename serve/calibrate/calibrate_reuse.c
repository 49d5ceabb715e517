/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry calibrate --reuse: which layers may take what an earlier one chose. The model reads the
 * beginning of each text and decodes some of what follows, by --policy; what the layers choose is
 * compared, and the map is written as a file of settings for --config.
 */
#include <stdio.h>
#include <stdlib.h>

#include "serve/calibrate/calibrate.h"
#include "serve/reuse_map.h"

/* chosen: the length that codebooks learn from, too; and enough steps for a share to settle */
enum { STEPS = 64 };
/* chosen: what two steps in a row have in common, about: a choice that is a step old is as good */
static const double default_least = 0.8;

struct learner {
    struct qyi_engine engine;
    struct qyi_agreement agreement;
    uint32_t sinks, window, n_tokens; /* of the running step */
    uint64_t read;                    /* tokens              */
};

/* Without sinks and window, which all layers attend to. */
static void look(void *ctx, uint32_t sequence, uint32_t layer, uint32_t kv_head,
                 const uint32_t *ids, uint32_t n)
{
    struct learner *l = ctx;
    const uint32_t end = l->n_tokens > l->window ? l->n_tokens - l->window : 0;
    (void)sequence;
    while (n > 0 && ids[n - 1] >= end) {
        n--;
    }
    while (n > 0 && ids[0] < l->sinks) {
        ids++;
        n--;
    }
    qyi_agreement_add(&l->agreement, layer, kv_head, ids, n);
}

/* Reads `context` tokens of a text, and decodes what follows. */
static enum qy_status read_text(struct learner *l, const char *path, uint64_t context,
                                struct qy_error *err)
{
    struct qyi_engine *engine = &l->engine;
    struct qy_sequence *seq = NULL;
    struct qyi_progress progress;
    int32_t *ids = NULL;
    size_t n = 0, done = 0;
    const uint32_t row = 0;
    enum qy_status st = qyi_read_ids(engine, path, &ids, &n, err);
    if (st == QY_OK && n < context + STEPS) {
        st = qy_error_set(err, QY_ERR_CONFIG,
                          "text '%s': has %zu tokens; %llu to read and %d to decode are needed; "
                          "give a longer one, or fewer --tokens",
                          path, n, (unsigned long long)context, STEPS);
    }
    if (st == QY_OK) {
        st = qy_sequence_open(engine->cache, &seq, err);
    }
    if (st == QY_OK) {
        qyi_progress_start(&progress, "reading", "tokens", context);
        st = qyi_engine_prefill(engine, seq, ids, context, 0, &progress, &done, err);
        qyi_progress_end(&progress, done);
    }
    for (uint32_t i = 0; st == QY_OK && i < STEPS && !qyi_interrupted(); i++) {
        const struct qy_step_slice slice = {
            .seq = seq, .n_tokens = 1, .ids = &ids[context + i], .mode = QY_ATTEND_POLICY};
        l->n_tokens = (uint32_t)context + i + 1;
        qyi_agreement_step(&l->agreement);
        /* not qyi_engine_forward: what it takes again would be counted twice */
        st =
            qy_model_forward(engine->model, engine->cache, &slice, 1, &row, 1, engine->logits, err);
    }
    l->read += context;
    qy_sequence_close(seq);
    qy_free(&engine->app->rt.mem, ids);
    return st;
}

static void print_table(const struct learner *l, const uint32_t *source)
{
    fprintf(stderr, "%5s  %-22s %s\n", "layer", "best earlier layer", "takes its choice");
    for (uint32_t layer = 1; layer < l->agreement.n_layers; layer++) {
        uint32_t best = 0;
        for (uint32_t m = 1; m < layer; m++) {
            if (qyi_agreement_share(&l->agreement, layer, m) >
                qyi_agreement_share(&l->agreement, layer, best)) {
                best = m;
            }
        }
        fprintf(stderr, "%5u  %3u has %.2f of its ids   ", layer, best,
                qyi_agreement_share(&l->agreement, layer, best));
        if (source[layer] == QYI_OWN_CHOICE) {
            fprintf(stderr, "-\n");
        } else {
            fprintf(stderr, "%u\n", source[layer]);
        }
    }
}

static enum qy_status write_settings(const char *path, const struct qyi_app *app, double least,
                                     const char *map, struct qy_error *err)
{
    FILE *f = fopen(path, "w");
    const int written =
        f != NULL && fprintf(f,
                             "# learnt by quarry calibrate --reuse, policy %s: layers that agree "
                             "in %.2f of their tokens\n[retrieval]\nreuse_layers = %s\n",
                             app->retrieval.policy, least, map) > 0;
    const int closed = f == NULL || fclose(f) == 0;
    return written && closed
               ? QY_OK
               : qy_error_set(err, QY_ERR_NOT_FOUND,
                              "file '%s': cannot be written; give another with -o", path);
}

static enum qy_status learn(struct learner *l, struct qyi_app *app, double least,
                            struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    const uint64_t context = args->tokens > 0 ? args->tokens : QYI_CALIBRATE_CONTEXT;
    const struct qyi_engine_params params = {.max_sequences = 1,
                                             .max_tokens = (uint32_t)context + STEPS,
                                             .max_step_tokens = (uint32_t)app->program.chunk,
                                             .max_logits = 1,
                                             .on_selection = look,
                                             .selection_ctx = l};
    char map[QY_SETTING_TEXT_BYTES];
    enum qy_status st = qyi_engine_open_model(&l->engine, &params, err);
    if (st != QY_OK) {
        return st;
    }
    const struct qy_kv_shape shape = qy_model_kv_shape(l->engine.model);
    l->sinks = (uint32_t)app->cache.sinks;
    l->window = (uint32_t)app->cache.window;
    uint32_t *source = calloc(shape.n_layers, sizeof *source);
    st = qyi_agreement_open(&app->rt.mem, shape.n_layers, shape.n_kv_heads, params.max_tokens,
                            &l->agreement);
    if (st != QY_OK || source == NULL) {
        st = qy_error_set(err, QY_ERR_NOMEM, "calibrate: out of memory for choices");
    }
    for (size_t i = 0; st == QY_OK && i < args->n_texts && !qyi_interrupted(); i++) {
        st = read_text(l, args->texts[i], context, err);
    }
    if (st == QY_OK && qyi_interrupted()) {
        st = qy_error_set(err, QY_AGAIN, "calibrate: interrupted; nothing was written");
    }
    if (st == QY_OK) {
        const uint32_t n = qyi_reuse_map(&l->agreement, least, source);
        if (!qyi_reuse_map_print(source, shape.n_layers, map, sizeof map)) {
            st = qy_error_set(err, QY_ERR_CONFIG,
                              "calibrate: the map of %u layers is longer than a setting may be; "
                              "raise --overlap",
                              n);
        }
    }
    if (st == QY_OK) {
        st = write_settings(args->output, app, least, map, err);
    }
    if (st == QY_OK && args->json) {
        cJSON *object = cJSON_CreateObject();
        qyi_json_add_text(object, "file", args->output);
        cJSON_AddStringToObject(object, "policy", app->retrieval.policy);
        cJSON_AddStringToObject(object, "reuse_layers", map);
        cJSON_AddNumberToObject(object, "overlap", least);
        cJSON_AddNumberToObject(object, "tokens", (double)l->read);
        qyi_print_json(object);
    } else if (st == QY_OK) {
        print_table(l, source);
        printf("%s: retrieval.reuse_layers = %s\n", args->output, map);
    }
    free(source);
    return st;
}

enum qy_status qyi_calibrate_reuse(struct qyi_app *app, struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    struct learner l = {.read = 0};
    char *end = NULL;
    const double least = args->overlap == NULL ? default_least : strtod(args->overlap, &end);
    if ((end != NULL && (end == args->overlap || *end != '\0')) || !(least > 0 && least <= 1)) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "--overlap '%.40s': above 0 and up to 1 is accepted", args->overlap);
    }
    if (args->n_texts == 0 || args->output == NULL) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "calibrate --reuse: needs a text (-t FILE) and a file of settings to "
                            "write (-o FILE)");
    }
    if (args->tokens > (1u << 26)) {
        return qy_error_set(err, QY_ERR_CONFIG, "--tokens %llu: up to 67108864 are accepted",
                            (unsigned long long)args->tokens);
    }
    enum qy_status st = qyi_engine_open_file(app, &l.engine, err);
    if (st == QY_OK) {
        st = learn(&l, app, least, err);
        qyi_agreement_close(&app->rt.mem, &l.agreement);
        qyi_engine_close(&l.engine);
    }
    return st;
}
