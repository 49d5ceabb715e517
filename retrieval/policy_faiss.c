/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policy `faiss:<factory string>`: any index of FAISS, one per (sequence, layer, KV head), of the
 * keys after RoPE by inner product. After an '@' follow search parameters: "IVF64,Flat@nprobe=8".
 * Source: Johnson et al. 2017, arXiv:1702.08734; its C API.
 *
 * prepare makes and trains an index when a sequence first selects; later tokens are added as they
 * leave the window. select asks for k tokens per query head; the group's lists are merged by the
 * softmax of each over what it found (retrieval.pooling), and the k best are attended.
 *
 * Unlike other policies, select allocates, inside FAISS, and open does not know what the indexes
 * will take: it is for comparison.
 *
 * chosen: a sequence that has fewer tokens than the index wants to be trained on has a Flat one
 *   until there are enough.
 * chosen: union gives each query head an equal part of k.
 * FAISS runs one thread here: our own run an index each.
 */
#include "retrieval/faiss_index.h"
#include "retrieval/faiss_merge.h"
#include "retrieval/learnt.h"

enum { ALIGN = 64, TRY_AT_MOST = 1024, TRY_POINTS = 64 };

struct sequence {
    uint32_t first, end; /* tokens that are in the indexes       */
    int built, flat;     /* flat: too few tokens for the factory */
};

struct qy_policy {
    struct qy_policy_params params;
    struct qyi_faiss_string string;
    uint32_t n_slabs;
    struct sequence *sequences;       /* [max_sequences]          */
    struct qyi_faiss_index **indexes; /* [max_sequences][n_slabs] */
};

/* Makes and asks an index of a few vectors: what FAISS refuses is refused at open. */
static enum qy_status try_index(const struct qy_policy *policy, struct qy_error *err)
{
    const struct qyi_faiss_string *string = &policy->string;
    const uint32_t d = policy->params.head_dim;
    const uint32_t n = string->least_points > TRY_POINTS ? string->least_points : TRY_POINTS;
    uint32_t state = 1;
    float score = 0.0F;
    int64_t label = -1;
    struct qyi_faiss_index *index = NULL;

    if (n > TRY_AT_MOST) {
        return QY_OK; /* training would take long: prepare will tell */
    }
    float *keys = qy_alloc_zero(&policy->params.rt->mem, (size_t)n * d * sizeof(*keys));
    if (!keys) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy 'faiss': out of memory at open");
    }
    for (size_t i = 0; i < (size_t)n * d; i++) {
        state = state * 1664525U + 1013904223U;
        keys[i] = (float)(state >> 8) * 0x1p-23F - 1.0F;
    }
    int code = qyi_faiss_index_make(string, 0, d, n, keys, &index);
    if (code == 0) {
        code = qyi_faiss_index_search(index, 1, keys, 1, &score, &label);
        qyi_faiss_index_free(index);
    }
    qy_free(&policy->params.rt->mem, keys);
    if (code != 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "policy 'faiss:%.80s': FAISS refuses it for %u elements by inner "
                            "product: %.200s; such as Flat, PQ8, HNSW32 or IVF64,PQ8@nprobe=8 are "
                            "accepted",
                            policy->params.argument, d, qyi_faiss_index_why());
    }
    return QY_OK;
}

/* ---- open ---------------------------------------------------------------------------------------- */

static void drop(struct qy_policy *policy, uint32_t sequence)
{
    for (uint32_t i = 0; i < policy->n_slabs; i++) {
        struct qyi_faiss_index **index = &policy->indexes[(size_t)sequence * policy->n_slabs + i];

        qyi_faiss_index_free(*index);
        *index = NULL;
    }
    policy->sequences[sequence] = (struct sequence){0};
}

static void faiss_close(struct qy_policy *policy)
{
    if (!policy) {
        return;
    }
    const struct qy_allocator mem = policy->params.rt->mem;
    for (uint32_t q = 0; policy->sequences && policy->indexes && q < policy->params.max_sequences;
         q++) {
        drop(policy, q);
    }
    qy_free(&mem, policy->indexes);
    qy_free(&mem, policy->sequences);
    qy_free(&mem, policy);
}

