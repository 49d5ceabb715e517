/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The work of code_topk.h. A token is pooled only where it may be among the best: pooled shares of a
 * sample give a bound that k tokens or a few more are not below; no share pooled by mean is above
 * the largest of the heads' own, so a token where every head's is below the bound is none of them,
 * which the 16-bit sums tell. Fewer than k above the bound (the sample misled): all are pooled.
 */
#include "gpu/host/code_topk.h"

#include <math.h>

#include "gpu/host/rows.h"

enum { SAMPLE_MIN_N = 2048 /* below this every token is pooled */ };

void qyi_code_topk_tables(const struct qyi_code_topk *c, const struct qy_code_topk_item *item,
                          const struct qyi_code_item_memory *memory, uint32_t h)
{
    const struct qy_quantizer *quantizer = item->quantizer;

    c->codes->table4(quantizer, item->q + (size_t)h * quantizer->d, c->scale,
                     memory->entries + (size_t)h * quantizer->m * 16, &memory->heads[h]);
}

void qyi_code_topk_sums(const struct qyi_code_topk *c, const struct qy_code_topk_item *item,
                        const struct qyi_code_item_memory *memory, uint32_t range)
{
    const uint64_t past = (uint64_t)item->first + item->n;
    const uint64_t begin = qyi_code_topk_start(item) + (uint64_t)range * QYI_CODE_RANGE;
    const struct qyi_code_sums sums = {.kernels = c->codes,
                                       .codes = &item->codes,
                                       .m = item->quantizer->m,
                                       .group = item->group,
                                       .entries = memory->entries,
                                       .last = past - 1,
                                       .sums = memory->sums + (size_t)range * QYI_CODE_RANGE,
                                       .stride = c->stride};

    qyi_code_sums(&sums, begin, past - begin < QYI_CODE_RANGE ? past : begin + QYI_CODE_RANGE);
}

/* The head becomes that of its shares of the pool: exp(base + step * sum). */
void qyi_code_topk_head(const struct qyi_code_topk *c, const struct qy_code_topk_item *item,
                        const struct qyi_code_item_memory *memory, uint32_t h)
{
    const uint16_t *sums = memory->sums + h * c->stride + (item->first - qyi_code_topk_start(item));
    const float *resident = item->resident + h * item->resident_stride;
    struct qyi_code_head *head = &memory->heads[h];

    if (!isfinite(head->base) || !isfinite(head->step)) {
        *head = (struct qyi_code_head){.base = -INFINITY, .step = 0.0F};
        return;
    }
    const uint32_t largest = c->codes->largest(sums, item->n);
    const float inside = head->base + head->step * (float)largest;
    const float outside = c->codes->scores_largest(resident, item->n_resident);
    const float most = inside > outside ? inside : outside;
    struct qyi_code_head shares = {.base = head->base - most, .step = head->step};
    const float mass = c->codes->mass(sums, item->n, largest, &shares) +
                       c->codes->scores_mass(resident, item->n_resident, most);

    shares.base -= logf(item->pooling == QY_POOL_MAX ? mass : mass * (float)item->group);
    *head = shares;
}

/* Pools the n places of the item. */
static void pool_places(const struct qyi_code_topk *c, const struct qy_code_topk_item *item,
                        const struct qyi_code_item_memory *memory, const uint32_t *places,
                        uint32_t n, float *pooled)
{
    const struct qyi_code_pool pool = {.sums =
                                           memory->sums + (item->first - qyi_code_topk_start(item)),
                                       .stride = c->stride,
                                       .heads = memory->heads,
                                       .group = item->group,
                                       .largest = item->pooling == QY_POOL_MAX,
                                       .places = places,
                                       .n = n,
                                       .pooled = pooled};

    c->codes->pool(&pool);
}

/* A pooled share that k tokens or a few more are not below, for all but surely. */
static float guess_bound(const struct qyi_code_topk *c, const struct qy_code_topk_item *item,
                         const struct qyi_code_item_memory *memory, double rank)
{
    const uint64_t step = ((uint64_t)item->n << 32) / QYI_TOPK_SAMPLE;
    uint32_t places[QYI_TOPK_SAMPLE];
    float pooled[QYI_TOPK_SAMPLE];

    for (uint32_t j = 0; j < QYI_TOPK_SAMPLE; j++) {
        places[j] = (uint32_t)(j * step >> 32);
    }
    pool_places(c, item, memory, places, QYI_TOPK_SAMPLE, pooled);
    return c->topk->nth(pooled, QYI_TOPK_SAMPLE, (uint32_t)rank);
}

/* The least sum of a head whose share is not below the bound, less what rounding can do. */
static uint16_t least_sum(const struct qyi_code_head *head, float log_bound)
{
    const float past = log_bound - 1e-4F - head->base;

    if (!(past > 0.0F)) {
        return 0;
    }
    return past < 65535.0F * head->step ? (uint16_t)(past / head->step) : UINT16_MAX;
}

/* Places that may be among the k best, and their pooled shares; returns how many. */
static uint32_t find_candidates(const struct qyi_code_topk *c, const struct qy_code_topk_item *item,
                                const struct qyi_code_item_memory *memory,
                                const struct qyi_code_thread_memory *thread)
{
    const double rank = qyi_topk_sample_rank(item->n, item->k);
    const float heads = item->pooling == QY_POOL_MAX ? 1.0F : (float)item->group;
    uint16_t least[QYI_MAX_GROUP];
    uint32_t above = 0;

    if (item->n >= SAMPLE_MIN_N && rank < QYI_TOPK_SAMPLE) {
        const float bound = guess_bound(c, item, memory, rank);
        for (uint32_t h = 0; h < item->group; h++) {
            least[h] = least_sum(&memory->heads[h], logf(bound / heads));
        }
        const uint32_t n =
            c->topk->any_not_below(memory->sums + (item->first - qyi_code_topk_start(item)),
                                   c->stride, item->group, item->n, least, thread->places);
        pool_places(c, item, memory, thread->places, n, thread->pooled);
        for (uint32_t i = 0; i < n; i++) {
            above += thread->pooled[i] >= bound;
        }
        if (above >= item->k) {
            return n;
        }
    }
    for (uint32_t i = 0; i < item->n; i++) {
        thread->places[i] = i;
    }
    pool_places(c, item, memory, thread->places, item->n, thread->pooled);
    return item->n;
}

void qyi_code_topk_choose(const struct qyi_code_topk *c, const struct qy_code_topk_item *item,
                          const struct qyi_code_item_memory *memory,
                          const struct qyi_code_thread_memory *thread)
{
    struct qy_topk_item best = {.scores = thread->pooled,
                                .n = item->n,
                                .k = item->k,
                                .ids = item->ids,
                                .n_ids = item->n_ids};

    if (item->k < item->n) {
        best.n = find_candidates(c, item, memory, thread);
        best.map = thread->places;
    }
    c->topk->topk(&best, thread->keys);
    for (uint32_t i = 0; i < *item->n_ids; i++) {
        item->ids[i] += item->first;
    }
}
