/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of bench decode --shape: attention of all layers, as a model would ask for it, without what a
 * model computes in between.
 *
 * Queries. A model's selections move little from step to step, and a token that was chosen is chosen
 * again many steps later; what is found on a small device depends on that. So each query is
 * sqrt(1 - D) times one that stays the sequence's own and sqrt(D) times a random one, D =
 * --query-drift. (Drawn from the last step's query instead, chosen tokens would not come back.) New
 * keys and values are random.
 * Caches. The one or few layers of a shape may fit into the processor's caches, a model's do not: its
 * weights and other layers pass through in every step. So SWEEP bytes are read before each step.
 * Neither is timed.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench_shape.h"
#include "serve/codebook.h"

static const size_t sweep_bytes = (size_t)256 << 20;

/* The share of a query that is new. For k and v it is all. */
static void draw(struct qyi_shape_bench *b, double drift)
{
    const size_t stride = qyi_shape_row(b), n_q = (size_t)b->shape.n_heads * b->shape.head_dim;
    const float keep = (float)sqrt(1.0 - drift), add = (float)sqrt(drift);
    for (size_t i = 0; i < b->app->args->batch * stride; i++) {
        const float random = qyi_near_normal(&b->random);
        b->fresh[i] = i % stride < n_q ? keep * b->own[i] + add * random : random;
    }
}

enum qy_status qyi_shape_steps_open(struct qyi_shape_bench *b, struct qy_error *err)
{
    b->sweep = malloc(sweep_bytes);
    if (b->sweep == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "bench decode: out of memory");
    }
    memset(b->sweep, 1, sweep_bytes);
    for (size_t i = 0; i < b->app->args->batch * qyi_shape_row(b); i++) {
        b->own[i] = qyi_near_normal(&b->random);
    }
    draw(b, b->drift);
    return QY_OK;
}

static void sweep_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    uint64_t *words = arg;
    size_t begin, end;
    qy_team_range(sweep_bytes / sizeof *words, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i += 64 / sizeof *words) { /* one of each line of the cache */
        words[i]++;
    }
}

/* A pass over all layers: where q, k, v are, and the time that is none of attention's. */
struct pass {
    struct qyi_shape_bench *bench;
    struct qy_qkv qkv;
    int counts; /* outputs belong to the answer */
    uint64_t aside_ns;
};

/* q, k, v of a micro-batch: what a model would have computed. */
static enum qy_status start(struct pass *p, uint32_t micro_batch, uint32_t l)
{
    const struct qyi_shape_bench *b = p->bench;
    const struct qy_row_range rows = qy_step_rows(b->cache, micro_batch);
    const size_t stride = qyi_shape_row(b);
    const uint64_t begin = qy_clock_ns();
    memcpy(b->qkv + rows.first * stride, b->fresh + rows.first * stride,
           rows.n * stride * sizeof *b->qkv);
    p->aside_ns += qy_clock_ns() - begin;
    return qy_step_attend_start(b->cache, micro_batch, l, &p->qkv);
}

static enum qy_status finish(struct pass *p, uint32_t micro_batch, uint32_t l)
{
    struct qyi_shape_bench *b = p->bench;
    const size_t n = (size_t)b->shape.n_heads * b->shape.head_dim;
    const struct qy_row_range rows = qy_step_rows(b->cache, micro_batch);
    const enum qy_status st = qy_step_attend_finish(b->cache, micro_batch, l, &p->qkv);
    const uint64_t begin = qy_clock_ns();
    for (uint32_t i = rows.first; p->counts && st == QY_OK && i < rows.first + rows.n; i++) {
        b->checksum += qy_checksum(b->out + i * n, n * sizeof *b->out, (uint64_t)l << 32 | i);
    }
    p->aside_ns += qy_clock_ns() - begin;
    return st;
}

/* In the order of a model: a micro-batch finishes a layer when the others have started theirs. */
static enum qy_status layers(struct pass *p)
{
    const struct qyi_shape_bench *b = p->bench;
    const uint32_t n_micro = qy_step_micro_batches(b->cache);
    enum qy_status st = QY_OK;
    for (uint32_t l = 0; l < b->shape.n_layers; l++) {
        for (uint32_t i = 0; st == QY_OK && i < n_micro; i++) {
            if (l > 0) {
                st = finish(p, i, l - 1);
            }
            if (st == QY_OK) {
                st = start(p, i, l);
            }
        }
    }
    for (uint32_t i = 0; st == QY_OK && i < n_micro; i++) {
        st = finish(p, i, b->shape.n_layers - 1);
    }
    return st;
}

/* One step of all sequences. A dense one is left at its end: it adds no tokens. */
static enum qy_status step(struct qyi_shape_bench *b, enum qy_attend_mode mode, uint64_t *ns,
                           struct qy_error *err)
{
    const uint32_t batch = (uint32_t)b->app->args->batch, d = b->shape.head_dim;
    struct pass p = {.bench = b,
                     .qkv = {.q = b->qkv,
                             .k = b->qkv + b->shape.n_heads * d,
                             .v = b->qkv + (b->shape.n_heads + b->shape.n_kv_heads) * d,
                             .stride = qyi_shape_row(b),
                             .out = b->out},
                     .counts = mode == QY_ATTEND_POLICY};
    for (uint32_t i = 0; i < batch; i++) {
        b->slices[i].mode = mode;
    }
    qy_team_run(b->app->rt.team, sweep_share, b->sweep);
    const uint64_t begin = qy_clock_ns();
    enum qy_status st = qy_step_begin(b->cache, b->slices, batch, err);
    if (st == QY_OK) {
        st = layers(&p);
    }
    if (st == QY_OK && mode == QY_ATTEND_POLICY) {
        st = qy_step_end(b->cache);
    }
    *ns = qy_clock_ns() - begin - p.aside_ns;
    if (st != QY_OK || mode == QY_ATTEND_DENSE) {
        qy_step_abort(b->cache);
    }
    if (st != QY_OK && err->text[0] == '\0') {
        return qy_error_set(err, st, "bench decode: a step failed: %s", qy_status_name(st));
    }
    return st;
}

static enum qy_status dense_step(struct qyi_shape_bench *b, struct qy_error *err)
{
    struct qyi_shape_dense *dense = &b->dense;
    struct qy_cache_stats before, after;
    uint64_t ns;
    qy_cache_stats(b->cache, &before);
    const enum qy_status st = step(b, QY_ATTEND_DENSE, &ns, err);
    qy_cache_stats(b->cache, &after);
    for (int i = 0; i < QY_STAGE_COUNT; i++) {
        dense->stage_ns[i] += after.stage_ns[i] - before.stage_ns[i];
    }
    /* dense alone would have no index to write */
    dense->samples[dense->n] =
        ns - (after.stage_ns[QY_STAGE_ENCODE] - before.stage_ns[QY_STAGE_ENCODE]);
    dense->n += st == QY_OK;
    return st;
}

enum qy_status qyi_shape_step(void *data, uint64_t *ns, struct qy_error *err)
{
    struct qyi_shape_bench *b = data;
    enum qy_status st = b->dense.samples != NULL ? dense_step(b, err) : QY_OK;
    if (st == QY_OK) {
        st = step(b, QY_ATTEND_POLICY, ns, err);
    }
    draw(b, b->drift);
    return st;
}
