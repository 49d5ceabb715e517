/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pushes: rows that the device lacks are attended to where they are. The queries of a group go to the
 * host, its threads attend to the home rows, and the partial comes back, to be merged by log-sum-exp
 * with that over the rows on the device. plan.c decides who pushes.
 *
 *   start    queries on their way                         (stream to the host; far_push.c: to servers)
 *   push     wait for them; attend; partials on their way (host threads; stream to the device)
 *   wait     for pulled rows and partials
 *
 * The host's threads are those of the host device, which also plays the discrete one: a push is not
 * hidden behind the device's own work, and the costs say so (shared_threads).
 */
#include "offload/cache.h"
#include "offload/tier/link_cost.h"

static int open_lists(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    const size_t items = qyi_cache_items(cache);
    struct qyi_push *p = &cache->tier.push;

    p->items = qy_alloc_zero(mem, items * sizeof(*p->items));
    p->q = qy_alloc_zero(mem, items * qyi_group_floats(cache) * sizeof(*p->q));
    p->out = qy_alloc_zero(mem, items * qyi_group_floats(cache) * sizeof(*p->out));
    p->lse = qy_alloc_zero(mem, items * cache->group * sizeof(*p->lse));
    p->n_rows = qy_alloc_zero(mem, items * sizeof(*p->n_rows));
    p->n_host = qy_alloc_zero(mem, items * sizeof(*p->n_host));
    p->asks = qy_alloc_zero(mem, items * sizeof(*p->asks));
    p->answers = qy_alloc_zero(mem, 2 * items * sizeof(*p->answers));
    p->chosen = qy_alloc_zero(mem, items);
    p->far_chosen = qy_alloc_zero(mem, items);
    return !p->items || !p->q || !p->out || !p->lse || !p->asks || !p->answers || !p->n_rows ||
           !p->n_host || !p->chosen || !p->far_chosen;
}

enum qy_status qyi_push_open(struct qy_cache *cache, struct qy_error *err)
{
    const enum qy_plan_mode mode = (enum qy_plan_mode)cache->params.settings.plan_mode;
    struct qyi_push *p = &cache->tier.push;
    const struct qyi_link_shape shape = {
        .row_type = cache->layout.row_type,
        .d = cache->layout.head_dim,
        .group = cache->group,
        /* chosen: of the middle layer; the others' rows are longer or shorter by little */
        .codec = qyi_layout_codec(&cache->layout, cache->layout.n_layers / 2)};

    if (mode == QY_PLAN_PULL || !cache->tier.residency) {
        return QY_OK;
    }
    p->params = (struct qyi_plan_params){
        .mode = mode,
        /* chosen: of twenty rows nineteen are found where slots hold four times a step's rows (bench
         * residency). A high guess is soon put right by what is pulled, a low one never. */
        .costs = {.reuse = 19.0, .shared_threads = 1},
        .row_bytes = (uint32_t)qyi_layout_home_row(&cache->layout, cache->layout.n_layers / 2),
        .query_bytes = (uint32_t)((2 * qyi_group_floats(cache) + cache->group) * sizeof(float))};
    p->far = p->params;
    p->far.mode =
        mode == QY_PLAN_AUTO ? QY_PLAN_PULL : mode; /* until costs are known: far_cost.c */
    if (open_lists(cache)) {
        return qy_error_set(err, QY_ERR_NOMEM, "cache: out of memory for the lists of pushes");
    }
    return mode == QY_PLAN_AUTO
               ? qyi_link_cost_measure(&cache->rt->mem, cache->dev, &shape, &p->params.costs, err)
               : QY_OK;
}

int qyi_plan_measured(const struct qy_cache *cache)
{
    return cache->tier.push.chosen != NULL && cache->tier.push.params.mode == QY_PLAN_AUTO;
}

void qyi_push_close(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    struct qyi_push *p = &cache->tier.push;

    qy_free(mem, p->far_chosen);
    qy_free(mem, p->chosen);
    qy_free(mem, p->n_host);
    qy_free(mem, p->n_rows);
    qy_free(mem, p->answers);
    qy_free(mem, p->asks);
    qy_free(mem, p->lse);
    qy_free(mem, p->out);
    qy_free(mem, p->q);
    qy_free(mem, p->items);
}

/* How often is found what was pulled? Only sets without a free slot tell: in others nothing is evicted,
 * and what they miss is missed for the first time. */
