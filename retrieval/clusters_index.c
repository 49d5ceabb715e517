/* SPDX-License-Identifier: Apache-2.0 */
/* See clusters_index.h: what is reserved, and when tokens are clustered. */
#include "retrieval/clusters_index.h"

static size_t slab_bytes(const struct qyi_clusters_index *x)
{
    const size_t n = x->max_clusters;

    return qyi_learnt_pad(n * qy_row_bytes(QY_ROW_F16, x->params.head_dim)) +
           qyi_learnt_pad(n * sizeof(float)) + qyi_learnt_pad((n + 1) * sizeof(uint32_t)) +
           qyi_learnt_pad(x->params.max_tokens * sizeof(uint32_t));
}

static void place_slab(const struct qyi_clusters_index *x, uint8_t *at,
                       struct qyi_clusters_slab *slab)
{
    const size_t n = x->max_clusters;

    slab->rows = at;
    at += qyi_learnt_pad(n * qy_row_bytes(QY_ROW_F16, x->params.head_dim));
    slab->log_size = (float *)(void *)at;
    at += qyi_learnt_pad(n * sizeof(float));
    slab->begin = (uint32_t *)(void *)at;
    at += qyi_learnt_pad((n + 1) * sizeof(uint32_t));
    slab->members = (uint32_t *)(void *)at;
}

static enum qy_status check(const struct qy_policy_params *params, struct qy_error *err)
{
    const struct qy_retrieval_settings *s = qyi_policy_settings(params);

    if (s->cluster_segment / s->cluster_tokens > UINT16_MAX + 1) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "retrieval.cluster_segment '%lld': at most 65,536 clusters of "
                            "retrieval.cluster_tokens (%lld) are made together; lower the first or "
                            "raise the second",
                            (long long)s->cluster_segment, (long long)s->cluster_tokens);
    }
    if (s->pooling == QY_POOLED_UNION) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "retrieval.pooling 'union': policy 'clusters' takes sum or max; the "
                            "estimate of what is left out is one for the group");
    }
    return QY_OK;
}

static enum qy_status reserve(struct qyi_clusters_index *x, struct qy_error *err)
{
    const struct qy_policy_params *p = &x->params;
    const struct qy_allocator *mem = &p->rt->mem;
    const size_t slabs = (size_t)p->max_sequences * x->n_slabs;
    const size_t cuts = (size_t)p->max_sequences * x->max_cuts;
    const enum qy_status st = qyi_learnt_check(p, "clusters", (uint64_t)slabs * slab_bytes(x), err);

    if (st != QY_OK) {
        return st;
    }
    x->sequences = qy_alloc_zero(mem, p->max_sequences * sizeof(*x->sequences));
    x->slabs = qy_alloc_zero(mem, slabs * sizeof(*x->slabs));
    x->cuts = qy_alloc_zero(mem, cuts * sizeof(*x->cuts));
    x->memory = qy_alloc_zero(mem, slabs * slab_bytes(x));
    if (!x->sequences || !x->slabs || !x->cuts || !x->memory) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy 'clusters': out of memory at open");
    }
    for (uint32_t q = 0; q < p->max_sequences; q++) {
        x->sequences[q].cuts = x->cuts + (size_t)q * x->max_cuts;
        x->sequences[q].slabs = x->slabs + (size_t)q * x->n_slabs;
    }
    for (size_t i = 0; i < slabs; i++) {
        place_slab(x, x->memory + i * slab_bytes(x), &x->slabs[i]);
    }
    return QY_OK;
}

enum qy_status qyi_clusters_open(const struct qy_policy_params *params,
                                 struct qyi_clusters_index **index, struct qy_error *err)
{
    const struct qy_retrieval_settings *s = qyi_policy_settings(params);
    enum qy_status st = check(params, err);

