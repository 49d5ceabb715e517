/* SPDX-License-Identifier: Apache-2.0 */
/* Sizing, opening and closing of the device tier, and its device blocks. See tier.h. */
#include "offload/cache.h"

enum { ALIGN = 64, SIZE_TEXT = 32, STREAM_COMMANDS = 256 };
#ifdef NDEBUG
static const int debug_build = 0;
#else
static const int debug_build = 1;
#endif

static size_t rounded(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* Bytes of the rows of one block. */
static size_t rows_bytes(const struct qyi_layout *l)
{
    return (size_t)l->n_slabs * l->slab_bytes;
}

/* Device blocks that one step may need beside what sequences keep. */
static uint32_t step_blocks(const struct qy_cache *cache)
{
    const uint32_t tokens = cache->layout.block_tokens;

    return (cache->params.max_step_tokens + tokens - 1) / tokens + 1;
}

static struct qyi_residency_params residency_params(const struct qy_cache *cache,
                                                    const struct qyi_tier_plan *plan)
{
    return (struct qyi_residency_params){.n_sets = plan->n_sets,
                                         .n_heads = cache->layout.n_kv_heads,
                                         .max_tokens = cache->params.max_tokens,
                                         .slots_per_set = plan->slots_per_set,
                                         .eviction =
                                             (enum qy_eviction)cache->params.settings.eviction};
}

/* All of it, with the least of what may vary. */
static uint64_t plan_bytes(const struct qyi_tier_plan *plan)
{
    return plan->slot_bytes + plan->block_bytes + plan->index_bytes + plan->stage_bytes +
           plan->map_bytes + plan->scratch_bytes + (size_t)4 * ALIGN;
}

static void set_counts(const struct qy_cache *cache, uint64_t slots, uint64_t keep,
                       struct qyi_tier_plan *plan)
{
    const struct qyi_layout *l = &cache->layout;
    const uint64_t most = cache->max_blocks;

    plan->slots_per_set = (uint32_t)slots;
    plan->slot_bytes = (size_t)plan->n_sets * slots * l->row_bytes;
    plan->keep = (uint32_t)(keep < most ? keep : most);
    plan->n_blocks = cache->params.max_sequences * plan->keep + 2 * step_blocks(cache);
    plan->block_bytes = plan->n_blocks * rows_bytes(l);
    const struct qyi_residency_params r = residency_params(cache, plan);
    plan->map_bytes = slots > 0 ? qyi_residency_bytes(&r) : 0;
}

static enum qy_status too_small(const struct qy_cache *cache, const struct qyi_tier_plan *plan,
                                uint64_t given, struct qy_error *err)
{
    char text[6][SIZE_TEXT];

    return qy_error_set(
        err, QY_ERR_NOMEM,
        "cache.device_bytes '%s': %u sequences of %u tokens need at least %s (%llu bytes: rows %s, "
        "open blocks %s, index %s, scratch of a step %s); raise it, or lower --batch, --ctx or "
        "the budget",
        qy_format_size(given, text[0], SIZE_TEXT), cache->params.max_sequences,
        cache->params.max_tokens, qy_format_size(plan_bytes(plan), text[1], SIZE_TEXT),
        (unsigned long long)plan_bytes(plan), qy_format_size(plan->slot_bytes, text[2], SIZE_TEXT),
        qy_format_size(plan->block_bytes + plan->stage_bytes, text[3], SIZE_TEXT),
        qy_format_size(plan->index_bytes + plan->map_bytes, text[4], SIZE_TEXT),
        qy_format_size(plan->scratch_bytes, text[5], SIZE_TEXT));
}

enum qy_status qyi_tier_size(const struct qy_cache *cache, size_t scratch_bytes,
                             struct qyi_tier_plan *plan, struct qy_error *err)
{
    const struct qyi_layout *l = &cache->layout;
    const struct qy_cache_params *p = &cache->params;
    const uint64_t lists = cache->ids_capacity;
    const uint64_t most = (uint64_t)l->n_kv_heads * p->max_tokens;
    struct qy_device_memory memory;

    qy_device_memory(cache->dev, &memory);
    const uint64_t given = p->settings.device_bytes > 0 ? p->settings.device_bytes : memory.limit;
    *plan = (struct qyi_tier_plan){
        .n_sets = p->max_sequences * l->n_layers,
        .segment_blocks =
            l->block_tokens < QYI_SEGMENT_TOKENS ? QYI_SEGMENT_TOKENS / l->block_tokens : 1,
        .index_bytes = (size_t)cache->home.n_ids * l->n_slabs * l->index_slab_bytes,
        .scratch_bytes = scratch_bytes};
    plan->stage_bytes = (size_t)QYI_STAGES * plan->segment_blocks * l->n_kv_heads * l->slab_bytes;
    const uint64_t least = l->n_kv_heads * lists;
    set_counts(cache, least < most ? least : most, 1, plan);
    if (given > 0 && plan_bytes(plan) > given) {
        return too_small(cache, plan, given, err);
    }
    /* what is left: slots for who chooses, whole blocks for who does not */
    const uint64_t left = given > 0 ? given - plan_bytes(plan) : UINT64_MAX / 2;
    if (lists > 0) {
        uint64_t slots = plan->slots_per_set + left / (plan->n_sets * l->row_bytes);

        slots = slots < most ? slots : most;
        set_counts(cache, slots, 1, plan);
        while (given > 0 && plan_bytes(plan) > given) { /* their bookkeeping counts too */
            slots -= (plan_bytes(plan) - given) / (plan->n_sets * 2 * l->row_bytes) + 1;
            set_counts(cache, slots, 1, plan);
        }
    } else {
        set_counts(cache, 0, 1 + left / (p->max_sequences * rows_bytes(l)), plan);
    }
    if (plan->slot_bytes / l->row_bytes + (uint64_t)plan->n_blocks * l->n_slabs * l->block_tokens >
        INT32_MAX) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "cache.device_bytes: more than %d rows on the device; lower it",
                            INT32_MAX);
    }
    return QY_OK;
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
        const struct qyi_residency_params params = residency_params(cache, plan);
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

    return t->rows + t->plan.slot_bytes + block * rows_bytes(&cache->layout);
}

void qyi_tier_give_block(struct qy_cache *cache, uint8_t **address)
{
    struct qyi_tier *t = &cache->tier;
    const size_t at = (size_t)(*address - t->rows) - t->plan.slot_bytes;

    t->free_blocks[t->n_free++] = (uint32_t)(at / rows_bytes(&cache->layout));
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
