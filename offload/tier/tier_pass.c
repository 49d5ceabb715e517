/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention to all rows of a slice when not all are on the device: its blocks pass through two
 * stages, segment by segment, the next one on its way while one is attended to. Chunks of prefill go
 * on from segment to segment (qy_chunk_item.state); a single token makes the partials that it would
 * make of rows in memory, and merges them in the same order: the bits are the same.
 *
 *   blocks   0 ............ device_from ......... end
 *            through the stages, in segments    | on the device
 *
 * Of a chunk some blocks may be left out: servers attend to them (tier_chunk.c). Segments end before them.
 *
 * Rows are looked up in a table of the blocks' parts of this layer: [kv_head][token] rows.
 */
#include "offload/cache.h"

#include <math.h>

/* One segment: tokens begin .. end - 1 of a slice. */
struct segment {
    uint32_t slice, begin, end;
    uint32_t n_staged; /* blocks from begin on that come through a stage */
    uint8_t **table;   /* of the slice's blocks                          */
    uint32_t stage;
    int reads;  /* some come from the disk: read first, then copied */
    int starts; /* the slice's first */
    struct qy_event here;
};

struct pass {
    struct qy_cache *cache;
    const struct qy_qkv *qkv;
    uint32_t layer;
    const struct qyi_pass_part *part; /* NULL: all blocks pass */
    uint32_t slice, at;               /* where the next segment begins */
    uint32_t end;                     /* slices */
    uint32_t n_slices_seen, n_staged_segments;
    float *state;        /* of a chunk: [n_tokens][n_heads][2], KV heads apart */
    float *parts, *lses; /* of a single token: [n_kv_heads][pieces][group][d] */
    struct qy_attend_item *items;
    uint32_t max_pieces, n_pieces;
};

static int passes(const struct qy_cache *cache, uint32_t slice, uint32_t layer)
{
    const struct qyi_slice *s = &cache->step.slices[slice];

    return s->seq->device_from > 0 &&
           (s->n_tokens > 1 || qyi_slice_reach(cache, s, layer).reach == QYI_REACH_ALL);
}

int qyi_tier_passes(const struct qy_cache *cache, uint32_t slice, uint32_t layer)
{
    return cache->tier.present && passes(cache, slice, layer);
}

/* Is it left to this pass? Not what was pushed. */
static int is_mine(const struct pass *p, uint32_t slice)
{
    const uint8_t *done = p->cache->far.chunk.done;

    return passes(p->cache, slice, p->layer) && (p->part || !done || !done[slice]);
}

/* Tokens of a segment. */
static uint32_t segment_tokens(const struct qy_cache *cache)
{
    return cache->tier.plan.segment_blocks << cache->layout.shift;
}

/* The table of the slice: device blocks where there are some. */
static void fill_table(const struct pass *p, const struct qy_sequence *seq, uint8_t **table)
{
    const struct qyi_layout *l = &p->cache->layout;

    for (uint32_t b = seq->device_from; b < seq->n_blocks; b++) {
        table[b] =
            seq->device[b] == NULL ? NULL : seq->device[b] + qyi_layout_slab_at(l, p->layer, 0);
    }
}

static enum qy_status start_copies(struct pass *p, struct segment *s)
{
    struct qyi_tier *t = &p->cache->tier;
    const enum qy_status st = qy_stream_copy(
        t->in, t->pass_copies + (size_t)s->stage * t->plan.segment_blocks, s->n_staged);

    if (st == QY_OK) {
        s->here = qy_stream_record(t->in);
    }
    return st;
}

/* Where the part of a block is, or will be once it was read; NULL: no room, which cannot be. */
static const uint8_t *home_part(struct pass *p, const struct qy_sequence *seq, uint32_t b,
                                struct qyi_far_reads *reads)
{
    const struct qyi_layout *l = &p->cache->layout;
    const size_t at = qyi_layout_home_at(l, p->layer, 0);

