/* SPDX-License-Identifier: Apache-2.0 */
/* See pq_index.h. Codes of a sequence lie as those in a cache's blocks would: [block][layer, KV
 * head][codes of block_tokens tokens]. */
#include "retrieval/pq_index.h"

#include "retrieval/lloyd.h"

enum {
    ITERATIONS = 20,
    CHUNK = 16 /* tokens of each slab that are encoded together */
};

struct sequence {
    uint32_t first, end; /* tokens with codes                           */
    uint32_t learnt_end; /* learnt from first .. learnt_end - 1; 0: not */
    uint8_t **blocks;    /* [max_blocks]                                */
};

struct qyi_pq_index {
    struct qy_policy_params params;
    uint32_t n_slabs, shift, max_blocks;
    size_t slab_bytes;               /* codes of one block of one slab */
    size_t table_bytes;              /* words and bias of one slab     */
    struct sequence *sequences;      /* [max_sequences]          */
    struct qy_quantizer *quantizers; /* [max_sequences][n_slabs] */
    struct qy_encode_item *items;    /* [n_slabs]                */
    struct qyi_learnt_read *reads;   /* [n_slabs]                */
    float *keys;                     /* [n_slabs][CHUNK][d]      */
    uint8_t *tables, *codes, **addresses;
};

static float *words_of(const struct qyi_pq_index *x, uint32_t sequence, uint32_t slab)
{
    return (float *)(void *)(x->tables + ((size_t)sequence * x->n_slabs + slab) * x->table_bytes);
}

static float *bias_of(const struct qyi_pq_index *x, uint32_t sequence, uint32_t slab)
{
    return words_of(x, sequence, slab) + (size_t)x->params.head_dim * x->quantizers[0].n_words;
}

static struct qy_quantizer *quantizer_of(const struct qyi_pq_index *x, uint32_t sequence,
                                         uint32_t slab)
{
    return &x->quantizers[(size_t)sequence * x->n_slabs + slab];
}

static struct qy_slab codes_of(const struct qyi_pq_index *x, uint32_t sequence, uint32_t slab)
{
    return (struct qy_slab){
        .blocks = x->sequences[sequence].blocks, .offset = slab * x->slab_bytes, .shift = x->shift};
}

/* ---- open ------------------------------------------------------------------------------------ */

static enum qy_status check_shape(const struct qy_policy_params *params,
                                  const struct qy_quantizer *shape, struct qy_error *err)
{
    const struct qy_retrieval_settings *s = qyi_policy_settings(params);

    if (s->pq_m < 1 || params->head_dim % (uint64_t)s->pq_m != 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "retrieval.pq_m '%lld': a number that divides the head dimension (%u) "
                            "is accepted",
                            (long long)s->pq_m, params->head_dim);
    }
    const enum qy_status st = qy_quantizer_check(shape, err);
    return st == QY_OK ? st : qy_error_wrap(err, st, "policy 'pq'");
}

static void measure(struct qyi_pq_index *x, const struct qy_quantizer *shape)
{
    const struct qy_policy_params *p = &x->params;

    x->n_slabs = qyi_learnt_slabs(p);
    x->max_blocks = (p->max_tokens + p->block_tokens - 1) / p->block_tokens;
    while (((uint32_t)1 << x->shift) < p->block_tokens) {
        x->shift++;
    }
    x->slab_bytes = qyi_learnt_pad(qy_code_slab_bytes(shape, p->block_tokens));
    x->table_bytes =
        qyi_learnt_pad((size_t)(p->head_dim + shape->m) * shape->n_words * sizeof(float));
}

static enum qy_status reserve(struct qyi_pq_index *x, struct qy_error *err)
{
    const struct qy_policy_params *p = &x->params;
    const struct qy_allocator *mem = &p->rt->mem;
    const size_t slabs = (size_t)p->max_sequences * x->n_slabs;
    const size_t blocks = (size_t)p->max_sequences * x->max_blocks;
    const size_t codes = blocks * x->n_slabs * x->slab_bytes;
    const size_t keys = (size_t)x->n_slabs * CHUNK * p->head_dim * sizeof(float);
    const enum qy_status st =
        qyi_learnt_check(p, "pq", (uint64_t)slabs * x->table_bytes + codes + keys, err);

    if (st != QY_OK) {
        return st;
    }
    x->sequences = qy_alloc_zero(mem, p->max_sequences * sizeof(*x->sequences));
    x->quantizers = qy_alloc_zero(mem, slabs * sizeof(*x->quantizers));
    x->items = qy_alloc_zero(mem, x->n_slabs * sizeof(*x->items));
    x->reads = qy_alloc_zero(mem, x->n_slabs * sizeof(*x->reads));
    x->keys = qy_alloc_zero(mem, keys);
    x->tables = qy_alloc_zero(mem, slabs * x->table_bytes);
    x->codes = qy_alloc_zero(mem, codes);
    x->addresses = qy_alloc_zero(mem, blocks * sizeof(*x->addresses));
    if (!x->sequences || !x->quantizers || !x->items || !x->reads || !x->keys || !x->tables ||
        !x->codes || !x->addresses) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy 'pq': out of memory at open");
    }
    return QY_OK;
}

