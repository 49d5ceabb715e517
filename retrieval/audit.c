/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How good a selection was: exact attention of the same query over all keys, compared with what was
 * attended. It reads every key, so it is asked about a small share of the selections only.
 *
 * For one (sequence, KV head): scores of all n keys, softmax for each query head, the mean over the
 * heads. mass is the sum of that over the attended ids; recall is the share of the best ids of
 * lo <= id < hi, as many as were chosen, that were chosen.
 */
#include "retrieval/retrieval.h"

enum {
    BATCH = 4, /* items looked at together: bounds the scratch */
    ALIGN = 64
};

/* One batch: arguments of the kernels, and what they write. */
struct batch {
    struct qy_score_item score[BATCH];
    struct qy_pool_item pool[BATCH];
    struct qy_topk_item topk[BATCH];
    uint32_t n_best[BATCH];
};

static size_t padded(size_t n)
{
    return (n * sizeof(float) + ALIGN - 1) / ALIGN * ALIGN;
}

size_t qy_audit_scratch(const struct qy_device *dev, uint32_t n_items, uint32_t group,
                        uint32_t max_n)
{
    const uint32_t n = n_items < BATCH ? n_items : BATCH;

    return n * (padded((size_t)group * max_n) + 2 * padded(max_n)) + ALIGN +
           qy_device_topk_scratch(dev, n, max_n);
}

/* The first of the ids that is not below bound. */
static uint32_t place_of(const uint32_t *ids, uint32_t n, uint32_t bound)
{
    uint32_t low = 0;

    while (low < n) {
        const uint32_t middle = low + (n - low) / 2;

        if (ids[middle] < bound) {
            low = middle + 1;
        } else {
            n = middle;
        }
    }
    return low;
}

/* What was chosen: the attended ids of [lo, hi). */
static const uint32_t *chosen_of(const struct qy_audit_item *item, uint32_t *n)
{
    const uint32_t begin = place_of(item->ids, item->n_ids, item->select->lo);

    *n = place_of(item->ids, item->n_ids, item->select->hi) - begin;
    return item->ids + begin;
}

static enum qy_status batch_take(struct batch *b, const struct qy_audit_item *items, uint32_t n,
                                 struct qy_arena *arena)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct qy_select_item *s = items[i].select;
        float *scores = qy_arena_take(arena, padded((size_t)s->group * s->n), ALIGN);
        float *pooled = qy_arena_take(arena, padded(s->n), ALIGN);
        uint32_t *best = qy_arena_take(arena, padded(s->n), ALIGN);
        uint32_t n_chosen;

        if (!scores || !pooled || !best) {
            return QY_ERR_NOMEM;
        }
        (void)chosen_of(&items[i], &n_chosen);
        b->score[i] = (struct qy_score_item){
            .q = s->q, .rows = s->rows, .n = s->n, .group = s->group, .scores = scores};
        b->pool[i] = (struct qy_pool_item){
            .scores = scores, .n = s->n, .group = s->group, .hi = s->n, .pooled = pooled};
        b->topk[i] = (struct qy_topk_item){.scores = pooled + s->lo,
                                           .n = s->hi - s->lo,
                                           .k = n_chosen,
                                           .id_base = s->lo,
                                           .ids = best,
                                           .n_ids = &b->n_best[i]};
    }
    return QY_OK;
}

/* Ids in both of two ascending lists. */
static uint32_t common(const uint32_t *a, uint32_t n_a, const uint32_t *b, uint32_t n_b)
{
    uint32_t n = 0;

    for (uint32_t i = 0, j = 0; i < n_a && j < n_b;) {
        n += a[i] == b[j];
        if (a[i] <= b[j]) {
            i++;
        } else {
            j++;
        }
    }
    return n;
}

static void add(const struct qy_audit_item *item, const float *pooled, const uint32_t *best,
                uint32_t n_best, struct qy_audit_sums *sums)
{
    uint32_t n_chosen;
    const uint32_t *chosen = chosen_of(item, &n_chosen);
    double mass = 0.0;

    for (uint32_t i = 0; i < item->n_ids; i++) {
        mass += pooled[item->ids[i]];
    }
    sums->n++;
    sums->mass += mass;
    if (n_chosen > 0) {
        sums->recall += (double)common(chosen, n_chosen, best, n_best) / n_chosen;
    } else if (item->select->k > 0) {
        sums->recall += 1.0; /* none was wanted, none is missed */
    }
}

static enum qy_status audit_batch(struct qy_device *dev, const struct qy_audit_item *items,
                                  uint32_t n, float scale, struct qy_arena *arena,
                                  struct qy_audit_sums *sums)
{
    struct batch b;
    enum qy_status st = batch_take(&b, items, n, arena);

    if (st == QY_OK) {
        st = qy_device_score(dev, b.score, n, scale);
    }
    if (st == QY_OK) {
        st = qy_device_pool(dev, b.pool, n);
    }
    if (st == QY_OK) {
        st = qy_device_topk(dev, b.topk, n, arena);
    }
    for (uint32_t i = 0; st == QY_OK && i < n; i++) {
        add(&items[i], b.pool[i].pooled, b.topk[i].ids, b.n_best[i], sums);
    }
    return st;
}

enum qy_status qy_audit(struct qy_device *dev, const struct qy_audit_item *items, uint32_t n_items,
                        float scale, struct qy_arena *arena, struct qy_audit_sums *sums)
{
    struct qy_audit_sums now = {0};

    for (uint32_t first = 0; first < n_items; first += BATCH) {
        const uint32_t n = n_items - first < BATCH ? n_items - first : BATCH;
        const size_t mark = qy_arena_mark(arena);
        const enum qy_status st = audit_batch(dev, &items[first], n, scale, arena, &now);

        qy_arena_rewind(arena, mark);
        if (st != QY_OK) {
            return st;
        }
    }
    sums->n += now.n;
    sums->recall += now.recall;
    sums->mass += now.mass;
    return QY_OK;
}
