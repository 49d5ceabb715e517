/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing of the device tier, and its device blocks. See tier.h; tier_size.c has the sizes. */
#include "offload/cache.h"

enum { ALIGN = 64, STREAM_COMMANDS = 256 };
#ifdef NDEBUG
static const int debug_build = 0;
#else
static const int debug_build = 1;
#endif

static size_t rounded(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* Rows of device blocks whose last use is known. */
static size_t asked_rows(const struct qy_cache *cache)
{
    const struct qyi_layout *l = &cache->layout;

    return (size_t)cache->params.max_sequences * l->n_slabs * QYI_ASKED_BLOCKS * l->block_tokens;
}

/* Lists of the tier in host memory. Returns non-zero when there is no memory for one. */
static int open_lists(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    const size_t items = qyi_cache_items(cache);
    const size_t ids = items * cache->ids_capacity;
    struct qyi_tier *t = &cache->tier;
    const int stamped = t->plan.slots_per_set > 0 && debug_build;

    if (stamped) {
        t->stamps =
            qy_alloc_zero(mem, (size_t)t->plan.n_sets * t->plan.slots_per_set * sizeof(*t->stamps));
    }
    t->free_blocks = qy_alloc_zero(mem, t->plan.n_blocks * sizeof(*t->free_blocks));
    t->gathers = qy_alloc_zero(mem, items * sizeof(*t->gathers));
    t->numbers = qy_alloc_zero(mem, ids * sizeof(*t->numbers));
    t->misses = qy_alloc_zero(mem, ids * sizeof(*t->misses));
    t->pull_ids = qy_alloc_zero(mem, ids * sizeof(*t->pull_ids));
    t->pull_slots = qy_alloc_zero(mem, ids * sizeof(*t->pull_slots));
    t->n_found = qy_alloc_zero(mem, items * sizeof(*t->n_found));
    t->n_missed = qy_alloc_zero(mem, items * sizeof(*t->n_missed));
    t->n_numbers = qy_alloc_zero(mem, items * sizeof(*t->n_numbers));
    t->asked = qy_alloc_zero(mem, asked_rows(cache) * sizeof(*t->asked));
    t->n_taken = qy_alloc_zero(mem, items * sizeof(*t->n_taken));
    t->layers = qy_alloc_zero(mem, cache->layout.n_layers * sizeof(*t->layers));
    t->slice_status = qy_alloc_zero(mem, cache->params.max_sequences * sizeof(*t->slice_status));
    t->copies = qy_alloc_zero(mem, (size_t)(cache->layout.n_runs + 1) * cache->max_blocks *
                                       cache->params.max_sequences * sizeof(*t->copies));
    t->pass_copies =
        qy_alloc_zero(mem, (size_t)QYI_STAGES * t->plan.segment_blocks * sizeof(*t->pass_copies));
    t->pass_blocks =
        qy_alloc_zero(mem, (size_t)QYI_STAGES * cache->max_blocks * sizeof(*t->pass_blocks));
    return !t->free_blocks || !t->gathers || !t->numbers || !t->misses || !t->pull_ids ||
           !t->pull_slots || !t->n_found || !t->n_missed || !t->n_taken || !t->n_numbers ||
           !t->asked || !t->layers || !t->slice_status || !t->copies || !t->pass_copies ||
           (stamped && !t->stamps) || !t->pass_blocks;
}

static enum qy_status open_memory(struct qy_cache *cache, struct qy_error *err)
{
    struct qyi_tier *t = &cache->tier;
    const struct qyi_tier_plan *p = &t->plan;
    const size_t rows = rounded(p->slot_bytes + p->block_bytes);
    const enum qy_status st = qy_device_alloc(
        cache->dev, rows + rounded(p->index_bytes) + p->stage_bytes, &t->memory, err);

    if (st != QY_OK) {
        return qy_error_wrap(err, st, "cache: rows on the device");
    }
    t->rows = t->memory;
    t->row_blocks[0] = t->rows;
    t->index = p->index_bytes > 0 ? t->rows + rows : NULL;
    t->stages = t->rows + rows + rounded(p->index_bytes);
    return QY_OK;
}

enum qy_status qyi_tier_open(struct qy_cache *cache, const struct qyi_tier_plan *plan,
                             struct qy_error *err)
{
    struct qyi_tier *t = &cache->tier;

    *t =
        (struct qyi_tier){.present = 1,
                          .plan = *plan,
                          .timeout_ns = (uint64_t)cache->params.settings.copy_timeout_ms * 1000000};
    enum qy_status st = open_memory(cache, err);
    if (st == QY_OK && open_lists(cache)) {
        st = qy_error_set(err, QY_ERR_NOMEM, "cache: out of memory for the device tier's lists");
    }
    if (st == QY_OK && plan->slots_per_set > 0) {
        const struct qyi_residency_params params = qyi_tier_residency(cache, plan);
        st = qyi_residency_open(&cache->rt->mem, &params, &t->residency, err);
    }
    if (st == QY_OK) {
        st = qy_stream_open(cache->dev, "to device", QY_TO_DEVICE, STREAM_COMMANDS, &t->in, err);
    }
    if (st == QY_OK) {
        st = qy_stream_open(cache->dev, "to host", QY_TO_HOST, STREAM_COMMANDS, &t->out, err);
    }
    if (st == QY_OK) {
        st = qyi_push_open(cache, err);
    }
    if (st == QY_OK) {
        st = qyi_ahead_open(cache, err);
    }
    for (uint32_t i = 0; st == QY_OK && i < plan->n_blocks; i++) {
        t->free_blocks[t->n_free++] = plan->n_blocks - 1 - i;
    }
    return st;
}

void qyi_tier_close(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    struct qyi_tier *t = &cache->tier;

    if (!t->present) {
        return;
    }
    qy_stream_close(t->out);
    qy_stream_close(t->in);
    qyi_ahead_close(cache);
    qyi_push_close(cache);
    qyi_residency_close(t->residency);
    qy_free(mem, t->pass_blocks);
    qy_free(mem, t->pass_copies);
    qy_free(mem, t->copies);
    qy_free(mem, t->slice_status);
    qy_free(mem, t->layers);
    qy_free(mem, t->asked);
    qy_free(mem, t->n_taken);
    qy_free(mem, t->n_numbers);
    qy_free(mem, t->n_missed);
    qy_free(mem, t->n_found);
    qy_free(mem, t->pull_slots);
    qy_free(mem, t->pull_ids);
    qy_free(mem, t->misses);
    qy_free(mem, t->numbers);
    qy_free(mem, t->gathers);
    qy_free(mem, t->free_blocks);
    qy_free(mem, t->stamps);
    qy_device_free(cache->dev, t->memory);
}

static uint8_t *block_at(const struct qy_cache *cache, uint32_t block)
{
    const struct qyi_tier *t = &cache->tier;

    return t->rows + t->plan.slot_bytes + block * qyi_tier_block_bytes(&cache->layout);
}

void qyi_tier_give_block(struct qy_cache *cache, uint8_t **address)
{
    struct qyi_tier *t = &cache->tier;
    const size_t at = (size_t)(*address - t->rows) - t->plan.slot_bytes;

    t->free_blocks[t->n_free++] = (uint32_t)(at / qyi_tier_block_bytes(&cache->layout));
    *address = NULL;
}

/* Waits for blocks on their way home until n device blocks are free. */
static enum qy_status make_room(struct qy_cache *cache, uint32_t n)
{
    for (uint32_t i = 0; i < cache->params.max_sequences && cache->tier.n_free < n; i++) {
        const enum qy_status st = qyi_tier_settle(&cache->sequences[i], 1);

        if (st != QY_OK) {
            return qyi_tier_give_up(cache) == QY_OK ? st : QY_ERR_TIMEOUT;
        }
    }
    return cache->tier.n_free < n ? QY_AGAIN : QY_OK;
}

enum qy_status qyi_tier_reserve(struct qy_sequence *seq, uint32_t first, uint32_t n_tokens)
{
    struct qy_cache *cache = seq->cache;
    struct qyi_tier *t = &cache->tier;
    const uint32_t end = (uint32_t)qyi_layout_blocks(&cache->layout, n_tokens);
    uint32_t need = 0;

    for (uint32_t b = first; b < end; b++) {
        need += seq->device[b] == NULL;
    }
    if (need > t->n_free) {
        const enum qy_status st = make_room(cache, need);
        if (st != QY_OK) {
            return st;
        }
    }
    for (uint32_t b = first; b < end; b++) {
        if (seq->device[b] == NULL) {
            seq->device[b] = block_at(cache, t->free_blocks[--t->n_free]);
            seq->addresses[b] = seq->device[b];
        }
    }
    return QY_OK;
}

void qyi_tier_release(struct qy_sequence *seq, uint32_t n_blocks)
{
    struct qy_cache *cache = seq->cache;

    for (uint32_t b = n_blocks; b < cache->max_blocks; b++) {
        if (seq->device[b] != NULL) {
            qyi_tier_give_block(cache, &seq->device[b]);
        }
    }
}
