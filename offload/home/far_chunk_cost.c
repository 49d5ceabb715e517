/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What chunks cost a plan (plan_chunk.h), measured at open with a block of zeros at one server. T tokens and K
 * times that block:
 *
 *   byte       READ of the block's part of a layer, once and many times       the difference, per byte
 *              and copies of as many parts to the device                      per byte
 *   pair       attention of T tokens over a stage of rows, on the device      per query head and row
 *   far row    CHUNK of a token, of 1 block and of K of them                  the difference, per row, less
 *              the token's own pairs
 *   far pair   CHUNK of T tokens, of 1 block and of K of them                 the difference, per query head
 *              and row, less the rows'
 *   token      CHUNK of 1 block, of a token and of T of them                  the difference, per token, less
 *              its pairs
 *
 * Rows are few and soon in the processor's caches; a plan errs by that on both sides. Each is the least of
 * RUNS.
 */
#include "offload/cache.h"

enum { RUNS = 3, BLOCKS = 8, PARTS = 16 };

/* More things took longer: how much, each. */
static double each(double few, double many, double more)
{
    return many > few && more > 0.0 ? (many - few) / more : 0.0;
}

static double less(double ns, double part)
{
    return ns > part ? ns - part : 0.0;
}

/* ---- at the server ---------------------------------------------------------------------------- */

static enum qy_status time_chunk(struct qy_cache *cache, uint32_t n_tokens, uint32_t n_blocks,
                                 double *ns)
{
    const struct qyi_far_chunk *c = &cache->far.chunk;
    const uint32_t n_heads = cache->params.shape.n_heads;
    static const uint32_t slots[BLOCKS] = {0};
    struct qyi_store_request r = {.op = QYI_STORE_CHUNK,
                                  .data = c->runs[0].out,
                                  .bytes = (size_t)n_tokens * n_heads *
                                           (cache->layout.head_dim + 1) * sizeof(float),
                                  .list = {.slots = slots,
                                           .n = n_blocks,
                                           .layer = cache->layout.n_layers / 2,
                                           .place = qyi_store_where(cache->far.store, 0),
                                           .q = c->q,
                                           .lse = c->runs[0].lse,
                                           .n_q = n_tokens}};

    return qyi_far_cost_run(cache, &r, 1, RUNS, ns);
}

static enum qy_status measure_chunks(struct qy_cache *cache, uint32_t n_tokens, uint32_t n_blocks,
                                     struct qyi_chunk_costs *costs)
{
    const double n_heads = cache->params.shape.n_heads;
    const double rows = cache->layout.block_tokens;
    const double more = (n_blocks - 1) * rows;
    double one = 0.0, tokens = 0.0, blocks = 0.0, full = 0.0;
    enum qy_status st = time_chunk(cache, 1, 1, &one);

    if (st == QY_OK) {
        st = time_chunk(cache, n_tokens, 1, &tokens);
    }
    if (st == QY_OK) {
        st = time_chunk(cache, 1, n_blocks, &blocks);
    }
    if (st == QY_OK) {
        st = time_chunk(cache, n_tokens, n_blocks, &full);
    }
    const double row_one = each(one, blocks, more); /* of a question of one token */
    const double row_all = each(tokens, full, more);
    costs->far_pair_ns = each(row_one, row_all, (n_tokens - 1) * n_heads);
    costs->far_row_ns = less(row_one < row_all ? row_one : row_all, n_heads * costs->far_pair_ns);
    costs->token_ns = less(each(one, tokens, n_tokens - 1), rows * n_heads * costs->far_pair_ns);
    return st;
}

/* ---- on the way, and here --------------------------------------------------------------------- */

static enum qy_status measure_reads(struct qy_cache *cache, uint32_t n, double *byte_ns)
{
    const struct qyi_layout *l = &cache->layout;
    const struct qyi_far_reads *staging = &cache->far.parts[0];
    const size_t granule = cache->far.store->granule;
    const size_t at = qyi_layout_home_at(l, l->n_layers / 2, 0) / granule * granule;
    const size_t rows = l->n_kv_heads * qyi_layout_home_slab(l, l->n_layers / 2);
    const size_t bytes = (rows + granule - 1) / granule * granule;
    struct qyi_store_request requests[PARTS];
    double one = 0.0, many = 0.0;

    for (uint32_t i = 0; i < n; i++) {
        requests[i] = (struct qyi_store_request){
            .op = QYI_STORE_READ, .at = at, .data = staging->staging + i * bytes, .bytes = bytes};
    }
    enum qy_status st = qyi_far_cost_run(cache, requests, 1, RUNS, &one);
    if (st == QY_OK) {
        st = qyi_far_cost_run(cache, requests, n, RUNS, &many);
    }
    *byte_ns = n > 1 ? each(one, many, (double)(n - 1) * (double)bytes) : one / (double)bytes;
    return st;
}

