/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Product quantizers learnt from the keys of each sequence, and the codes of its tokens.
 * Private to policy_pq.c.
 *
 * Per (sequence, layer, KV head): words [m][d / m][n_words] f32 and 8-bit codes. All memory is
 * reserved at open; learning takes some for a while, extending takes none.
 */
#ifndef QYI_RETRIEVAL_PQ_INDEX_H
#define QYI_RETRIEVAL_PQ_INDEX_H

#include "retrieval/learnt.h"

struct qyi_pq_index;

QY_MUST enum qy_status qyi_pq_index_open(const struct qy_policy_params *params,
                                         struct qyi_pq_index **index, struct qy_error *err);
void qyi_pq_index_close(struct qyi_pq_index *index);

/* As qy_policy_ops.prepare: learns when the sequence has no quantizers or has doubled since, and
 * encodes the tokens that have come into reach. */
QY_MUST enum qy_status qyi_pq_index_update(struct qyi_pq_index *index,
                                           const struct qy_sequence_view *view,
                                           struct qy_error *err);
/* As qy_policy_ops.forget. */
void qyi_pq_index_forget(struct qyi_pq_index *index, uint32_t sequence, uint32_t n_tokens);

/* What is known of one (sequence, layer, KV head). Tokens first .. end - 1 have codes; the
 * quantizer lives as long as the index. */
struct qyi_pq_slab {
    const struct qy_quantizer *quantizer;
    struct qy_slab codes;
    uint32_t first, end;
};
struct qyi_pq_slab qyi_pq_index_slab(const struct qyi_pq_index *index, uint32_t sequence,
                                     uint32_t layer, uint32_t kv_head);
/* Any of the quantizers: all have one shape. */
const struct qy_quantizer *qyi_pq_index_shape(const struct qyi_pq_index *index);

#endif