    qyi_home_far_touch(seq, b);
    return seq->homes[b] ? seq->homes[b] + at
                         : qyi_far_reads_add(reads, seq, b, at,
                                             l->n_kv_heads * qyi_layout_home_slab(l, p->layer));
}

/* Starts the copies of a segment's blocks, or the reads that come before. */
static enum qy_status bring(struct pass *p, struct segment *s)
{
    struct qy_cache *cache = p->cache;
    const struct qyi_layout *l = &cache->layout;
    struct qyi_tier *t = &cache->tier;
    const struct qy_sequence *seq = cache->step.slices[s->slice].seq;
    const size_t part = (size_t)l->n_kv_heads * l->slab_bytes;
    const uint32_t stage = p->n_staged_segments++ % QYI_STAGES;
    uint8_t *to = t->stages + (size_t)stage * t->plan.segment_blocks * part;
    struct qy_copy_item *items = t->pass_copies + (size_t)stage * t->plan.segment_blocks;
    struct qyi_far_reads *reads = &cache->far.parts[stage];

    s->stage = stage;
    reads->n = 0;
    reads->used = 0;

    for (uint32_t i = 0; i < s->n_staged; i++) {
        const uint32_t b = (s->begin >> l->shift) + i;

        s->table[b] = to + i * part;
        items[i] = (struct qy_copy_item){.from = home_part(p, seq, b, reads),
                                         .to = s->table[b],
                                         .bytes = l->n_kv_heads * qyi_layout_home_slab(l, p->layer),
                                         .codec = qyi_layout_codec(l, p->layer)};
        if (!items[i].from) {
            return QY_ERR_NOMEM;
        }
    }
    s->reads = reads->n > 0;
    return s->reads ? qyi_far_reads_start(cache, reads) : start_copies(p, s);
}

static int left_out(const struct pass *p, uint32_t token)
{
    return p->part && p->part->left_out[token >> p->cache->layout.shift];
}

/* Rows p->at .. resident - 1 begin with those that are left out: passes them over. */
static void skip(struct pass *p, uint32_t resident)
{
    while (p->at < resident && left_out(p, p->at)) {
        p->at += p->cache->layout.block_tokens;
    }
}

/* Rows that pass through a stage, from `at` on: up to the next that are left out. */
static uint32_t staged_tokens(const struct pass *p, uint32_t at, uint32_t resident)
{
    const uint32_t most = segment_tokens(p->cache);
    uint32_t n = resident - at < most ? resident - at : most;

    for (uint32_t i = 0; p->part && i < n; i += p->cache->layout.block_tokens) {
        n = left_out(p, at + i) ? i : n;
    }
    return n;
}

/* The next segment, its rows under way. 0: there is none. */
static int next_segment(struct pass *p, struct segment *s, enum qy_status *st)
{
    struct qy_cache *cache = p->cache;
    const uint32_t tokens = segment_tokens(cache);

    while (p->slice < p->end && !is_mine(p, p->slice)) {
        p->slice++;
    }
    if (p->slice == p->end) {
        return 0;
    }
    const struct qyi_slice *slice = &cache->step.slices[p->slice];
    const uint32_t end = slice->first + slice->n_tokens;
    const uint32_t resident = slice->seq->device_from << cache->layout.shift;

    if (p->at == 0) {
        p->n_slices_seen++;
    }
    *s = (struct segment){.slice = p->slice,
                          .starts = p->at == 0,
                          .table = cache->tier.pass_blocks +
                                   (size_t)(p->n_slices_seen % QYI_STAGES) * cache->max_blocks};
    if (p->at == 0) {
        fill_table(p, slice->seq, s->table);
    }
    skip(p, resident);
    s->begin = p->at;
    if (p->at < resident) {
        const uint32_t staged = staged_tokens(p, p->at, resident);

        s->n_staged = staged >> cache->layout.shift;
        s->end = end - p->at < tokens ? end : p->at + tokens;
        s->end = p->at + staged < resident ? p->at + staged : s->end;
        *st = bring(p, s);
    } else {
        s->end = end;
    }
    p->at = s->end;
    if (p->at == end) {
        p->slice++;
        p->at = 0;
    }
    return 1;
}

