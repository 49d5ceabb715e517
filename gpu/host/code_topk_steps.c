/* SPDX-License-Identifier: Apache-2.0 */
/* The work of code_topk.h. exp is taken twice, from tables or by vectors: that costs less than to
 * keep the shares of every head. */
#include "gpu/host/code_topk.h"

#include <math.h>

#include "gpu/host/rows.h"

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
        memory->most[h] = 0;
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
    memory->most[h] = largest;
}

void qyi_code_topk_choose(const struct qyi_code_topk *c, const struct qy_code_topk_item *item,
                          const struct qyi_code_item_memory *memory,
                          const struct qyi_code_thread_memory *thread)
{
    const struct qy_topk_item best = {.scores = thread->pooled,
                                      .n = item->n,
                                      .k = item->k,
                                      .id_base = item->first,
                                      .ids = item->ids,
                                      .n_ids = item->n_ids};

    for (uint32_t h = 0; h < item->group; h++) {
        const uint16_t *sums =
            memory->sums + h * c->stride + (item->first - qyi_code_topk_start(item));
        const enum qyi_code_join more =
            item->pooling == QY_POOL_MAX ? QYI_CODE_LARGER : QYI_CODE_ADD;

        c->codes->pool(sums, item->n, memory->most[h], &memory->heads[h],
                       h == 0 ? QYI_CODE_SET : more, thread->pooled);
    }
    c->topk->topk(&best, thread->keys);
}
