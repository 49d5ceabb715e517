/* SPDX-License-Identifier: Apache-2.0 */
/* See ahead.h: memory, and the life of a guess; guess.c makes them. */
#include "offload/cache.h"

static size_t list_bytes(const struct qy_cache *cache)
{
    return qyi_cache_items(cache) * cache->ids_capacity * sizeof(uint32_t);
}

static int is_on(const struct qy_cache *cache)
{
    return cache->params.settings.prefetch != QY_PREFETCH_OFF && cache->ids_capacity > 0 &&
           !qy_device_caps(cache->dev)->unified && !cache->rule.caps.select_nothing;
}

size_t qyi_ahead_device_bytes(const struct qy_cache *cache)
{
    return is_on(cache) ? QYI_GUESSES * list_bytes(cache) : 0;
}

uint64_t qyi_ahead_host_bytes(const struct qy_cache *cache)
{
    const size_t item = sizeof(struct qy_gather_item) + 2 * sizeof(uint32_t);

    return is_on(cache) ? QYI_GUESSES * (2 * list_bytes(cache) + qyi_cache_items(cache) * item) : 0;
}

enum qy_status qyi_ahead_open(struct qy_cache *cache, struct qy_error *err)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    const size_t items = qyi_cache_items(cache);
    struct qyi_ahead *a = &cache->tier.ahead;
    int missing = 0;

    if (!is_on(cache)) {
        return QY_OK;
    }
    const enum qy_status st =
        qy_device_alloc(cache->dev, qyi_ahead_device_bytes(cache), &a->memory, err);
    if (st != QY_OK) {
        return qy_error_wrap(err, st, "cache: lists of step.prefetch");
    }
    for (uint32_t i = 0; i < QYI_GUESSES; i++) {
        struct qyi_guess_lists *g = &a->lists[i];

        g->ids = (uint32_t *)a->memory + i * items * cache->ids_capacity;
        g->pull_ids = qy_alloc_zero(mem, list_bytes(cache));
        g->pull_slots = qy_alloc_zero(mem, list_bytes(cache));
        g->n_ids = qy_alloc_zero(mem, items * sizeof(*g->n_ids));
        g->n_taken = qy_alloc_zero(mem, items * sizeof(*g->n_taken));
        g->gathers = qy_alloc_zero(mem, items * sizeof(*g->gathers));
        missing |= !g->pull_ids || !g->pull_slots || !g->n_ids || !g->n_taken || !g->gathers;
    }
    if (missing) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "cache: out of memory for the lists of step.prefetch");
    }
    a->mode = (enum qy_prefetch)cache->params.settings.prefetch;
    a->most_rows = cache->params.settings.prefetch_rows > 0
                       ? (uint32_t)cache->params.settings.prefetch_rows
                       : UINT32_MAX;
    return QY_OK;
}

void qyi_ahead_close(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    struct qyi_ahead *a = &cache->tier.ahead;

    for (uint32_t i = 0; i < QYI_GUESSES; i++) {
        struct qyi_guess_lists *g = &a->lists[i];

        qy_free(mem, g->gathers);
        qy_free(mem, g->n_taken);
        qy_free(mem, g->n_ids);
        qy_free(mem, g->pull_slots);
        qy_free(mem, g->pull_ids);
    }
    qy_device_free(cache->dev, a->memory);
}

/* How many ids are in both lists, which ascend. */
static uint32_t common(const uint32_t *a, uint32_t n_a, const uint32_t *b, uint32_t n_b)
{
    uint32_t i = 0;
    uint32_t j = 0;
    uint32_t n = 0;

    while (i < n_a && j < n_b) {
        const uint32_t x = a[i];
        const uint32_t y = b[j];

        n += x == y;
        i += x <= y;
        j += y <= x;
    }
    return n;
}

int qyi_ahead_met(struct qy_cache *cache, uint32_t layer)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const uint32_t n_heads = cache->layout.n_kv_heads;
    struct qyi_ahead *a = &cache->tier.ahead;
    struct qyi_tier_counts *c = &cache->tier.counts;
    struct qyi_guess *guess = &a->guesses[cache->step.now][layer % QYI_GUESSES];
    const struct qyi_guess_lists *g = &a->lists[layer % QYI_GUESSES];

    if (!guess->is_made || guess->layer != layer) {
        return 0;
    }
    guess->is_made = 0;
    for (uint32_t i = now->begin; i < now->end; i++) {
        const struct qyi_slice *s = &cache->step.slices[i];

        for (uint32_t h = 0; s->counted && h < n_heads; h++) {
            const size_t place = (size_t)i * n_heads + h;
            const size_t at = place * cache->ids_capacity;
            const uint32_t *chosen = qyi_step_list(cache, i, h) + s->reach.lo;
            const uint32_t n = cache->step.n_chosen[place];

            if (g->n_ids[place] > 0) {
                c->guessed += n;
                c->guessed_right += common(chosen, n, g->ids + at, g->n_ids[place]);
                c->ahead += g->n_taken[place];
                c->ahead_used += common(chosen, n, g->pull_ids + at, g->n_taken[place]);
            }
        }
    }
    return guess->is_open;
}

void qyi_ahead_arrived(struct qy_cache *cache, uint32_t micro_batch, uint32_t layer)
{
    struct qyi_guess *guess = &cache->tier.ahead.guesses[micro_batch][layer % QYI_GUESSES];

    if (guess->layer == layer) {
        guess->is_open = 0;
    }
}

void qyi_ahead_drop(struct qy_cache *cache, uint32_t micro_batch, uint32_t layer)
{
    const struct qyi_micro_batch *micro = &cache->step.micro[micro_batch];
    const uint32_t n_heads = cache->layout.n_kv_heads;
    struct qyi_guess *guess = &cache->tier.ahead.guesses[micro_batch][layer % QYI_GUESSES];
    const struct qyi_guess_lists *g = &cache->tier.ahead.lists[layer % QYI_GUESSES];

    for (size_t p = (size_t)micro->begin * n_heads;
         guess->is_open && p < (size_t)micro->end * n_heads; p++) {
        const struct qy_sequence *seq = cache->step.slices[p / n_heads].seq;

        qyi_residency_drop(cache->tier.residency, qyi_sequence_set(seq, layer),
                           (uint32_t)(p % n_heads), g->pull_ids + p * cache->ids_capacity,
                           g->n_taken[p]);
    }
    *guess = (struct qyi_guess){0};
}

void qyi_ahead_forget(struct qy_cache *cache)
{
    for (uint32_t m = 0; m < cache->step.n_micro; m++) {
        for (uint32_t i = 0; i < QYI_GUESSES; i++) {
            qyi_ahead_drop(cache, m, cache->tier.ahead.guesses[m][i].layer);
        }
    }
}

enum qy_status qyi_ahead_settle(struct qy_cache *cache)
{
    struct qyi_tier *t = &cache->tier;
    enum qy_status st = QY_OK;

    for (uint32_t m = 0; m < QY_MICRO_BATCHES; m++) {
        for (uint32_t i = 0; st == QY_OK && i < QYI_GUESSES; i++) {
            struct qyi_guess *guess = &t->ahead.guesses[m][i];

            if (guess->is_open) {
                st = qy_stream_wait(t->in, guess->here, t->timeout_ns);
            }
            if (st == QY_OK) {
                *guess = (struct qyi_guess){0};
            }
        }
    }
    if (st != QY_OK) {
        const enum qy_status reset = qyi_tier_reset(cache);
        return reset == QY_OK ? st : reset;
    }
    return QY_OK;
}