static struct qy_rows segment_rows(const struct pass *p, const struct segment *s, uint32_t h)
{
    const struct qyi_layout *l = &p->cache->layout;

    return (struct qy_rows){.blocks = s->table,
                            .offset = h * l->slab_bytes,
                            .shift = l->shift,
                            .d = l->head_dim,
                            .type = l->row_type};
}

static enum qy_status attend_chunk(struct pass *p, const struct segment *s)
{
    struct qy_cache *cache = p->cache;
    const struct qyi_slice *slice = &cache->step.slices[s->slice];

    for (uint32_t h = 0; h < cache->layout.n_kv_heads; h++) {
        struct qy_chunk_item *item = &cache->step.chunks[h];

        *item = qyi_chunk_item(cache, p->layer, p->qkv, s->slice, h);
        item->rows = segment_rows(p, s, h);
        item->key_begin = s->begin;
        item->key_end = s->end;
        item->state = p->state + (size_t)h * slice->n_tokens * cache->group * 2;
        item->starts = s->starts;
        if (p->part) {
            item->out = p->part->out + (size_t)h * cache->group * cache->layout.head_dim;
            item->lse = p->part->lse + (size_t)h * cache->group;
            item->lse_stride = cache->params.shape.n_heads;
        }
    }
    return qy_device_attend_chunk(cache->dev, cache->step.chunks, cache->layout.n_kv_heads,
                                  cache->params.scale, &cache->arena);
}

/* The partials of a single token's segment; after the last one they are merged. */
static enum qy_status attend_one(struct pass *p, const struct segment *s)
{
    struct qy_cache *cache = p->cache;
    const struct qyi_slice *slice = &cache->step.slices[s->slice];
    const size_t heads_d = (size_t)cache->group * cache->layout.head_dim;
    const uint32_t n_heads = cache->layout.n_kv_heads;
    const uint32_t first = s->begin / QY_ATTEND_PIECE;
    uint32_t n = 0;

    for (uint32_t at = s->begin; at < s->end; at += QY_ATTEND_PIECE) {
        for (uint32_t h = 0; h < n_heads; h++, n++) {
            const size_t part = (size_t)h * p->max_pieces + first + n / n_heads;

            p->items[n] = (struct qy_attend_item){
                .q = qyi_group_q(cache, p->qkv, slice, h),
                .rows = segment_rows(p, s, h),
                .first = at,
                .n = s->end - at < QY_ATTEND_PIECE ? s->end - at : QY_ATTEND_PIECE,
                .group = cache->group,
                .out = p->parts + part * heads_d,
                .lse = p->lses + part * cache->group};
        }
    }
    enum qy_status st =
        qy_device_attend(cache->dev, p->items, n, cache->params.scale, &cache->arena);
    if (s->end < slice->first + 1) {
        return st;
    }
    const uint32_t pieces = first + n / n_heads;
    for (uint32_t h = 0; st == QY_OK && h < n_heads; h++) {
        const size_t part = (size_t)h * p->max_pieces;

        st = qy_device_merge(cache->dev, p->parts + part * heads_d, p->lses + part * cache->group,
                             pieces, cache->group, cache->layout.head_dim,
                             qyi_group_out(cache, p->qkv, slice, h), NULL);
        if (slice->counted) {
            qyi_count_attended(cache, p->layer, slice->first + 1);
        }
    }
    return st;
}

static enum qy_status attend_segment(struct pass *p, struct segment *s)
{
    struct qyi_tier *t = &p->cache->tier;
    const uint64_t begin = qy_clock_ns();
    enum qy_status st = QY_OK;