/* What the reads brought (zeros) to the first stage. */
static enum qy_status measure_copies(struct qy_cache *cache, uint32_t n, double *byte_ns)
{
    const struct qyi_layout *l = &cache->layout;
    const uint32_t layer = l->n_layers / 2;
    const size_t bytes = l->n_kv_heads * qyi_layout_home_slab(l, layer);
    const size_t part = l->n_kv_heads * l->slab_bytes;
    struct qyi_tier *t = &cache->tier;
    enum qy_status st = QY_OK;

    for (uint32_t i = 0; i < n; i++) {
        t->pass_copies[i] = (struct qy_copy_item){.from = cache->far.parts[0].staging + i * bytes,
                                                  .to = t->stages + i * part,
                                                  .bytes = bytes,
                                                  .codec = qyi_layout_codec(l, layer)};
        t->pass_blocks[i] = t->stages + i * part;
    }
    for (int i = 0; st == QY_OK && i < RUNS; i++) {
        const uint64_t begin = qy_clock_ns();
        st = qy_stream_copy(t->in, t->pass_copies, n);
        if (st == QY_OK) {
            st = qy_stream_wait(t->in, qy_stream_record(t->in), t->timeout_ns);
        }
        const double took = (double)(qy_clock_ns() - begin) / ((double)n * (double)bytes);
        *byte_ns = i == 0 || took < *byte_ns ? took : *byte_ns;
    }
    return st;
}

/* Attention of n_tokens to the rows of n blocks in the first stage. */
static enum qy_status measure_device(struct qy_cache *cache, uint32_t n_tokens, uint32_t n,
                                     double *pair_ns)
{
    const struct qyi_layout *l = &cache->layout;
    const uint32_t n_heads = cache->params.shape.n_heads;
    const size_t floats = qyi_token_floats(cache);
    const size_t bytes = n_tokens * floats * sizeof(float);
    const size_t mark = qy_arena_mark(&cache->arena);
    float *q = qy_arena_take(&cache->arena, bytes, 64);
    float *out = qy_arena_take(&cache->arena, bytes, 64);
    const struct qy_copy_item copy = {.from = cache->far.chunk.q, .to = q, .bytes = bytes};
    struct qyi_tier *t = &cache->tier;
    enum qy_status st = q && out ? qy_stream_copy(t->in, &copy, 1) : QY_ERR_NOMEM;

    if (st == QY_OK) {
        st = qy_stream_wait(t->in, qy_stream_record(t->in), t->timeout_ns);
    }
    for (uint32_t h = 0; h < l->n_kv_heads; h++) {
        const size_t at = h * qyi_group_floats(cache);

        cache->step.chunks[h] = (struct qy_chunk_item){.q = q + at,
                                                       .q_stride = floats,
                                                       .rows = {.blocks = t->pass_blocks,
                                                                .offset = h * l->slab_bytes,
                                                                .shift = l->shift,
                                                                .d = l->head_dim,
                                                                .type = l->row_type},
                                                       .first = n << l->shift,
                                                       .n_q = n_tokens,
                                                       .group = cache->group,
                                                       .out = out + at,
                                                       .out_stride = floats,
                                                       .earlier = 1};
    }
    for (int i = 0; st == QY_OK && i < RUNS; i++) {
        const uint64_t begin = qy_clock_ns();
        st = qy_device_attend_chunk(cache->dev, cache->step.chunks, l->n_kv_heads,
                                    cache->params.scale, &cache->arena);
        const double took = (double)(qy_clock_ns() - begin) /
                            ((double)n_tokens * n_heads * (double)(n << l->shift));
        *pair_ns = i == 0 || took < *pair_ns ? took : *pair_ns;
    }
    qy_arena_rewind(&cache->arena, mark);
    return st;
}

enum qy_status qyi_far_chunk_measure(struct qy_cache *cache)
{
    struct qyi_far_chunk *c = &cache->far.chunk;
    const uint64_t token = qyi_token_floats(cache);
    /* chosen: a quarter of the longest question is long enough */
    const uint64_t most = cache->far.store->chunk_work / 4 / (token * cache->layout.block_tokens);
    const uint32_t segment = cache->tier.plan.segment_blocks;
    const uint32_t longest = segment < cache->max_blocks ? segment : cache->max_blocks;
    const uint32_t parts = longest < PARTS ? longest : PARTS;
    uint32_t n_tokens = c->most_tokens;
    struct qyi_chunk_costs costs = {0};
    double copied = 0.0;

    while (n_tokens > 1 && n_tokens * (uint64_t)2 > most) {
        n_tokens /= 2;
    }
    const uint64_t blocks = most / n_tokens < BLOCKS ? most / n_tokens : BLOCKS;
    enum qy_status st = measure_chunks(cache, n_tokens, blocks < 2 ? 2 : (uint32_t)blocks, &costs);
    if (st == QY_OK) {
        st = measure_reads(cache, parts, &costs.byte_ns);
    }
    if (st == QY_OK) {
        st = measure_copies(cache, parts, &copied);
    }
    if (st == QY_OK) {
        st = measure_device(cache, n_tokens, parts, &costs.pair_ns);
    }
    if (st == QY_OK) {
        costs.byte_ns += copied;
        c->costs = costs;
        c->measured = 1;
        c->mode = QY_PLAN_AUTO;
    }
    return st;
}