static enum qy_status faiss_open(const struct qy_policy_params *params, struct qy_policy **policy,
                                 struct qy_error *err)
{
    const struct qy_allocator *mem = &params->rt->mem;
    struct qyi_faiss_string string;
    enum qy_status st = qyi_faiss_string_read(params->argument ? params->argument : "",
                                              params->head_dim, &string, err);

    if (st != QY_OK) {
        return st;
    }
    struct qy_policy *p = qy_alloc_zero(mem, sizeof(*p));
    if (!p) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy 'faiss': out of memory at open");
    }
    p->params = *params;
    p->string = string;
    p->n_slabs = qyi_learnt_slabs(params);
    p->sequences = qy_alloc_zero(mem, params->max_sequences * sizeof(*p->sequences));
    p->indexes = qy_alloc_zero(mem, (size_t)params->max_sequences * p->n_slabs *
                                        sizeof(struct qyi_faiss_index *));
    st = p->sequences && p->indexes
             ? try_index(p, err)
             : qy_error_set(err, QY_ERR_NOMEM, "policy 'faiss': out of memory at open");
    if (st != QY_OK) {
        faiss_close(p);
        return st;
    }
    *policy = p;
    return QY_OK;
}

/* ---- prepare ------------------------------------------------------------------------------------ */

/* Tokens first .. first + n - 1 of some slabs, for their indexes. */
struct batch {
    struct qy_policy *policy;
    struct qyi_learnt_read *reads;
    struct qyi_faiss_index **indexes;
    uint32_t n_slabs;
    int make, flat;
    int *codes; /* [n_slabs] what FAISS said */
};

static void feed_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct batch *b = arg;
    size_t begin;
    size_t end;

    qy_team_range(b->n_slabs, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const struct qyi_learnt_read *r = &b->reads[i];

        b->codes[i] = b->make ? qyi_faiss_index_make(&b->policy->string, b->flat, r->rows.d, r->n,
                                                     r->k, &b->indexes[i])
                              : qyi_faiss_index_add(b->indexes[i], r->n, r->k);
    }
}

static enum qy_status feed(struct qy_policy *policy, const struct qy_sequence_view *view,
                           uint32_t first, uint32_t end, int make, int flat)
{
    const struct qy_runtime *rt = policy->params.rt;
    const uint32_t d = policy->params.head_dim;
    const uint32_t n = end - first;
    const uint32_t s0 = qyi_learnt_first_slab(&policy->params);
    /* all at once when few tokens come, else so many that memory stays bounded */
    const uint32_t most = n <= TRY_POINTS ? policy->n_slabs : qyi_learnt_batch(rt);
    const size_t heads = qyi_learnt_pad(most * sizeof(struct qyi_learnt_read));
    const size_t codes = qyi_learnt_pad(most * sizeof(int));
    uint8_t *memory = qy_alloc_zero(&rt->mem, heads + codes + (size_t)most * n * d * sizeof(float));
    struct batch b = {.policy = policy, .make = make, .flat = flat};
    enum qy_status st = memory ? QY_OK : QY_ERR_NOMEM;

    for (uint32_t s = s0; st == QY_OK && s < policy->n_slabs; s += most) {
        b.n_slabs = policy->n_slabs - s < most ? policy->n_slabs - s : most;
        b.reads = (struct qyi_learnt_read *)(void *)memory;
        b.codes = (int *)(void *)(memory + heads);
        b.indexes = &policy->indexes[(size_t)view->sequence * policy->n_slabs + s];
        for (uint32_t i = 0; i < b.n_slabs; i++) {
            b.reads[i] = (struct qyi_learnt_read){.rows = qy_sequence_view_rows(view, s + i),
                                                  .first = first,
                                                  .n = n,
                                                  .k = (float *)(void *)(memory + heads + codes) +
                                                       (size_t)i * n * d};
        }
        qyi_learnt_read(rt, b.reads, b.n_slabs);
        qy_team_run(rt->team, feed_run, &b);
        for (uint32_t i = 0; i < b.n_slabs; i++) {
            st = b.codes[i] != 0 ? QY_ERR_UNSUPPORTED : st;
        }
    }
    qy_free(&rt->mem, memory);
    return st;
}