    if (s->reads) {
        st = qyi_far_reads_wait(p->cache, &p->cache->far.parts[s->stage]);
        st = st == QY_OK ? start_copies(p, s) : st;
    }
    if (st == QY_OK && s->n_staged > 0) {
        st = qy_stream_wait(t->in, s->here, t->timeout_ns);
    }

    qyi_stage_end(p->cache, QY_STAGE_WAIT, begin, p->layer);
    if (st != QY_OK) {
        return st;
    }
    return p->cache->step.slices[s->slice].n_tokens > 1 ? attend_chunk(p, s) : attend_one(p, s);
}

static uint32_t pieces_of(uint32_t n)
{
    return (n + QY_ATTEND_PIECE - 1) / QY_ATTEND_PIECE;
}

size_t qyi_tier_pass_scratch(const struct qy_cache *cache)
{
    const size_t pieces = pieces_of(cache->params.max_tokens);
    const size_t items = pieces * cache->layout.n_kv_heads;
    const size_t parts = items * cache->group * (cache->layout.head_dim + (size_t)1);
    const size_t state = (size_t)cache->params.max_step_tokens * cache->params.shape.n_heads * 2;

    return (parts + state) * sizeof(float) + items * sizeof(struct qy_attend_item) +
           qy_device_attend_scratch(cache->dev, (uint32_t)items, QY_ATTEND_PIECE, cache->group,
                                    cache->layout.head_dim) +
           qyi_tier_chunk_scratch(cache) + (size_t)5 * 64;
}

static enum qy_status reserve(struct pass *p)
{
    struct qy_cache *cache = p->cache;
    const size_t items = (size_t)p->max_pieces * cache->layout.n_kv_heads;
    const size_t parts = items * cache->group;

    p->state = qy_arena_take(&cache->arena,
                             (size_t)cache->params.max_step_tokens * cache->params.shape.n_heads *
                                 2 * sizeof(float),
                             64);
    p->parts = qy_arena_take(&cache->arena, parts * cache->layout.head_dim * sizeof(float), 64);
    p->lses = qy_arena_take(&cache->arena, parts * sizeof(float), 64);
    p->items = qy_arena_take(&cache->arena, items * sizeof(*p->items), 64);
    return p->state && p->parts && p->lses && p->items ? QY_OK : QY_ERR_NOMEM;
}

/* All segments, each under way while the one before is attended to. */
static enum qy_status run(struct pass *p)
{
    struct segment now;
    struct segment next;
    enum qy_status st = QY_OK;

    if (!next_segment(p, &now, &st)) {
        return QY_OK;
    }
    if (st == QY_OK) {
        st = reserve(p);
    }
    for (int more = 1; st == QY_OK && more;) {
        more = next_segment(p, &next, &st);
        if (st == QY_OK) {
            st = attend_segment(p, &now);
        }
        qyi_far_chunk_poll(p->cache);
        now = next;
    }
    return st;
}

enum qy_status qyi_tier_pass_part(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv,
                                  uint32_t slice, const struct qyi_pass_part *part)
{
    struct pass p = {.cache = cache,
                     .qkv = qkv,
                     .layer = layer,
                     .part = part,
                     .slice = slice,
                     .end = slice + 1,
                     .max_pieces = pieces_of(cache->params.max_tokens)};

    return run(&p);
}

enum qy_status qyi_tier_attend_all(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    struct pass p = {.cache = cache,
                     .qkv = qkv,
                     .layer = layer,
                     .slice = qyi_step_now(cache)->begin,
                     .end = qyi_step_now(cache)->end,
                     .max_pieces = pieces_of(cache->params.max_tokens)};
    enum qy_status st = qyi_tier_push_chunks(cache, layer, qkv);

    if (st == QY_OK) {
        st = run(&p);
    }
    if (st != QY_OK) {
        const enum qy_status reset = qyi_tier_reset(cache);
        st = reset == QY_OK ? st : reset;
    }
    return st;
}
