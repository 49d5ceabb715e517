/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clusters of one segment: spherical k-means of the keys less their mean, then the means of keys
 * and values of each cluster. Slabs are learnt a few at a time, so that memory stays bounded.
 */
#include <math.h>
#include <string.h>

#include "retrieval/clusters_index.h"
#include "retrieval/lloyd.h"

/* One slab while it is learnt. */
struct task {
    float *k, *v; /* [n][d] keys, values as they are       */
    float *mean;  /* [d]                                   */
    float *words; /* [d][n_new]                            */
    float *bias;  /* [n_new]                               */
    uint8_t *codes;
    struct qy_quantizer quantizer;
    const struct qyi_clusters_slab *slab;
};

struct batch {
    struct task *tasks;
    uint32_t n_tasks; /* in use */
    struct qyi_lloyd *sets;
    struct qyi_learnt_read *reads;
    uint32_t d, first, n, n_clusters, n_new, shift;
    uint8_t *memory;
};

static enum qy_status batch_open(const struct qyi_clusters_index *x, uint32_t most, struct batch *b)
{
    const size_t d = x->params.head_dim;
    const struct qy_quantizer shape = {.d = (uint32_t)d, .m = 1, .bits = 16, .n_words = b->n_new};
    const size_t rows = qyi_learnt_pad(b->n * d * sizeof(float));
    const size_t mean = qyi_learnt_pad(d * sizeof(float));
    const size_t words = qyi_learnt_pad(d * b->n_new * sizeof(float));
    const size_t bias = qyi_learnt_pad(b->n_new * sizeof(float));
    const size_t codes = qyi_learnt_pad(qy_code_slab_bytes(&shape, (uint32_t)1 << b->shift));
    const size_t one = 2 * rows + mean + words + bias + codes;
    const size_t heads = qyi_learnt_pad(most * sizeof(*b->tasks)) +
                         qyi_learnt_pad(most * sizeof(*b->sets)) +
                         qyi_learnt_pad(most * sizeof(*b->reads));
    uint8_t *at = qy_alloc_zero(&x->params.rt->mem, heads + most * one);

    b->memory = at;
    if (!at) {
        return QY_ERR_NOMEM;
    }
    b->tasks = (struct task *)(void *)at;
    b->sets = (struct qyi_lloyd *)(void *)(at + qyi_learnt_pad(most * sizeof(*b->tasks)));
    b->reads =
        (struct qyi_learnt_read *)(void *)(at + heads - qyi_learnt_pad(most * sizeof(*b->reads)));
    at += heads;
    for (uint32_t i = 0; i < most; i++, at += one) {
        struct task *t = &b->tasks[i];

        t->k = (float *)(void *)at;
        t->v = (float *)(void *)(at + rows);
        t->mean = (float *)(void *)(at + 2 * rows);
        t->words = (float *)(void *)(at + 2 * rows + mean);
        t->bias = (float *)(void *)(at + 2 * rows + mean + words);
        t->codes = at + 2 * rows + mean + words + bias;
        t->quantizer = shape;
        t->quantizer.encode = t->quantizer.decode = t->words;
        t->quantizer.bias = t->bias;
    }
    return QY_OK;
}

/* RetroInfer, sec. 4.2: keys lie in a cone; less their mean they point in all directions. */
static void centre(const struct batch *b, struct task *t)
{
    const uint32_t d = b->d;
    const float share = 1.0F / (float)b->n;

    memset(t->mean, 0, d * sizeof(*t->mean));
    for (uint32_t i = 0; i < b->n; i++) {
        for (uint32_t c = 0; c < d; c++) {
            t->mean[c] += t->k[(size_t)i * d + c];
        }
    }
    for (uint32_t c = 0; c < d; c++) {
        t->mean[c] *= share;
    }
    for (uint32_t i = 0; i < b->n; i++) {
        for (uint32_t c = 0; c < d; c++) {
            t->k[(size_t)i * d + c] -= t->mean[c];
        }
    }
}

static void centre_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct batch *b = arg;
    size_t begin;
    size_t end;

    qy_team_range(b->n_tasks, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        centre(b, &b->tasks[i]);
    }
}

