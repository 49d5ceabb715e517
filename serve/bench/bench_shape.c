/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry bench decode --shape: attention and movement of layers of a model's shape, without the model.
 * Rows are random, and so is the policy's codebook: its speed depends on neither. On a unified device
 * each step by the policy follows a dense one over the same sequences and threads; on a discrete one
 * dense attention would have all rows pass through, and is asked for by --policy dense.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench_batch.h"
#include "serve/bench/bench_shape.h"
#include "serve/codebook.h"
#include "serve/memory/memory_link.h"

enum { ROPE_BASE = 500000 };
/*
 * chosen: with it the selections of random rows come back as those of a model do. At 7,680 tokens, a
 * budget of 3 % and exact selection the share of a step's rows that is found in slots for 1, 2, 3 and
 * 4 times these rows is .60, .73, .77 and .83; of SmolLM2-135M on a text it is .61, .79, .86, .90
 */
static const double default_drift = 0.07;

static const struct named_shape {
    const char *name;
    struct qy_kv_shape shape; /* of one layer */
} shapes[] = {
    {"llama3-8b", {1, 32, 8, 128}},
    {"llama3-70b", {1, 64, 8, 128}},
    {"smollm2-135m", {1, 9, 3, 64}},
};

enum qy_status qyi_shape_choose(const struct qyi_args *args, const char *name,
                                struct qy_kv_shape *shape, struct qy_error *err)
{
    struct qy_kv_shape s = {0};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (strcmp(shapes[i].name, name) == 0) {
            s = shapes[i].shape;
        }
    }
    if (s.head_dim == 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--shape': '%s' refused; llama3-8b, llama3-70b, smollm2-135m "
                            "are accepted, changed by --heads, --kv-heads, --head-dim, --layers",
                            name);
    }
    const uint64_t given[] = {args->layers, args->heads, args->kv_heads, args->head_dim};
    uint32_t *const member[] = {&s.n_layers, &s.n_heads, &s.n_kv_heads, &s.head_dim};
    for (int i = 0; i < 4; i++) {
        *member[i] = given[i] > 0 ? (uint32_t)given[i] : *member[i];
    }
    if (s.n_layers > 1024 || s.n_heads > 1024 || s.head_dim > 1024 || s.n_kv_heads > s.n_heads ||
        s.n_heads % s.n_kv_heads != 0 || s.head_dim % 2 != 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "bench %s: %u heads, %u KV heads, head dimension %u, %u layers "
                            "refused; the KV heads divide the heads, the head dimension is even, "
                            "each at most 1024",
                            args->topic, s.n_heads, s.n_kv_heads, s.head_dim, s.n_layers);
    }
    *shape = s;
    return QY_OK;
}

/* --query-drift: from 0 to 1. */
static enum qy_status choose_drift(struct qyi_shape_bench *b, struct qy_error *err)
{
    const char *text = b->app->args->query_drift;
    char *end = NULL;
    b->drift = default_drift;
    if (text == NULL) {
        return QY_OK;
    }
    errno = 0;
    b->drift = strtod(text, &end);
    return end != text && *end == '\0' && errno == 0 && b->drift >= 0 && b->drift <= 1
               ? QY_OK
               : qy_error_set(err, QY_ERR_CONFIG,
                              "option '--query-drift': '%s' refused; the share of a query that is "
                              "new at each step is accepted, from 0 to 1",
                              text);
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
        .max_tokens =
            (uint32_t)(args->context + 3 * args->steps + qyi_bench_most_warm_up(args) + 1),
        .max_step_tokens = batch};
    return st == QY_OK ? qy_cache_open(&params, &b->cache, err) : st;
}

static enum qy_status fill(struct qyi_shape_bench *b, struct qy_error *err)
{
    const struct qyi_args *args = b->app->args;
    static const int32_t id = 1;
    enum qy_status st = QY_OK;
    for (uint64_t i = 0; st == QY_OK && i < args->batch; i++) {
        st = qy_sequence_open(b->cache, &b->seqs[i], err);
        if (st != QY_OK) {
            break;
        }
        st = qy_sequence_fill_random(b->seqs[i], (uint32_t)args->context, i + 1);
        if (st != QY_OK) {
            st = qy_error_set(err, st == QY_AGAIN ? QY_ERR_NOMEM : st,
                              "cache: room for %llu of %llu sequences (%s); raise cache.host_bytes "
                              "or the device's memory, or lower --batch",
                              (unsigned long long)i, (unsigned long long)args->batch,
                              qy_status_name(st));
        }
        b->slices[i] = (struct qy_step_slice){.seq = b->seqs[i], .n_tokens = 1, .ids = &id};
    }
    return st;
}

