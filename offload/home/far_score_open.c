/* SPDX-License-Identifier: Apache-2.0 */
/* Index bytes at the homes of their blocks: may it be, what servers are told of the policy, and the memory
 * that choosing takes. See far_score.c. */
#include "offload/cache.h"

#include <stdio.h>
#include <string.h>

/* chosen: lists of a round; more items take several */
static const size_t most_lists = (size_t)16 << 20;

int qyi_far_score_wanted(const struct qy_cache_params *p)
{
    return p->retrieval->index_at == QY_INDEX_AT_HOME && qyi_home_far_is_remote(p) &&
           !p->policy->caps.dense && !p->policy->caps.select_nothing;
}

/* Tokens of each query head that a choice unites, at most. */
static uint32_t most_k(const struct qy_cache *cache)
{
    const uint32_t n = cache->params.max_tokens;
    const struct qy_select_item item = {
        .group = cache->group, .hi = n, .k = qy_budget_tokens(&cache->params.budget, n)};

    return cache->params.policy->best_k(cache->policy, &item);
}

static size_t list_bytes(const struct qy_cache *cache, uint64_t n)
{
    return cache->group * n * (sizeof(uint32_t) + sizeof(float));
}

/* ---- may it be -------------------------------------------------------------------------------- */

static int can_score_apart(const struct qy_cache_params *p)
{
    return p->policy->scores_apart && qy_policy_find(p->policy->name) == p->policy &&
           p->policy->scores_apart(p->retrieval, (uint32_t)p->settings.window);
}

enum qy_status qyi_far_score_check(const struct qy_cache *cache, struct qy_error *err)
{
    const struct qy_cache_params *p = &cache->params;

    if (p->retrieval->index_at == QY_INDEX_AT_HOME && !qyi_home_far_is_remote(p)) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "retrieval.index_at 'home': blocks have no home but this process; it is "
            "for memory servers (net.memory, or ranks of a job); set it to worker");
    }
    if (!qyi_far_score_wanted(p)) {
        return QY_OK;
    }
    if (!can_score_apart(p)) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "retrieval.index_at 'home': policy '%.60s', as it is set up, ranks tokens by their "
            "share of "
            "all scores or by keys, which no server knows alone; accepted are a2ats (with "
            "retrieval.wrope_window up to cache.window), and a2ats+ with retrieval.pooling = "
            "union, "
            "retrieval.rerank = off and another first stage than bands and exact; set one of these "
            "up, "
            "or worker",
            p->policy->name);
    }
    const size_t answer = list_bytes(cache, most_k(cache));
    const uint64_t blocks = p->max_tokens / (uint64_t)p->settings.block_tokens + 1;
    const size_t call =
        qyi_remote_score_parts(1, (uint32_t)blocks, cache->group * p->shape.head_dim).bytes;
    if (answer > p->servers->answer_bytes || call > p->servers->call_bytes) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "retrieval.index_at 'home': choices among %u tokens take questions of %zu "
            "bytes and answers of %zu; up to %zu and %zu are accepted; lower --ctx or "
            "the budget, or set it to worker",
            p->max_tokens, call, answer, p->servers->call_bytes, p->servers->answer_bytes);
    }
    return QY_OK;
}

/* ---- what servers are told -------------------------------------------------------------------- */

/* Copies what a piece has of bytes first .. first + n - 1 of the image. */
static void copy_part(const void *from, uint64_t first, uint64_t n, uint64_t at, size_t bytes,
                      uint8_t *to)
{
    const uint64_t begin = at > first ? at : first;
    const uint64_t end = at + bytes < first + n ? at + bytes : first + n;

    if (begin < end) {
        memcpy(to + (begin - at), (const uint8_t *)from + (begin - first), (size_t)(end - begin));
    }
}

static void read_image(const void *ctx, uint64_t at, size_t bytes, void *to)
{
    const struct qy_cache *cache = ctx;
    const struct qyi_far_score *s = &cache->far.score;
    const uint64_t freqs = s->scorer.rope_dim / 2 * sizeof(float);
    const uint64_t tables = sizeof(s->scorer) + freqs;
    const uint64_t begin = at > tables ? at : tables;

    copy_part(&s->scorer, 0, sizeof(s->scorer), at, bytes, to);
    copy_part(cache->params.rope.inv_freq, sizeof(s->scorer), freqs, at, bytes, to);
    if (at + bytes > begin) {
        qy_codebook_image(s->codebook, begin - tables, (size_t)(at + bytes - begin),
                          (uint8_t *)to + (begin - at));
    }
}