enum qy_status qyi_pq_index_open(const struct qy_policy_params *params, struct qyi_pq_index **index,
                                 struct qy_error *err)
{
    const struct qy_retrieval_settings *s = qyi_policy_settings(params);
    const struct qy_allocator *mem = &params->rt->mem;
    float dummy = 0.0F;
    const struct qy_quantizer shape = {.d = params->head_dim,
                                       .m = (uint32_t)s->pq_m,
                                       .bits = 8,
                                       .n_words = (uint32_t)1 << s->pq_bits,
                                       .encode = &dummy,
                                       .bias = &dummy,
                                       .decode = &dummy};
    enum qy_status st = check_shape(params, &shape, err);

    if (st != QY_OK) {
        return st;
    }
    struct qyi_pq_index *x = qy_alloc_zero(mem, sizeof(*x));
    if (!x) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy 'pq': out of memory at open");
    }
    x->params = *params;
    measure(x, &shape);
    st = reserve(x, err);
    if (st != QY_OK) {
        qyi_pq_index_close(x);
        return st;
    }
    for (uint32_t q = 0; q < params->max_sequences; q++) {
        x->sequences[q].blocks = x->addresses + (size_t)q * x->max_blocks;
        for (uint32_t b = 0; b < x->max_blocks; b++) {
            x->sequences[q].blocks[b] =
                x->codes + ((size_t)q * x->max_blocks + b) * x->n_slabs * x->slab_bytes;
        }
        for (uint32_t i = 0; i < x->n_slabs; i++) {
            *quantizer_of(x, q, i) = shape;
            /* words are nearest in the space that is scored: one table serves both */
            quantizer_of(x, q, i)->encode = quantizer_of(x, q, i)->decode = words_of(x, q, i);
            quantizer_of(x, q, i)->bias = words_of(x, q, i) + (size_t)shape.d * shape.n_words;
        }
    }
    *index = x;
    return QY_OK;
}

void qyi_pq_index_close(struct qyi_pq_index *x)
{
    if (!x) {
        return;
    }
    const struct qy_allocator mem = x->params.rt->mem;
    qy_free(&mem, x->addresses);
    qy_free(&mem, x->codes);
    qy_free(&mem, x->tables);
    qy_free(&mem, x->keys);
    qy_free(&mem, x->reads);
    qy_free(&mem, x->items);
    qy_free(&mem, x->quantizers);
    qy_free(&mem, x->sequences);
    qy_free(&mem, x);
}

/* ---- learn ----------------------------------------------------------------------------------- */

/* Memory of one batch of slabs that are learnt together. */
struct batch {
    struct qyi_lloyd *sets;
    struct qyi_learnt_read *reads;
    uint8_t **blocks; /* [sets] -> codes while learning */
    uint32_t shift;
};

static enum qy_status batch_open(const struct qyi_pq_index *x, uint32_t most, uint32_t n,
                                 struct batch *b, uint8_t **memory)
{
    const struct qy_quantizer *shape = &x->quantizers[0];

    *b = (struct batch){0};
    while (((uint32_t)1 << b->shift) < n) {
        b->shift++;
    }
    const size_t head = qyi_learnt_pad(most * sizeof(*b->sets)) +
                        qyi_learnt_pad(most * sizeof(*b->reads)) +
                        qyi_learnt_pad(most * sizeof(*b->blocks));
    const size_t keys = qyi_learnt_pad((size_t)n * shape->d * sizeof(float));
    const size_t codes = qyi_learnt_pad(qy_code_slab_bytes(shape, (uint32_t)1 << b->shift));
    uint8_t *at = qy_alloc_zero(&x->params.rt->mem, head + most * (keys + codes));

    *memory = at;
    if (!at) {
        return QY_ERR_NOMEM;
    }
    b->sets = (struct qyi_lloyd *)(void *)at;
    b->reads = (struct qyi_learnt_read *)(void *)(at + qyi_learnt_pad(most * sizeof(*b->sets)));
    b->blocks = (uint8_t **)(void *)(at + head - qyi_learnt_pad(most * sizeof(*b->blocks)));
    for (uint32_t i = 0; i < most; i++) {
        b->reads[i].k = (float *)(void *)(at + head + i * (keys + codes));
        b->blocks[i] = at + head + i * (keys + codes) + keys;
    }
    return QY_OK;
}