static enum qy_status faiss_prepare(struct qy_policy *policy, const struct qy_sequence_view *view,
                                    struct qy_error *err)
{
    struct sequence *s = &policy->sequences[view->sequence];
    const uint32_t end = view->hi < view->n_tokens ? view->hi : view->n_tokens;
    enum qy_status st = QY_OK;

    if (end <= view->lo) {
        return QY_OK;
    }
    const int few = end - view->lo < policy->string.least_points;
    if (s->built && (s->first != view->lo || (s->flat && !few))) {
        drop(policy, view->sequence);
    }
    if (!s->built) {
        st = feed(policy, view, view->lo, end, 1, few);
        *s = (struct sequence){.first = view->lo, .end = end, .built = 1, .flat = few};
    } else if (end > s->end) {
        st = feed(policy, view, s->end, end, 0, 0);
        s->end = end;
    }
    if (st != QY_OK) {
        drop(policy, view->sequence);
        return qy_error_set(err, st, "policy 'faiss:%.80s': %s of %u tokens failed: %.200s",
                            policy->params.argument, st == QY_ERR_NOMEM ? "memory" : "an index",
                            end - view->lo,
                            st == QY_ERR_NOMEM ? "none is left" : qyi_faiss_index_why());
    }
    return QY_OK;
}

static void faiss_forget(struct qy_policy *policy, uint32_t sequence, uint32_t n_tokens)
{
    if (n_tokens < policy->sequences[sequence].end) {
        drop(policy, sequence); /* few indexes can remove */
    }
}

/* ---- select -------------------------------------------------------------------------------------- */

struct work {
    const struct qy_policy *policy;
    const struct qy_select_item *items;
    uint32_t n;
    struct qyi_faiss_found *found;
    float **scores;   /* [n] -> [group][stride] */
    int64_t **labels; /* [n] -> [group][stride] */
    struct qy_topk_item *topk;
    int *codes;
};

static size_t faiss_scratch(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n)
{
    const uint32_t n = qyi_learnt_items(policy->params.rt, n_items);
    const uint32_t group = policy->params.n_heads / policy->params.n_kv_heads;
    const size_t lists = qyi_learnt_pad((size_t)group * max_n * sizeof(float)) +
                         qyi_learnt_pad((size_t)group * max_n * sizeof(int64_t));
    const size_t heads = sizeof(struct qyi_faiss_found) + sizeof(float *) + sizeof(int64_t *) +
                         sizeof(struct qy_topk_item) + sizeof(int);

    return n * (heads + lists + qyi_learnt_pad(max_n * sizeof(float))) + (size_t)8 * ALIGN +
           qy_device_topk_scratch(policy->params.dev, n, max_n);
}

static enum qy_status item_take(struct work *w, uint32_t i, struct qy_arena *arena)
{
    const struct qy_policy *policy = w->policy;
    const struct qy_select_item *it = &w->items[i];
    const struct sequence *s = &policy->sequences[it->sequence];
    const int pooling = qyi_policy_settings(&policy->params)->pooling;
    const uint32_t held = s->built ? s->end - s->first : 0;
    /* what is in the index but has come back into the window is asked for and dropped */
    const uint32_t beyond = s->built && s->end > it->hi ? s->end - it->hi : 0;
    uint32_t want = it->k;

