/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choices used again instead of asking the policy, which does not know of it (retrieval.reuse*):
 *
 *   every    a choice serves a fixed number of steps (Recycled Attention, arXiv:2411.05787)
 *   cosine   it serves while the group's queries look like those that it was made for (the selection
 *            cache of TokenSelect, arXiv:2411.02886), at most as many steps
 *   layers   a layer takes what another one attends to in the same step (TidalDecode, arXiv:2410.05076)
 *
 * chosen: tokens that left the window since the choice was made are attended too, so nothing between
 * choice and window is lost. chosen: queries are compared before RoPE: one position on is no reason
 * to choose anew. differs: TokenSelect compares all heads of a layer together, here each KV head has
 * a cache of its own, and all query heads of its group must agree. What a policy estimates of the
 * tokens left out, it does not where its choice is used again.
 */
#ifndef QYI_OFFLOAD_REUSE_H
#define QYI_OFFLOAD_REUSE_H

#include "offload/offload.h"

#define QYI_NO_SOURCE UINT32_MAX

struct qyi_reuse {
    int is_on;        /* any of the three            */
    uint32_t *source; /* [n_layers] the layer whose choice is taken; QYI_NO_SOURCE: none */
    float *q;         /* cosine: [max_sequences][n_heads * d] of the running layer, before RoPE   */
    float *q_last; /* cosine: [max_sequences][n_layers][n_heads * d] of the last choices        */
    uint8_t *is_reused; /* [items] of the running layer */
};

struct qy_cache;

/* Are all heads of a group alike: is the cosine of each of a's `group` vectors [d] with b's at least
 * `least`? Pure. [noalloc] */
int qyi_reuse_alike(const float *a, const float *b, uint32_t group, uint32_t d, double least);
/* "off" or "4:3,5:3" (layer 4 takes what layer 3 chose) into source [n_layers]. QY_ERR_CONFIG: a layer
 * that is not there, comes before its source, or takes what was taken itself. Pure. */
QY_MUST enum qy_status qyi_reuse_parse(const char *text, uint32_t n_layers, uint32_t *source,
                                       struct qy_error *err);
/* Is anything used again with these settings? And the ids that a list may so have above the budget. */
int qyi_reuse_wanted(const struct qy_cache_params *params);
uint32_t qyi_reuse_more(const struct qy_cache_params *params);

uint64_t qyi_reuse_bytes(const struct qy_cache *cache);
QY_MUST enum qy_status qyi_reuse_open(struct qy_cache *cache, struct qy_error *err);
void qyi_reuse_close(struct qy_cache *cache);
/* Before the rotation: notes the queries of single tokens. [noalloc] */
void qyi_reuse_note(struct qy_cache *cache, const struct qy_qkv *qkv);
/* The list of (slice, KV head) where a choice is used again: written, and counted in n_chosen.
 * 0: the policy has to choose. [noalloc] */
int qyi_reuse_take(struct qy_cache *cache, uint32_t layer, uint32_t slice, uint32_t head);
/* The list of (slice, KV head) is complete: what the policy chose is kept. [noalloc] */
void qyi_reuse_keep(struct qy_cache *cache, uint32_t layer, uint32_t slice, uint32_t head);

#endif