static void learn_reuse(struct qy_cache *cache, uint32_t layer)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const uint32_t n_heads = cache->layout.n_kv_heads;
    struct qyi_tier *t = &cache->tier;
    uint64_t pulled = 0;
    uint64_t hits = 0;

    for (uint32_t i = now->begin; i < now->end; i++) {
        const uint32_t set = qyi_sequence_set(cache->step.slices[i].seq, layer);

        if (qyi_residency_used(t->residency, set) < t->plan.slots_per_set) {
            continue;
        }
        for (uint32_t h = 0; h < n_heads; h++) {
            const size_t place = (size_t)i * n_heads + h;

            hits += t->n_found[place];
            pulled += t->push.chosen[place] ? 0 : t->n_missed[place];
        }
    }
    qyi_plan_reuse(&t->push.params.costs, pulled, hits);
}

/* What the sequences that have rows in the store miss (far), or the others. What would be pushed with
 * others is not all home yet, or nobody attends to it where it lies: pulled. Is there anything to plan? */
static int list_misses(struct qy_cache *cache, uint32_t layer, int far)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const uint32_t n_heads = cache->layout.n_kv_heads;
    struct qyi_tier *t = &cache->tier;
    int any = 0;

    for (uint32_t i = now->begin * n_heads; i < now->end * n_heads; i++) {
        const struct qyi_slice *s = &cache->step.slices[i / n_heads];
        const uint32_t n_home = s->seq->n_sealed << cache->layout.shift;
        const int is_mine = (s->seq->n_down > 0) == far && n_home >= qyi_slice_cut(cache, s);
        struct qyi_plan_item *item = &t->push.items[i];

        *item = (struct qyi_plan_item){.n = t->n_found[i] + t->n_missed[i],
                                       .n_miss = is_mine ? t->n_missed[i] : 0};
        if (far && item->n_miss > 0 && !qyi_far_push_may(cache, layer, i / n_heads, i % n_heads)) {
            item->n_miss = 0;
        }
        any |= item->n_miss > 0;
    }
    return any;
}

void qyi_push_plan(struct qy_cache *cache, uint32_t layer)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const uint32_t n_heads = cache->layout.n_kv_heads;
    struct qyi_push *p = &cache->tier.push;
    const size_t first = (size_t)now->begin * n_heads;
    const uint32_t n = (now->end - now->begin) * n_heads;
    struct qyi_plan_choice choice = {.push = p->chosen + first};

    (void)list_misses(cache, layer, 0);
    p->params.row_bytes = (uint32_t)qyi_layout_home_row(&cache->layout, layer);
    qyi_plan_layer(&p->params, p->items + first, n, &choice);
    p->pull_ns = choice.pull_ns;
    p->push_ns = choice.push_ns;
    if (p->far.mode != QY_PLAN_PULL && list_misses(cache, layer, 1)) {
        choice.push = p->far_chosen + first;
        p->far.row_bytes = p->params.row_bytes;
        p->far.costs.reuse = p->params.costs.reuse;
        qyi_plan_layer(&p->far, p->items + first, n, &choice);
        p->pull_ns += choice.pull_ns;
        p->push_ns += choice.push_ns;
        for (size_t i = first; i < first + n; i++) {
            p->chosen[i] |= p->far_chosen[i];
        }
    }
    learn_reuse(cache, layer);
}

enum qy_status qyi_push_ask(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const uint32_t n_heads = cache->layout.n_kv_heads;
    struct qyi_tier *t = &cache->tier;
    struct qyi_fetch *fetch = &t->fetches[cache->step.now];
    struct qy_copy_item *asks = t->push.asks + (size_t)now->begin * n_heads;
    uint32_t n = 0;

    for (uint32_t i = now->begin; t->push.chosen && i < now->end; i++) {
        for (uint32_t h = 0; h < n_heads; h++) {
            const size_t place = (size_t)i * n_heads + h;

            if (qyi_pushes(t, place)) {
                asks[n++] = (struct qy_copy_item){
                    .from = qyi_group_q(cache, qkv, &cache->step.slices[i], h),
                    .to = t->push.q + place * qyi_group_floats(cache),
                    .bytes = qyi_group_floats(cache) * sizeof(float)};
            }
        }
    }
    if (n == 0) {
        return QY_OK;
    }
    const enum qy_status st = qy_stream_copy(t->out, asks, n);
    if (st != QY_OK) {
        return st == QY_AGAIN ? QY_ERR_DEVICE : st;
    }
    fetch->asked = qy_stream_record(t->out);
    fetch->n_push = n;
    return qyi_far_push_ask(cache, layer);
}