    if (pooling == QY_POOLED_UNION) {
        want = it->k / it->group > 0 ? it->k / it->group : 1;
    }
    want = want + beyond < held ? want + beyond : held;
    const size_t places = (size_t)it->group * want;
    float *pooled = qy_arena_take(arena, (it->hi - it->lo) * sizeof(*pooled), ALIGN);
    w->scores[i] = qy_arena_take(arena, places * sizeof(float), ALIGN);
    w->labels[i] = qy_arena_take(arena, places * sizeof(int64_t), ALIGN);
    if (!pooled || !w->scores[i] || !w->labels[i]) {
        return QY_ERR_NOMEM;
    }
    w->codes[i] = 0;
    w->found[i] =
        (struct qyi_faiss_found){.scores = w->scores[i],
                                 .labels = w->labels[i],
                                 .group = it->group,
                                 .stride = want,
                                 .base = s->first,
                                 .lo = it->lo,
                                 .hi = it->hi,
                                 .scale = policy->params.scale,
                                 .pooling = pooling == QY_POOLED_MAX ? QY_POOL_MAX : QY_POOL_MEAN,
                                 .pooled = pooled};
    w->topk[i] = (struct qy_topk_item){.scores = pooled,
                                       .n = it->hi - it->lo,
                                       .k = it->k,
                                       .id_base = it->lo,
                                       .ids = it->ids,
                                       .n_ids = it->n_ids};
    return QY_OK;
}

static void search_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct work *w = arg;
    const struct qy_policy *policy = w->policy;
    size_t begin;
    size_t end;

    qy_team_range(w->n, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const struct qy_select_item *it = &w->items[i];
        const uint32_t slab = it->layer * policy->params.n_kv_heads + it->kv_head;
        const struct qyi_faiss_index *index =
            policy->indexes[(size_t)it->sequence * policy->n_slabs + slab];

        if (w->found[i].stride > 0) {
            w->codes[i] = qyi_faiss_index_search(index, it->group, it->q, w->found[i].stride,
                                                 w->scores[i], w->labels[i]);
        }
        qyi_faiss_pool(&w->found[i]);
    }
}

static enum qy_status select_batch(const struct qy_policy *policy,
                                   const struct qy_select_item *items, uint32_t n,
                                   struct qy_arena *arena)
{
    const struct qy_policy_params *p = &policy->params;
    struct work w = {.policy = policy, .items = items, .n = n};
    enum qy_status st = QY_OK;

    w.found = qy_arena_take(arena, w.n * sizeof(*w.found), ALIGN);
    w.scores = qy_arena_take(arena, w.n * sizeof(*w.scores), ALIGN);
    w.labels = qy_arena_take(arena, w.n * sizeof(*w.labels), ALIGN);
    w.topk = qy_arena_take(arena, w.n * sizeof(*w.topk), ALIGN);
    w.codes = qy_arena_take(arena, w.n * sizeof(*w.codes), ALIGN);
    if (!w.found || !w.scores || !w.labels || !w.topk || !w.codes) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; st == QY_OK && i < w.n; i++) {
        st = item_take(&w, i, arena);
    }
    if (st != QY_OK) {
        return st;
    }
    qy_team_run(p->rt->team, search_run, &w);
    for (uint32_t i = 0; i < w.n; i++) {
        st = w.codes[i] != 0 ? QY_ERR_UNSUPPORTED : st;
    }
    if (st == QY_OK) {
        st = qy_device_topk(p->dev, w.topk, w.n, arena);
    }
    for (uint32_t i = 0; st == QY_OK && i < w.n; i++) {
        *w.items[i].n_ids = qyi_faiss_keep(&w.found[i], w.items[i].ids, *w.items[i].n_ids);
    }
    return st;
}

static enum qy_status faiss_select(struct qy_policy *policy, const struct qy_select_item *items,
                                   uint32_t n_items, struct qy_arena *arena)
{
    return qyi_learnt_select(policy->params.rt, policy, select_batch, items, n_items, arena);
}

const struct qy_policy_ops qyi_policy_faiss = {
    .abi_size = sizeof(struct qy_policy_ops),
    .name = "faiss",
    .summary = "any index of FAISS of each request's keys, as faiss:<factory string>",
    .open = faiss_open,
    .close = faiss_close,
    .scratch = faiss_scratch,
    .select = faiss_select,
    .prepare = faiss_prepare,
    .forget = faiss_forget,
};
