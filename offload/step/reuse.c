/* SPDX-License-Identifier: Apache-2.0 */
/* See reuse.h. */
#include "offload/cache.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int qyi_reuse_alike(const float *a, const float *b, uint32_t group, uint32_t d, double least)
{
    for (uint32_t g = 0; g < group; g++) {
        double aa = 0.0;
        double bb = 0.0;
        double ab = 0.0;

        for (uint32_t i = g * d; i < (g + 1) * d; i++) {
            aa += (double)a[i] * a[i];
            bb += (double)b[i] * b[i];
            ab += (double)a[i] * b[i];
        }
        if (!(ab >= least * sqrt(aa * bb))) {
            return 0;
        }
    }
    return 1;
}

enum qy_status qyi_reuse_parse(const char *text, uint32_t n_layers, uint32_t *source,
                               struct qy_error *err)
{
    const char *at = text;

    for (uint32_t l = 0; l < n_layers; l++) {
        source[l] = QYI_NO_SOURCE;
    }
    if (text[0] == '\0' || strcmp(text, "off") == 0) {
        return QY_OK;
    }
    for (;;) {
        unsigned layer;
        unsigned from;
        int n = 0;

        if (sscanf(at, "%9u:%9u%n", &layer, &from, &n) != 2 || (at[n] != '\0' && at[n] != ',')) {
            return qy_error_set(err, QY_ERR_CONFIG,
                                "setting 'retrieval.reuse_layers': '%.40s'; accepted are off and "
                                "pairs of layers such as 4:3,5:3",
                                at);
        }
        if (layer >= n_layers || from >= layer || source[from] != QYI_NO_SOURCE) {
            return qy_error_set(err, QY_ERR_CONFIG,
                                "setting 'retrieval.reuse_layers': %u:%u; a layer below %u takes "
                                "what an earlier one chose itself; name that one",
                                layer, from, n_layers);
        }
        source[layer] = from;
        if (at[n] == '\0') {
            return QY_OK;
        }
        at += n + 1;
    }
}

static int maps_layers(const struct qy_cache_params *p)
{
    const char *text = p->retrieval->reuse_layers;

    return text[0] != '\0' && strcmp(text, "off") != 0;
}

int qyi_reuse_wanted(const struct qy_cache_params *p)
{
    return !p->policy->caps.dense && !p->policy->caps.select_nothing &&
           (p->retrieval->reuse != QY_REUSE_OFF || maps_layers(p));
}

uint32_t qyi_reuse_more(const struct qy_cache_params *p)
{
    return qyi_reuse_wanted(p) && p->retrieval->reuse != QY_REUSE_OFF
               ? (uint32_t)p->retrieval->reuse_every
               : 0;
}

/* Floats of one token's queries. */
static int compares(const struct qy_cache *cache)
{
    return cache->params.retrieval->reuse == QY_REUSE_COSINE;
}

uint64_t qyi_reuse_bytes(const struct qy_cache *cache)
{
    const uint64_t layers = cache->params.shape.n_layers;
    const uint64_t queries =
        cache->params.max_sequences * qyi_token_floats(cache) * (layers + 1) * sizeof(float);

    if (!qyi_reuse_wanted(&cache->params)) {
        return 0;
    }
    return layers * sizeof(uint32_t) + qyi_cache_items(cache) + (compares(cache) ? queries : 0);
}

enum qy_status qyi_reuse_open(struct qy_cache *cache, struct qy_error *err)
{
    const struct qy_cache_params *p = &cache->params;
    const struct qy_allocator *mem = &cache->rt->mem;
    const size_t floats = p->max_sequences * qyi_token_floats(cache);
    struct qyi_reuse *r = &cache->reuse;

    if (!qyi_reuse_wanted(p)) {
        return QY_OK;
    }
    r->source = qy_alloc_zero(mem, p->shape.n_layers * sizeof(*r->source));
    r->is_reused = qy_alloc_zero(mem, qyi_cache_items(cache));
    if (compares(cache)) {
        r->q = qy_alloc_zero(mem, floats * sizeof(float));
        r->q_last = qy_alloc_zero(mem, floats * p->shape.n_layers * sizeof(float));
    }
    if (!r->source || !r->is_reused || (compares(cache) && (!r->q || !r->q_last))) {
        return qy_error_set(err, QY_ERR_NOMEM, "cache: out of memory for retrieval.reuse");
    }
    const enum qy_status st =
        qyi_reuse_parse(p->retrieval->reuse_layers, p->shape.n_layers, r->source, err);
    for (uint32_t l = 0; st == QY_OK && l < p->shape.n_layers; l++) {
        if (r->source[l] < cache->dense_layers) {
            return qy_error_set(err, QY_ERR_CONFIG,
                                "setting 'retrieval.reuse_layers': layer %u attends to all and "
                                "chooses nothing; name one from %u on",
                                r->source[l], cache->dense_layers);
        }
    }
    r->is_on = st == QY_OK;
    return st;
}