/* Members of each cluster, by counting. */
static void list_members(const struct batch *b, const struct task *t, const struct qy_slab *codes)
{
    uint32_t *begin = t->slab->begin + b->n_clusters;
    const uint32_t start = b->n_clusters > 0 ? begin[0] : 0;

    memset(begin, 0, (b->n_new + 1) * sizeof(*begin));
    for (uint32_t i = 0; i < b->n; i++) {
        begin[1 + qy_code_at(&t->quantizer, codes, i, 0)]++;
    }
    begin[0] = start;
    for (uint32_t c = 0; c < b->n_new; c++) {
        begin[c + 1] += begin[c];
    }
    for (uint32_t i = 0; i < b->n; i++) {
        const uint32_t c = qy_code_at(&t->quantizer, codes, i, 0);

        t->slab->members[begin[c]++] = b->first + i;
    }
    for (uint32_t c = b->n_new; c > 0; c--) { /* each now holds the next one's begin */
        begin[c] = begin[c - 1];
    }
    begin[0] = start;
}

/* Mean of x [n][d] over the members of a cluster, plus base (NULL: zero), as f16. */
static void put_mean(const struct batch *b, const uint32_t *members, uint32_t n, const float *x,
                     const float *base, float *sum, uint8_t *to)
{
    memset(sum, 0, b->d * sizeof(*sum));
    for (uint32_t i = 0; i < n; i++) {
        const float *from = x + (size_t)(members[i] - b->first) * b->d;

        for (uint32_t c = 0; c < b->d; c++) {
            sum[c] += from[c];
        }
    }
    for (uint32_t c = 0; c < b->d; c++) {
        const float mean = n > 0 ? sum[c] / (float)n + (base ? base[c] : 0.0F) : 0.0F;
        const uint16_t half = qy_f16_from_f32(mean);

        memcpy(to + c * sizeof(half), &half, sizeof(half));
    }
}

static void finish_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct batch *b = arg;
    const size_t row_bytes = qy_row_bytes(QY_ROW_F16, b->d);
    size_t first;
    size_t end;

    qy_team_range(b->n_tasks, thread, n_threads, &first, &end);
    for (size_t i = first; i < end; i++) {
        struct task *t = &b->tasks[i];
        const struct qyi_clusters_slab *slab = t->slab;

        list_members(b, t, &b->sets[i].codes);
        for (uint32_t c = b->n_clusters; c < b->n_clusters + b->n_new; c++) {
            const uint32_t *members = slab->members + slab->begin[c];
            const uint32_t n = slab->begin[c + 1] - slab->begin[c];
            uint8_t *row = slab->rows + c * row_bytes;

            /* the words are spent: their memory holds the sums */
            put_mean(b, members, n, t->k, t->mean, t->words, row);
            put_mean(b, members, n, t->v, NULL, t->words, row + row_bytes / 2);
            slab->log_size[c] = n > 0 ? logf((float)n) : -INFINITY;
        }
    }
}

static enum qy_status learn_batch(const struct qyi_clusters_index *x, struct batch *b)
{
    const struct qy_runtime *rt = x->params.rt;

    qyi_learnt_read(rt, b->reads, b->n_tasks);
    qy_team_run(rt->team, centre_run, b);
    const enum qy_status st = qyi_lloyd_run(rt, x->params.dev, b->sets, b->n_tasks, x->iterations);
    if (st == QY_OK) {
        qy_team_run(rt->team, finish_run, b);
    }
    return st;
}

enum qy_status qyi_clusters_learn(struct qyi_clusters_index *x, const struct qy_sequence_view *view,
                                  uint32_t first, uint32_t end, uint32_t n_clusters, uint32_t n_new)
{
    const uint32_t most = qyi_learnt_batch(x->params.rt);
    struct batch b = {.d = x->params.head_dim,
                      .first = first,
                      .n = end - first,
                      .n_clusters = n_clusters,
                      .n_new = n_new};

    while (((uint32_t)1 << b.shift) < b.n) {
        b.shift++;
    }
    enum qy_status st = batch_open(x, most, &b);
    for (uint32_t s = qyi_learnt_first_slab(&x->params); st == QY_OK && s < x->n_slabs; s += most) {
        b.n_tasks = x->n_slabs - s < most ? x->n_slabs - s : most;
        for (uint32_t i = 0; i < b.n_tasks; i++) {
            struct task *t = &b.tasks[i];

            t->slab = &x->sequences[view->sequence].slabs[s + i];
            b.reads[i] = (struct qyi_learnt_read){.rows = qy_sequence_view_rows(view, s + i),
                                                  .first = first,
                                                  .n = b.n,
                                                  .k = t->k,
                                                  .v = t->v};
            b.sets[i] = (struct qyi_lloyd){.x = t->k,
                                           .n = b.n,
                                           .quantizer = &t->quantizer,
                                           .words = t->words,
                                           .bias = t->bias,
                                           .codes = {.blocks = &t->codes, .shift = b.shift},
                                           .spherical = 1};
        }
        st = learn_batch(x, &b);
    }
    qy_free(&x->params.rt->mem, b.memory);
    return st;
}
