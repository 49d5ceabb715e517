/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry bench decode --shape: attention of layers of a model's shape, without the model. Rows are
 * random, and so is the policy's codebook: its speed depends on neither. Each round times a dense
 * step and a step by the policy, one after the other, over the same sequences and threads.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "serve/bench_shape.h"
#include "serve/codebook.h"

enum { ROUNDS_BEFORE = 2, ROPE_BASE = 500000 };

static const struct named_shape {
    const char *name;
    struct qy_kv_shape shape; /* of one layer */
} shapes[] = {
    {"llama3-8b", {1, 32, 8, 128}},
    {"llama3-70b", {1, 64, 8, 128}},
    {"smollm2-135m", {1, 9, 3, 64}},
};

static enum qy_status choose_shape(struct qyi_shape_bench *b, struct qy_error *err)
{
    const struct qyi_args *args = b->app->args;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (strcmp(shapes[i].name, args->shape) == 0) {
            b->shape = shapes[i].shape;
        }
    }
    if (b->shape.head_dim == 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--shape': '%s' refused; llama3-8b, llama3-70b, smollm2-135m "
                            "are accepted, changed by --heads, --kv-heads, --head-dim, --layers",
                            args->shape);
    }
    const uint64_t given[] = {args->layers, args->heads, args->kv_heads, args->head_dim};
    uint32_t *const member[] = {&b->shape.n_layers, &b->shape.n_heads, &b->shape.n_kv_heads,
                                &b->shape.head_dim};
    for (int i = 0; i < 4; i++) {
        *member[i] = given[i] > 0 ? (uint32_t)given[i] : *member[i];
    }
    if (b->shape.n_layers > 1024 || b->shape.n_heads > 1024 || b->shape.head_dim > 1024 ||
        b->shape.n_kv_heads > b->shape.n_heads || b->shape.n_heads % b->shape.n_kv_heads != 0 ||
        b->shape.head_dim % 2 != 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "bench decode: %u heads, %u KV heads, head dimension %u, %u layers "
                            "refused; the KV heads divide the heads, the head dimension is even, "
                            "each at most 1024",
                            b->shape.n_heads, b->shape.n_kv_heads, b->shape.head_dim,
                            b->shape.n_layers);
    }
    return QY_OK;
}

static size_t row_elements(const struct qyi_shape_bench *b)
{
    return (size_t)(b->shape.n_heads + 2 * b->shape.n_kv_heads) * b->shape.head_dim;
}

static enum qy_status open_cache(struct qyi_shape_bench *b, struct qy_error *err)
{
    const struct qyi_args *args = b->app->args;
    const uint32_t batch = (uint32_t)args->batch, d = b->shape.head_dim;
    const struct qy_device_params device = {.spec = b->app->program.device,
                                            .deterministic = b->app->program.deterministic,
                                            .max_m = batch,
                                            .link = qyi_link(b->app)};
    for (uint32_t i = 0; i < d / 2; i++) {
        b->inv_freq[i] = (float)pow(ROPE_BASE, -2.0 * i / d);
    }
    enum qy_status st = qy_device_open(&b->app->rt, &device, &b->dev, err);
    const struct qy_cache_params params = {
        .rt = &b->app->rt,
        .dev = b->dev,
        .shape = b->shape,
        .rope = {.pairs = QY_ROPE_ADJACENT, .dim = d, .inv_freq = b->inv_freq},
        .settings = b->app->cache,
        .policy = b->policy,
        .policy_argument = qy_policy_argument(b->app->retrieval.policy),
        .codebook = b->codebook,
        .retrieval = &b->settings,
        .budget = b->budget,
        .max_sequences = batch,
        .max_tokens = (uint32_t)(args->context + 2 * (args->steps + ROUNDS_BEFORE)),
        .max_step_tokens = batch};
    if (st == QY_OK && !qy_device_caps(b->dev)->unified) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "device '%s': --shape times attention on a device that shares memory, "
                            "as 'host' does; give a model for others",
                            b->app->program.device);
    }
    return st == QY_OK ? qy_cache_open(&params, &b->cache, err) : st;
}

static enum qy_status fill(struct qyi_shape_bench *b, struct qy_error *err)
{
    const struct qyi_args *args = b->app->args;
    static const int32_t id = 1;
    enum qy_status st = QY_OK;
    for (uint64_t i = 0; st == QY_OK && i < args->batch; i++) {
        st = qy_sequence_open(b->cache, &b->seqs[i], err);
        if (st == QY_OK &&
            qy_sequence_fill_random(b->seqs[i], (uint32_t)args->context, i + 1) != QY_OK) {
            st = qy_error_set(err, QY_ERR_NOMEM, "cache: no room for --context and --batch");
        }
        b->slices[i] = (struct qy_step_slice){.seq = b->seqs[i], .n_tokens = 1, .ids = &id};
    }
    for (size_t i = 0; i < args->batch * row_elements(b); i++) {
        b->fresh[i] = qyi_near_normal(&b->random);
    }
    return st;
}