/* Learns the quantizers of tokens lo .. end - 1 of a sequence. */
static enum qy_status learn(struct qyi_pq_index *x, const struct qy_sequence_view *view,
                            uint32_t end)
{
    const struct qy_runtime *rt = x->params.rt;
    const uint32_t most = qyi_learnt_batch(rt);
    struct batch b;
    uint8_t *memory = NULL;
    enum qy_status st = batch_open(x, most, end - view->lo, &b, &memory);

    for (uint32_t s = qyi_learnt_first_slab(&x->params); st == QY_OK && s < x->n_slabs; s += most) {
        const uint32_t n = x->n_slabs - s < most ? x->n_slabs - s : most;

        for (uint32_t i = 0; i < n; i++) {
            b.reads[i].rows = qy_sequence_view_rows(view, s + i);
            b.reads[i].first = view->lo;
            b.reads[i].n = end - view->lo;
            b.sets[i] = (struct qyi_lloyd){.x = b.reads[i].k,
                                           .n = end - view->lo,
                                           .quantizer = quantizer_of(x, view->sequence, s + i),
                                           .words = words_of(x, view->sequence, s + i),
                                           .bias = bias_of(x, view->sequence, s + i),
                                           .codes = {.blocks = &b.blocks[i], .shift = b.shift}};
        }
        qyi_learnt_read(rt, b.reads, n);
        st = qyi_lloyd_run(rt, x->params.dev, b.sets, n, ITERATIONS);
    }
    qy_free(&rt->mem, memory);
    return st;
}

/* ---- extend ---------------------------------------------------------------------------------- */

static enum qy_status encode(struct qyi_pq_index *x, const struct qy_sequence_view *view,
                             uint32_t first, uint32_t end)
{
    const uint32_t d = x->params.head_dim;
    const uint32_t s0 = qyi_learnt_first_slab(&x->params);
    const uint32_t n_slabs = x->n_slabs - s0;
    enum qy_status st = QY_OK;

    for (uint32_t t = first; st == QY_OK && n_slabs > 0 && t < end; t += CHUNK) {
        const uint32_t n = end - t < CHUNK ? end - t : CHUNK;

        for (uint32_t i = 0; i < n_slabs; i++) {
            float *k = x->keys + (size_t)i * CHUNK * d;

            x->reads[i] = (struct qyi_learnt_read){
                .rows = qy_sequence_view_rows(view, s0 + i), .first = t, .n = n, .k = k};
            x->items[i] =
                (struct qy_encode_item){.quantizer = quantizer_of(x, view->sequence, s0 + i),
                                        .k = k,
                                        .stride = d,
                                        .codes = codes_of(x, view->sequence, s0 + i),
                                        .first = t,
                                        .n = n};
        }
        qyi_learnt_read(x->params.rt, x->reads, n_slabs);
        st = qy_device_encode(x->params.dev, x->items, n_slabs);
    }
    return st;
}

enum qy_status qyi_pq_index_update(struct qyi_pq_index *x, const struct qy_sequence_view *view,
                                   struct qy_error *err)
{
    struct sequence *s = &x->sequences[view->sequence];
    const uint32_t end = view->hi < view->n_tokens ? view->hi : view->n_tokens;

    if (end <= view->lo) {
        return QY_OK;
    }
    if (s->learnt_end == 0 || s->first != view->lo ||
        end - view->lo >= 2 * (s->learnt_end - s->first)) {
        const enum qy_status st = learn(x, view, end);

        if (st != QY_OK) {
            s->learnt_end = 0;
            return qy_error_set(err, st, "policy 'pq': learning from %u tokens failed (%s)",
                                end - view->lo, qy_status_name(st));
        }
        s->learnt_end = end;
        s->first = s->end = view->lo;
    }
    if (end > s->end) {
        const enum qy_status st = encode(x, view, s->end, end);

        if (st != QY_OK) {
            return qy_error_set(err, st, "policy 'pq': the device refused to encode keys");
        }
        s->end = end;
    }
    return QY_OK;
}

void qyi_pq_index_forget(struct qyi_pq_index *x, uint32_t sequence, uint32_t n_tokens)
{
    struct sequence *s = &x->sequences[sequence];

    if (n_tokens < s->learnt_end) {
        s->learnt_end = s->first = s->end = 0;
    } else if (n_tokens < s->end) {
        s->end = n_tokens;
    }
}

struct qyi_pq_slab qyi_pq_index_slab(const struct qyi_pq_index *x, uint32_t sequence,
                                     uint32_t layer, uint32_t kv_head)
{
    const uint32_t slab = layer * x->params.n_kv_heads + kv_head;
    const struct sequence *s = &x->sequences[sequence];

    return (struct qyi_pq_slab){.quantizer = quantizer_of(x, sequence, slab),
                                .codes = codes_of(x, sequence, slab),
                                .first = s->first,
                                .end = s->end};
}

const struct qy_quantizer *qyi_pq_index_shape(const struct qyi_pq_index *x)
{
    return &x->quantizers[0];
}