void qyi_reuse_close(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    struct qyi_reuse *r = &cache->reuse;

    qy_free(mem, r->q_last);
    qy_free(mem, r->q);
    qy_free(mem, r->is_reused);
    qy_free(mem, r->source);
}

void qyi_reuse_note(struct qy_cache *cache, const struct qy_qkv *qkv)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);

    for (uint32_t i = now->begin; cache->reuse.q && i < now->end; i++) {
        const struct qyi_slice *s = &cache->step.slices[i];

        if (s->n_tokens == 1) {
            memcpy(cache->reuse.q + i * qyi_token_floats(cache), qkv->q + s->row * qkv->stride,
                   qyi_token_floats(cache) * sizeof(float));
        }
    }
}

static const float *query_now(const struct qy_cache *cache, uint32_t slice, uint32_t head)
{
    return cache->reuse.q + slice * qyi_token_floats(cache) +
           (size_t)head * cache->group * cache->params.shape.head_dim;
}

static float *query_last(const struct qy_cache *cache, uint32_t sequence, uint32_t layer,
                         uint32_t head)
{
    const size_t place = (size_t)sequence * cache->params.shape.n_layers + layer;

    return cache->reuse.q_last + place * qyi_token_floats(cache) +
           (size_t)head * cache->group * cache->params.shape.head_dim;
}

/* The list to be used again; NULL: none. */
static struct qyi_last_list *find(const struct qy_cache *cache, uint32_t layer, uint32_t slice,
                                  uint32_t head)
{
    const struct qy_retrieval_settings *r = cache->params.retrieval;
    const struct qyi_slice *s = &cache->step.slices[slice];
    const uint32_t n = s->reach.n;
    const uint32_t from = cache->reuse.source[layer];

    if (from != QYI_NO_SOURCE) {
        struct qyi_last_list *list = qyi_last_list(&cache->last, s->seq->slot, from, head);

        return list->n > 0 && list->used == n ? list : NULL;
    }
    struct qyi_last_list *list = qyi_last_list(&cache->last, s->seq->slot, layer, head);
    if (r->reuse == QY_REUSE_OFF || list->n == 0 || list->n >= n ||
        n - list->n >= (uint32_t)r->reuse_every) {
        return NULL;
    }
    if (compares(cache) &&
        !qyi_reuse_alike(query_now(cache, slice, head),
                         query_last(cache, s->seq->slot, layer, head), cache->group,
                         cache->params.shape.head_dim, r->reuse_cosine)) {
        return NULL;
    }
    return list;
}

int qyi_reuse_take(struct qy_cache *cache, uint32_t layer, uint32_t slice, uint32_t head)
{
    const struct qyi_slice *s = &cache->step.slices[slice];
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + head;
    uint32_t *ids = qyi_step_list(cache, slice, head) + s->reach.lo;

    if (!cache->reuse.is_on) {
        return 0;
    }
    struct qyi_last_list *list = find(cache, layer, slice, head);
    cache->reuse.is_reused[place] = list != NULL;
    if (!list) {
        return 0;
    }
    memcpy(ids, list->ids, list->n_ids * sizeof(*ids));
    uint32_t n = list->n_ids;
    for (uint32_t id = list->hi; id < s->reach.hi; id++) { /* they left the window since */
        ids[n++] = id;
    }
    cache->step.n_chosen[place] = n;
    list->used = s->reach.n;
    return 1;
}

void qyi_reuse_keep(struct qy_cache *cache, uint32_t layer, uint32_t slice, uint32_t head)
{
    const struct qyi_slice *s = &cache->step.slices[slice];
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + head;
    struct qyi_last_list *list = qyi_last_list(&cache->last, s->seq->slot, layer, head);

    if (cache->reuse.is_on && cache->reuse.is_reused[place]) {
        return;
    }
    qyi_last_list_keep(list, s->reach.n, s->reach.hi,
                       qyi_step_list(cache, slice, head) + s->reach.lo,
                       cache->step.n_chosen[place]);
    if (cache->reuse.q) {
        memcpy(query_last(cache, s->seq->slot, layer, head), query_now(cache, slice, head),
               (size_t)cache->group * cache->params.shape.head_dim * sizeof(float));
    }
}