/* One step of all sequences; a warm-up when `samples` is NULL. */
static enum qy_status step(struct qyi_shape_bench *b, enum qy_attend_mode mode,
                           struct qyi_shape_side *side, uint64_t *sample, struct qy_error *err)
{
    const uint32_t batch = (uint32_t)b->app->args->batch;
    const size_t stride = row_elements(b), d = b->shape.head_dim;
    struct qy_cache_stats before, after;
    qy_cache_stats(b->cache, &before);
    for (uint32_t i = 0; i < batch; i++) {
        b->slices[i].mode = mode;
    }
    uint64_t ns = qy_clock_ns();
    enum qy_status st = qy_step_begin(b->cache, b->slices, batch, err);
    uint64_t copied = 0; /* what a model would have computed instead */
    for (uint32_t l = 0; st == QY_OK && l < b->shape.n_layers; l++) {
        const uint64_t begin = qy_clock_ns();
        memcpy(b->qkv, b->fresh, batch * stride * sizeof *b->qkv);
        copied += qy_clock_ns() - begin;
        const struct qy_qkv qkv = {.q = b->qkv,
                                   .k = b->qkv + b->shape.n_heads * d,
                                   .v = b->qkv + (b->shape.n_heads + b->shape.n_kv_heads) * d,
                                   .stride = stride,
                                   .out = b->out};
        st = qy_step_attend(b->cache, l, &qkv);
    }
    if (st == QY_OK) {
        st = qy_step_end(b->cache);
    }
    if (st != QY_OK) {
        qy_step_abort(b->cache);
        return err->text[0] != '\0' ? st : qy_error_set(err, st, "bench decode: a step failed");
    }
    ns = qy_clock_ns() - ns - copied;
    qy_cache_stats(b->cache, &after);
    if (sample != NULL) {
        for (int i = 0; i < QY_STAGE_COUNT; i++) {
            side->stage_ns[i] += after.stage_ns[i] - before.stage_ns[i];
        }
        /* dense alone would have no index to write */
        const uint64_t index = after.stage_ns[QY_STAGE_ENCODE] - before.stage_ns[QY_STAGE_ENCODE];
        *sample = ns - (mode == QY_ATTEND_DENSE ? index : 0);
    }
    return QY_OK;
}

static enum qy_status time_rounds(struct qyi_shape_bench *b, struct qy_error *err)
{
    enum qy_status st = QY_OK;
    for (int i = 0; st == QY_OK && i < ROUNDS_BEFORE; i++) {
        st = step(b, QY_ATTEND_DENSE, &b->dense, NULL, err);
        if (st == QY_OK) {
            st = step(b, QY_ATTEND_POLICY, &b->sparse, NULL, err);
        }
    }
    qy_cache_stats_reset(b->cache);
    for (uint64_t i = 0; st == QY_OK && i < b->app->args->steps && !qyi_interrupted(); i++) {
        st = step(b, QY_ATTEND_DENSE, &b->dense, &b->dense.samples[i], err);
        if (st == QY_OK) {
            st = step(b, QY_ATTEND_POLICY, &b->sparse, &b->sparse.samples[i], err);
            b->n += st == QY_OK;
        }
    }
    return st;
}

static enum qy_status run(struct qyi_shape_bench *b, struct qy_error *err)
{
    const enum qy_codebook_kind kind =
        b->policy->codebook != NULL ? b->policy->codebook(&b->settings) : QY_CODEBOOK_NONE;
    enum qy_status st =
        qyi_codebook_random(&b->app->rt.mem, kind, &b->shape, &b->random, &b->codebook, err);
    if (st == QY_OK) {
        st = open_cache(b, err);
    }
    if (st == QY_OK) {
        st = fill(b, err);
    }
    if (st == QY_OK) {
        st = time_rounds(b, err);
    }
    if (st == QY_OK && b->n > 0) {
        qyi_shape_report(b);
    }
    return st;
}

/* The policy, its budget, and settings under which one layer alone is measured. */
static enum qy_status choose_policy(struct qyi_shape_bench *b, struct qy_error *err)
{
    enum qy_status st = qy_policy_choose(b->app->retrieval.policy, &b->policy, err);
    if (st != QY_OK) {
        return st;
    }
    b->settings = b->app->retrieval;
    if (b->settings.dense_layers < 0) {
        b->settings.dense_layers = 0;
    }
    if (b->settings.min_tokens < 0) {
        b->settings.min_tokens = 0;
    }
    const char *text = b->settings.budget;
    if (strcmp(text, "auto") == 0) {
        text = b->policy->budget != NULL ? b->policy->budget(&b->settings) : "0.05";
    }
    return qy_budget_parse(text, &b->budget, err);
}

enum qy_status qyi_bench_shape(struct qyi_app *app, struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    struct qyi_shape_bench b = {.app = app, .random = (uint64_t)app->program.seed + 1};
    enum qy_status st = choose_shape(&b, err);
    if (st == QY_OK) {
        st = choose_policy(&b, err);
    }
    if (st != QY_OK) {
        return st;
    }
    const size_t elements = args->batch * row_elements(&b);
    b.seqs = calloc(args->batch, sizeof(struct qy_sequence *));
    b.slices = calloc(args->batch, sizeof *b.slices);
    b.inv_freq = calloc(b.shape.head_dim, sizeof *b.inv_freq);
    b.fresh = calloc(elements, sizeof *b.fresh);
    b.qkv = calloc(elements, sizeof *b.qkv);
    b.out = calloc(elements, sizeof *b.out);
    b.dense.samples = calloc(args->steps, sizeof(uint64_t));
    b.sparse.samples = calloc(args->steps, sizeof(uint64_t));
    if (b.seqs == NULL || b.slices == NULL || b.inv_freq == NULL || b.fresh == NULL ||
        b.qkv == NULL || b.out == NULL || b.dense.samples == NULL || b.sparse.samples == NULL) {
        st = qy_error_set(err, QY_ERR_NOMEM, "bench decode: out of memory");
    } else {
        st = run(&b, err);
    }
    for (uint64_t i = 0; b.seqs != NULL && i < args->batch; i++) {
        qy_sequence_close(b.seqs[i]);
    }
    qy_cache_close(b.cache);
    qy_codebook_close(b.codebook);
    qy_device_close(b.dev);
    void *const all[] = {b.seqs, b.slices, b.inv_freq,      b.fresh,
                         b.qkv,  b.out,    b.dense.samples, b.sparse.samples};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        free(all[i]);
    }
    return st;
}
