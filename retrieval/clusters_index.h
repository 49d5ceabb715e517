/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clusters of the keys of each sequence: members, mean key, mean value. Private to
 * policy_clusters.c and clusters_*.c.
 *
 * Per (sequence, layer, KV head), all reserved at open:
 *   rows     f16 [max_clusters][2][d]: mean key and mean value of a cluster, as rows of a cache
 *   log_size f32 [max_clusters]: natural logarithm of the members' number; -inf: an empty cluster
 *   begin    u32 [max_clusters + 1]: members of cluster c are members[begin[c] .. begin[c + 1] - 1]
 *   members  u32 [max_tokens]: tokens, ascending in each cluster
 * The number of clusters is the same in all slabs of a sequence; some may be empty.
 */
#ifndef QYI_RETRIEVAL_CLUSTERS_INDEX_H
#define QYI_RETRIEVAL_CLUSTERS_INDEX_H

#include "retrieval/learnt.h"

enum {
    /* Tokens that are scored by their own keys until so many can be clustered (RetroInfer's). */
    QYI_CLUSTERS_UPDATE = 1024
};

struct qyi_clusters_slab {
    uint8_t *rows;
    float *log_size;
    uint32_t *begin, *members;
};

/* Clusters made together: those before it, and the tokens that are in them. */
struct qyi_clusters_cut {
    uint32_t end;        /* tokens first .. end - 1 are clustered when this is the last one */
    uint32_t n_clusters; /* in all                                                           */
};

struct qyi_clusters_sequence {
    uint32_t first;                  /* the first token that is clustered */
    uint32_t n_cuts;                 /* 0: nothing is clustered           */
    struct qyi_clusters_cut *cuts;   /* [max_cuts]   */
    struct qyi_clusters_slab *slabs; /* [n_slabs]    */
};

struct qyi_clusters_index {
    struct qy_policy_params params;
    uint32_t tokens, segment, iterations; /* of retrieval.cluster_* */
    uint32_t n_slabs, max_clusters, max_cuts;
    struct qyi_clusters_sequence *sequences; /* [max_sequences] */
    struct qyi_clusters_cut *cuts;           /* backing of the sequences' arrays, as the next */
    struct qyi_clusters_slab *slabs;
    uint8_t *memory;
};

QY_MUST enum qy_status qyi_clusters_open(const struct qy_policy_params *params,
                                         struct qyi_clusters_index **index, struct qy_error *err);
void qyi_clusters_close(struct qyi_clusters_index *index);

/* As qy_policy_ops.prepare: clusters what there is the first time, later whenever
 * QYI_CLUSTERS_UPDATE tokens have come into reach. */
QY_MUST enum qy_status qyi_clusters_update(struct qyi_clusters_index *index,
                                           const struct qy_sequence_view *view,
                                           struct qy_error *err);
/* As qy_policy_ops.forget. */
void qyi_clusters_forget(struct qyi_clusters_index *index, uint32_t sequence, uint32_t n_tokens);

static inline uint32_t qyi_clusters_count(const struct qyi_clusters_sequence *s)
{
    return s->n_cuts > 0 ? s->cuts[s->n_cuts - 1].n_clusters : 0;
}
/* Tokens before this one are in clusters (those from first on). */
static inline uint32_t qyi_clusters_end(const struct qyi_clusters_sequence *s)
{
    return s->n_cuts > 0 ? s->cuts[s->n_cuts - 1].end : 0;
}
/* The clusters' means as rows of a cache. slab lives as long as the index. */
static inline struct qy_rows qyi_clusters_rows(const struct qyi_clusters_slab *slab, uint32_t d)
{
    return (struct qy_rows){.blocks = &slab->rows, .shift = 31, .d = d, .type = QY_ROW_F16};
}

/* clusters_learn.c: clusters tokens first .. end - 1, one segment, in all slabs, behind the
 * n_clusters there are: n_new more. QY_ERR_NOMEM. */
QY_MUST enum qy_status qyi_clusters_learn(struct qyi_clusters_index *index,
                                          const struct qy_sequence_view *view, uint32_t first,
                                          uint32_t end, uint32_t n_clusters, uint32_t n_new);

#endif
