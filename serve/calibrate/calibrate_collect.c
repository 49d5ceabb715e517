/* SPDX-License-Identifier: Apache-2.0 */
/* Collecting: the model reads, and a policy of ours keeps keys and queries as they are before RoPE. */
#include <stdlib.h>
#include <string.h>

#include "serve/calibrate/calibrate.h"

/* The first tokens of a context are unlike all others, and are always attended to anyway. */
enum { SKIP = 4 };

enum qy_status qyi_samples_open(struct qyi_samples *samples, struct qy_kv_shape shape, size_t room,
                                int query, struct qy_error *err)
{
    const size_t heads = (size_t)shape.n_layers * shape.n_kv_heads, d = shape.head_dim;
    *samples = (struct qyi_samples){.shape = shape, .room = room, .every = 4, .base = SIZE_MAX};
    samples->keys = malloc(heads * room * d * sizeof *samples->keys);
    samples->query = query ? calloc(heads * d * d, sizeof *samples->query) : NULL;
    samples->n_query = calloc(heads, sizeof *samples->n_query);
    if (samples->keys == NULL || samples->n_query == NULL || (query && samples->query == NULL)) {
        qyi_samples_close(samples);
        return qy_error_set(err, QY_ERR_NOMEM,
                            "calibrate: %zu keys of %zu heads take %zu MiB: out of memory; ask for "
                            "fewer with --tokens",
                            room, heads, heads * room * d * sizeof *samples->keys >> 20);
    }
    return QY_OK;
}

void qyi_samples_close(struct qyi_samples *samples)
{
    free(samples->keys);
    free(samples->query);
    free(samples->n_query);
    memset(samples, 0, sizeof *samples);
}

/* ---- the policy ------------------------------------------------------------------------------- */

static enum qy_status collector_open(const struct qy_policy_params *params,
                                     struct qy_policy **policy, struct qy_error *err)
{
    (void)err;
    *policy = (struct qy_policy *)((const struct qyi_collector *)params->settings)->samples;
    return QY_OK;
}

/* sum [d][d] += q^T q, the lower triangle. */
static void add_query(const float *q, uint32_t d, double *sum)
{
    for (uint32_t a = 0; a < d; a++) {
        const double qa = q[a];
        for (uint32_t b = 0; b <= a; b++) {
            sum[(size_t)a * d + b] += qa * q[b];
        }
    }
}

static void collect(struct qyi_samples *samples, const struct qy_append_view *view)
{
    const uint32_t d = samples->shape.head_dim;
    const size_t head = (size_t)view->layer * samples->shape.n_kv_heads + view->kv_head;
    for (uint32_t i = view->first < SKIP ? SKIP - view->first : 0; i < view->n; i++) {
        const size_t place = samples->base + view->first + i - SKIP;
        const float *k = view->k + i * view->stride;
        if (place >= samples->room) {
            return;
        }
        uint16_t *key = samples->keys + (head * samples->room + place) * d;
        for (uint32_t e = 0; e < d; e++) {
            key[e] = qy_f16_from_f32(k[e]);
        }
        for (uint32_t g = 0;
             samples->query != NULL && place % samples->every == 0 && g < view->group; g++) {
            add_query(view->q + i * view->stride + (size_t)g * d, d, samples->query + head * d * d);
            samples->n_query[head]++;
        }
    }
}

static enum qy_status collector_append(struct qy_policy *policy, const struct qy_append_view *views,
                                       uint32_t n_views, struct qy_arena *arena)
{
    struct qyi_samples *samples = (struct qyi_samples *)policy;
    (void)arena;
    for (uint32_t i = 0; i < n_views && samples->base != SIZE_MAX; i++) {
        collect(samples, &views[i]);
    }
    return QY_OK;
}

const struct qy_policy_ops qyi_collector_ops = {
    .abi_size = sizeof(struct qy_policy_ops),
    .name = "collector",
    .summary = "attends to everything and keeps keys and queries for a codebook",
    .caps = {.dense = 1, .append_form = QY_KEYS_BEFORE_ROPE},
    .open = collector_open,
    .append = collector_append,
};

/* ---- reading ---------------------------------------------------------------------------------- */

/* Sums become means; both triangles. */
static void finish_query(struct qyi_samples *samples)
{
    const size_t d = samples->shape.head_dim;
    const size_t heads = (size_t)samples->shape.n_layers * samples->shape.n_kv_heads;
    for (size_t head = 0; samples->query != NULL && head < heads; head++) {
        double *m = samples->query + head * d * d;
        for (size_t a = 0; a < d; a++) {
            for (size_t b = 0; b <= a && samples->n_query[head] > 0; b++) {
                m[a * d + b] /= (double)samples->n_query[head];
                m[b * d + a] = m[a * d + b];
            }
        }
    }
}

static enum qy_status read_context(struct qyi_engine *engine, const int32_t *ids, size_t n,
                                   struct qyi_progress *progress, uint64_t before,
                                   struct qy_error *err)
{
    const size_t chunk = (size_t)engine->app->program.chunk;
    struct qy_sequence *seq = NULL;
    enum qy_status st = qy_sequence_open(engine->cache, &seq, err);
    for (size_t at = 0; st == QY_OK && at < n; at += chunk) {
        const size_t take = n - at < chunk ? n - at : chunk;
        size_t done = 0;
        st = qyi_engine_prefill(engine, seq, ids + at, take, 0, NULL, &done, err);
        qyi_progress_update(progress, before + at + take);
        if (st == QY_OK && qyi_interrupted()) {
            st = qy_error_set(err, QY_AGAIN, "calibrate: interrupted while reading; run it again");
        }
    }
    qy_sequence_close(seq);
    return st;
}

enum qy_status qyi_samples_collect(struct qyi_engine *engine, const struct qyi_contexts *contexts,
                                   struct qyi_samples *samples, struct qy_error *err)
{
    struct qyi_progress progress;
    enum qy_status st = QY_OK;
    qyi_progress_start(&progress, "reading", "tokens", contexts->n_ids);
    for (size_t i = 0; st == QY_OK && i < contexts->n; i++) {
        const size_t begin = i > 0 ? contexts->ends[i - 1] : 0, n = contexts->ends[i] - begin;
        samples->base = samples->n;
        st = read_context(engine, contexts->ids + begin, n, &progress, begin, err);
        samples->n += n > SKIP ? n - SKIP : 0;
    }
    samples->base = SIZE_MAX;
    if (st == QY_OK) {
        qyi_progress_end(&progress, contexts->n_ids);
        finish_query(samples);
    }
    return st;
}