    if (st != QY_OK) {
        return st;
    }
    struct qyi_clusters_index *x = qy_alloc_zero(&params->rt->mem, sizeof(*x));
    if (!x) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy 'clusters': out of memory at open");
    }
    x->params = *params;
    x->tokens = (uint32_t)s->cluster_tokens;
    x->segment = (uint32_t)s->cluster_segment;
    x->iterations = (uint32_t)s->cluster_iterations;
    x->n_slabs = qyi_learnt_slabs(params);
    /* a cut holds an update or a segment, but for the first and for what a cut sequence left */
    x->max_cuts =
        params->max_tokens / (x->segment / 2 + 1) + params->max_tokens / QYI_CLUSTERS_UPDATE + 3;
    x->max_clusters = params->max_tokens / x->tokens + x->max_cuts;
    st = reserve(x, err);
    if (st != QY_OK) {
        qyi_clusters_close(x);
        return st;
    }
    *index = x;
    return QY_OK;
}

void qyi_clusters_close(struct qyi_clusters_index *x)
{
    if (!x) {
        return;
    }
    const struct qy_allocator mem = x->params.rt->mem;
    qy_free(&mem, x->memory);
    qy_free(&mem, x->cuts);
    qy_free(&mem, x->slabs);
    qy_free(&mem, x->sequences);
    qy_free(&mem, x);
}

void qyi_clusters_forget(struct qyi_clusters_index *x, uint32_t sequence, uint32_t n_tokens)
{
    struct qyi_clusters_sequence *s = &x->sequences[sequence];

    while (s->n_cuts > 0 && s->cuts[s->n_cuts - 1].end > n_tokens) {
        s->n_cuts--;
    }
}

/* Clusters tokens first .. end - 1 in segments of about the same size. */
static enum qy_status cluster(struct qyi_clusters_index *x, struct qyi_clusters_sequence *s,
                              const struct qy_sequence_view *view, uint32_t first, uint32_t end)
{
    const uint32_t n = end - first;
    const uint32_t n_segments = (n + x->segment - 1) / x->segment;

    for (uint32_t i = 0; i < n_segments; i++) {
        const uint32_t from = first + (uint32_t)((uint64_t)n * i / n_segments);
        const uint32_t to = first + (uint32_t)((uint64_t)n * (i + 1) / n_segments);
        const uint32_t n_new = to - from > x->tokens ? (to - from) / x->tokens : 1;
        const uint32_t before = qyi_clusters_count(s);

        if (s->n_cuts == x->max_cuts || before + n_new > x->max_clusters) {
            return QY_ERR_NOMEM;
        }
        const enum qy_status st = qyi_clusters_learn(x, view, from, to, before, n_new);
        if (st != QY_OK) {
            return st;
        }
        s->cuts[s->n_cuts++] = (struct qyi_clusters_cut){.end = to, .n_clusters = before + n_new};
    }
    return QY_OK;
}

enum qy_status qyi_clusters_update(struct qyi_clusters_index *x,
                                   const struct qy_sequence_view *view, struct qy_error *err)
{
    struct qyi_clusters_sequence *s = &x->sequences[view->sequence];
    const uint32_t end = view->hi < view->n_tokens ? view->hi : view->n_tokens;

    if (s->first != view->lo) {
        s->n_cuts = 0;
        s->first = view->lo;
    }
    /* a sequence that was cut short has tokens in its window that were out of it before */
    qyi_clusters_forget(x, view->sequence, end);
    const uint32_t from = s->n_cuts > 0 ? qyi_clusters_end(s) : view->lo;
    if (end <= from || (s->n_cuts > 0 && end - from < QYI_CLUSTERS_UPDATE)) {
        return QY_OK;
    }
    const enum qy_status st = cluster(x, s, view, from, end);
    if (st != QY_OK) {
        s->n_cuts = 0;
        return qy_error_set(err, st, "policy 'clusters': clustering %u tokens failed (%s)",
                            end - from, qy_status_name(st));
    }
    return QY_OK;
}