struct qyi_servers_book qyi_far_score_book(struct qy_cache *cache)
{
    const struct qy_cache_params *p = &cache->params;
    const struct qy_retrieval_settings *r = p->retrieval;
    struct qyi_far_score *s = &cache->far.score;

    if (!qyi_far_score_wanted(p)) {
        return (struct qyi_servers_book){.bytes = 0};
    }
    s->codebook =
        p->policy->codebook && p->policy->codebook(r) != QY_CODEBOOK_NONE ? p->codebook : NULL;
    s->scorer = (struct qyi_remote_scorer){
        .preset = (uint32_t)r->preset,
        .first_stage = (uint32_t)r->first_stage,
        .rerank = (uint32_t)r->rerank,
        .pooling = (uint32_t)r->pooling,
        .wrope_window = (uint32_t)r->wrope_window,
        .wrope_distance = (uint32_t)r->wrope_distance,
        .sinks = (uint32_t)p->settings.sinks,
        .window = (uint32_t)p->settings.window,
        .rope_dim = p->rope.dim,
        .rope_pairs = (uint32_t)p->rope.pairs,
        .scale = p->scale,
        .codebook_bytes = s->codebook ? qy_codebook_image_bytes(s->codebook) : 0};
    snprintf(s->scorer.policy, sizeof(s->scorer.policy), "%s", p->policy->name);
    return (struct qyi_servers_book){
        .bytes = sizeof(s->scorer) + p->rope.dim / 2 * sizeof(float) + s->scorer.codebook_bytes,
        .hash = qyi_remote_scorer_hash(&s->scorer, p->rope.inv_freq,
                                       s->codebook ? qy_codebook_hash(s->codebook) : 0),
        .read = read_image,
        .ctx = cache};
}

/* ---- memory ----------------------------------------------------------------------------------- */

struct sizes {
    size_t items, sequences, blocks, places, questions;
    size_t half;    /* of the lists                     */
    size_t standin; /* of the staging of one item       */
};

static struct sizes sizes_of(const struct qy_cache *cache)
{
    const size_t places = 1 + cache->params.servers->n;
    const size_t items = qyi_cache_items(cache);
    const uint64_t k = (uint64_t)most_k(cache) * places;
    const size_t one =
        list_bytes(cache, k < cache->params.max_tokens ? k : cache->params.max_tokens);

    return (struct sizes){.items = items,
                          .sequences = cache->params.max_sequences,
                          .blocks = cache->max_blocks,
                          .places = places,
                          .questions = items * (places - 1),
                          .half = items * one < most_lists ? items * one
                                  : one < most_lists       ? most_lists
                                                           : one,
                          .standin = cache->max_blocks *
                                     (cache->layout.index_slab_bytes + QYI_SERVERS_GRANULE)};
}

uint64_t qyi_far_score_bytes(const struct qy_cache *cache)
{
    const size_t read =
        sizeof(struct qyi_store_request) + sizeof(struct qy_sequence *) + sizeof(uint32_t);

    if (!qyi_far_score_wanted(&cache->params)) {
        return 0;
    }
    const struct sizes z = sizes_of(cache);
    return z.sequences * z.blocks * (2 * sizeof(uint32_t) + sizeof(uint8_t *)) +
           z.sequences * (z.places * sizeof(struct qyi_far_part) + sizeof(uint32_t)) +
           z.items * (qyi_group_floats(cache) * sizeof(float) + sizeof(struct qy_copy_item) +
                      sizeof(uint32_t) + (z.places + 1) * sizeof(struct qyi_far_list) +
                      sizeof(struct qy_best_item) + sizeof(void *)) +
           2 * z.half + (z.questions + z.blocks) * read + z.standin +
           z.blocks * (1 + sizeof(uint8_t *));
}

static int open_reads(const struct qy_allocator *mem, size_t n, struct qyi_far_reads *r)
{
    r->capacity = (uint32_t)n;
    r->requests = qy_alloc_zero(mem, n * sizeof(*r->requests));
    r->seqs = qy_alloc_zero(mem, n * sizeof(*r->seqs));
    r->blocks = qy_alloc_zero(mem, n * sizeof(*r->blocks));
    return !r->requests || !r->seqs || !r->blocks;
}