void qyi_push_quiet(struct qy_cache *cache)
{
    struct qyi_tier *t = &cache->tier;

    for (uint32_t i = 0; i < cache->step.n_micro; i++) {
        if (t->fetches[i].n_push > 0 &&
            qy_stream_wait(t->out, t->fetches[i].asked, t->timeout_ns) != QY_OK) {
            (void)!qyi_tier_give_up(cache); /* the step has failed, and says why */
            return;
        }
    }
}

/* Attention over the rows that the device lacks, and that are in host memory. */
static struct qy_attend_item host_item(const struct qy_cache *cache, uint32_t layer, uint32_t slice,
                                       uint32_t head)
{
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + head;
    const struct qyi_tier *t = &cache->tier;
    struct qy_attend_item item = {.q = t->push.q + place * qyi_group_floats(cache),
                                  .rows = qyi_home_rows(cache->step.slices[slice].seq, layer, head),
                                  .ids = t->pull_ids + place * cache->ids_capacity,
                                  .n = t->push.n_host[place],
                                  .group = cache->group};

    item.out = qyi_far_push_out(cache, place, &item.lse);
    return item;
}

/* The items of what pushes, and the ways of their answers; how many answers there are. */
static uint32_t home_items(struct qy_cache *cache, uint32_t layer, uint32_t *n_attends,
                           struct qy_copy_item *answers)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const uint32_t n_heads = cache->layout.n_kv_heads;
    const struct qyi_tier *t = &cache->tier;
    uint32_t n = 0;

    *n_attends = 0;
    for (size_t i = (size_t)now->begin * n_heads; i < (size_t)now->end * n_heads; i++) {
        if (!qyi_pushes(t, i)) {
            continue;
        }
        if (t->push.n_host[i] > 0) {
            cache->step.attends[(*n_attends)++] =
                host_item(cache, layer, (uint32_t)(i / n_heads), (uint32_t)(i % n_heads));
        }
        answers[n++] = (struct qy_copy_item){.from = t->push.out + i * qyi_group_floats(cache),
                                             .to = qyi_part_out(cache, i, QYI_PART_PUSHED),
                                             .bytes = qyi_group_floats(cache) * sizeof(float)};
        answers[n++] = (struct qy_copy_item){.from = t->push.lse + i * cache->group,
                                             .to = qyi_part_lse(cache, i, QYI_PART_PUSHED),
                                             .bytes = cache->group * sizeof(float)};
    }
    return n;
}

enum qy_status qyi_push_answer(struct qy_cache *cache, uint32_t layer)
{
    struct qyi_tier *t = &cache->tier;
    struct qyi_fetch *fetch = &t->fetches[cache->step.now];
    struct qy_copy_item *answers =
        t->push.answers + (size_t)2 * qyi_step_now(cache)->begin * cache->layout.n_kv_heads;

    if (fetch->n_push == 0) {
        return QY_OK;
    }
    enum qy_status st = qy_stream_wait(t->out, fetch->asked, t->timeout_ns);
    if (st != QY_OK) {
        const enum qy_status given_up = qyi_tier_give_up(cache);
        return given_up == QY_OK ? st : given_up;
    }
    uint32_t n_attends;
    const uint32_t n = home_items(cache, layer, &n_attends, answers);
    if (n_attends > 0) {
        st = qy_device_attend(cache->dev, cache->step.attends, n_attends, cache->params.scale,
                              &cache->arena);
    }
    if (st == QY_OK) {
        st = qyi_far_push_answer(cache);
    }
    if (st != QY_OK) {
        const enum qy_status reset = qyi_tier_reset(cache);
        return reset == QY_OK ? st : reset;
    }
    st = qy_stream_copy(t->in, answers, n);
    st = st == QY_AGAIN ? QY_ERR_DEVICE : st;
    if (st == QY_OK) {
        fetch->layer = layer;
        fetch->is_open = 1;
        fetch->here = qy_stream_record(t->in);
    }
    return st;
}