static enum qy_status time_steps(struct qyi_shape_bench *b, struct qy_error *err)
{
    const int unified = qy_device_caps(b->dev)->unified;
    b->steps.cache = b->cache;
    b->steps.step = qyi_shape_step;
    b->steps.data = b;
    b->steps.n_layers = b->shape.n_layers;
    b->steps.overlap = b->app->cache.overlap;
    enum qy_status st = qyi_shape_steps_open(b, err);
    if (st == QY_OK) {
        st = qyi_bench_steps_warm(&b->steps, qyi_bench_warm_up(b->app->args, b->dev), err);
    }
    if (st == QY_OK && unified && strcmp(b->policy->name, "dense") != 0) {
        b->dense.samples = calloc(b->steps.n, sizeof *b->dense.samples);
        st = b->dense.samples != NULL
                 ? QY_OK
                 : qy_error_set(err, QY_ERR_NOMEM, "bench decode: out of memory");
    }
    b->checksum = 0;
    if (st == QY_OK) {
        st = qyi_bench_steps_time(&b->steps, err);
    }
    const uint64_t checksum = b->checksum;
    if (st == QY_OK && !unified) {
        st = qyi_bench_steps_movement(&b->steps, err);
    }
    b->checksum = checksum;
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
        st = time_steps(b, err);
    }
    if (st == QY_OK && b->steps.n_timed > 0) {
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
    b->budget_text = b->settings.budget;
    if (strcmp(b->budget_text, "auto") == 0) {
        b->budget_text = b->policy->budget != NULL ? b->policy->budget(&b->settings) : "0.05";
    }
    return qy_budget_parse(b->budget_text, &b->budget, err);
}

enum qy_status qyi_bench_shape(struct qyi_app *app, struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    struct qyi_shape_bench b = {.app = app, .random = (uint64_t)app->program.seed + 1};
    if (qyi_memory_link_wanted(app)) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "memory servers: bench decode --shape keeps its rows in this process; "
            "leave net.memory empty and start no memory ranks, or leave --shape out");
    }
    enum qy_status st = qyi_shape_choose(app->args, app->args->shape, &b.shape, err);
    if (st == QY_OK) {
        st = choose_drift(&b, err);
    }
    if (st == QY_OK) {
        st = choose_policy(&b, err);
    }
    if (st != QY_OK) {
        return st;
    }
    const size_t elements = args->batch * qyi_shape_row(&b);
    b.seqs = calloc(args->batch, sizeof(struct qy_sequence *));
    b.slices = calloc(args->batch, sizeof *b.slices);
    b.inv_freq = calloc(b.shape.head_dim, sizeof *b.inv_freq);
    b.fresh = calloc(elements, sizeof *b.fresh);
    b.own = calloc(elements, sizeof *b.own);
    b.qkv = calloc(elements, sizeof *b.qkv);
    b.out = calloc(elements, sizeof *b.out);
    st = b.seqs == NULL || b.slices == NULL || b.inv_freq == NULL || b.fresh == NULL ||
                 b.own == NULL || b.qkv == NULL || b.out == NULL
             ? qy_error_set(err, QY_ERR_NOMEM, "bench decode: out of memory")
             : qyi_bench_steps_open(&b.steps, args->steps, err);
    if (st == QY_OK) {
        st = run(&b, err);
    }
    for (uint64_t i = 0; b.seqs != NULL && i < args->batch; i++) {
        qy_sequence_close(b.seqs[i]);
    }
    qy_cache_close(b.cache);
    qy_codebook_close(b.codebook);
    qy_device_close(b.dev);
    qyi_bench_steps_close(&b.steps);
    void *const all[] = {b.seqs, b.slices, b.inv_freq, b.fresh,        b.own,
                         b.qkv,  b.out,    b.sweep,    b.dense.samples};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        free(all[i]);
    }
    return st;
}