int qyi_far_score_open(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    struct qyi_far_score *s = &cache->far.score;

    if (!qyi_far_score_wanted(&cache->params)) {
        return 0;
    }
    const struct sizes z = sizes_of(cache);
    s->n_places = (uint32_t)z.places;
    s->half = z.half;
    s->blocks = qy_alloc_zero(mem, z.sequences * z.blocks * sizeof(*s->blocks));
    s->slots = qy_alloc_zero(mem, z.sequences * z.blocks * sizeof(*s->slots));
    s->index = qy_alloc_zero(mem, z.sequences * z.blocks * sizeof(*s->index));
    s->where = qy_alloc_zero(mem, z.blocks);
    s->parts = qy_alloc_zero(mem, z.sequences * z.places * sizeof(*s->parts));
    s->n_parts = qy_alloc_zero(mem, z.sequences * sizeof(*s->n_parts));
    s->q = qy_alloc_zero(mem, z.items * qyi_group_floats(cache) * sizeof(*s->q));
    s->asks = qy_alloc_zero(mem, z.items * sizeof(*s->asks));
    s->lists = qy_alloc_zero(mem, z.items * z.places * sizeof(*s->lists));
    s->n_lists = qy_alloc_zero(mem, z.items * sizeof(*s->n_lists));
    s->merged = qy_alloc_zero(mem, z.items * sizeof(*s->merged));
    s->bests = qy_alloc_zero(mem, z.items * sizeof(*s->bests));
    s->own = qy_alloc_zero(mem, z.items * sizeof(*s->own));
    s->memory = qy_alloc_zero(mem, 2 * z.half);
    s->standin_index = qy_alloc_zero(mem, z.blocks * sizeof(*s->standin_index));
    s->standin.bytes = z.standin;
    s->standin.staging = mem->alloc(mem->ctx, z.standin, QYI_DISK_PAGE);
    const int missing =
        open_reads(mem, z.questions, &s->questions) | open_reads(mem, z.blocks, &s->standin);
    return missing || !s->blocks || !s->slots || !s->index || !s->where || !s->parts ||
           !s->n_parts || !s->q || !s->asks || !s->lists || !s->n_lists || !s->merged ||
           !s->bests || !s->own || !s->memory || !s->standin_index || !s->standin.staging;
}

static void close_reads(const struct qy_allocator *mem, struct qyi_far_reads *r)
{
    qy_free(mem, r->staging);
    qy_free(mem, r->blocks);
    qy_free(mem, r->seqs);
    qy_free(mem, r->requests);
}

void qyi_far_score_close(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    struct qyi_far_score *s = &cache->far.score;

    close_reads(mem, &s->standin);
    close_reads(mem, &s->questions);
    qy_free(mem, s->standin_index);
    qy_free(mem, s->memory);
    qy_free(mem, s->own);
    qy_free(mem, s->bests);
    qy_free(mem, s->merged);
    qy_free(mem, s->n_lists);
    qy_free(mem, s->lists);
    qy_free(mem, s->asks);
    qy_free(mem, s->q);
    qy_free(mem, s->n_parts);
    qy_free(mem, s->parts);
    qy_free(mem, s->where);
    qy_free(mem, s->index);
    qy_free(mem, s->slots);
    qy_free(mem, s->blocks);
}

size_t qyi_far_score_scratch(const struct qy_cache *cache)
{
    const uint32_t items = (uint32_t)qyi_cache_items(cache);
    const size_t heads = (size_t)items * cache->group;

    if (!qyi_far_score_wanted(&cache->params)) {
        return 0;
    }
    const size_t best =
        cache->params.policy->best_scratch(cache->policy, items, cache->params.max_tokens);
    const size_t lists =
        heads * (sizeof(struct qy_topk_item) + (most_k(cache) + (size_t)1) * sizeof(uint32_t)) +
        items * sizeof(struct qy_union_item) +
        qy_device_topk_scratch(cache->dev, (uint32_t)heads, cache->params.max_tokens) +
        (size_t)5 * 64;
    return best > lists ? best : lists;
}
