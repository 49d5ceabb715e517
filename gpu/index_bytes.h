/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Index bytes: what a few bytes per token tell of keys, and scores by them. A part of
 * gpu.h, which includes it where rows are known; its rules hold here too.
 */
#ifndef QY_GPU_H
#include "gpu/gpu.h"
#elif !defined(QY_GPU_INDEX_BYTES_H)
#define QY_GPU_INDEX_BYTES_H

/* Index bytes of one (sequence, layer, KV head): those of the 2^shift tokens from b << shift on are
 * at blocks[b] + offset, 64-byte aligned. The layout inside is the kernels' own; qy_*_slab_bytes
 * say how much 2^shift tokens take. */
struct qy_slab {
    uint8_t *const *blocks;
    size_t offset;
    uint32_t shift;
};

/* A frozen quantizer of vectors of d elements, cut into m sub-vectors of d / m each:
 *   x'      = x[order]                                  (order NULL: as it is)
 *   code_j  = argmax_w encode_w . x'_j - bias_w         (ties: the lower; no finite score: 0)
 *   q . x  ~= sum_j decode[code_j] . q'_j
 * What the metric does to x (a scale per element, a Cholesky factor) is folded into encode, bias
 * and decode. Tables are [m][d / m][n_words] f32: words lie side by side. All pointers are kept by
 * whoever made it. bits of a code: 4 (n_words = 16), 8 (up to 256) or 16 (up to 65,536; m = 1). */
struct qy_quantizer {
    uint32_t d, m, bits, n_words;
    const uint16_t *order; /* [d], a permutation                  */
    const float *encode;   /* [m][d / m][n_words]                 */
    const float *bias;     /* [m][n_words]                        */
    const float *decode;   /* [m][d / m][n_words]                 */
};

/* Is it one that the kernels take? QY_ERR_INVALID says what is wrong. [any] */
QY_MUST enum qy_status qy_quantizer_check(const struct qy_quantizer *quantizer,
                                          struct qy_error *err);
/* Bytes of codes of n_tokens tokens (a slab of a block); 4-bit codes lie in groups of 32, 64 or 128
 * tokens, the largest that a slab fills. */
size_t qy_code_slab_bytes(const struct qy_quantizer *quantizer, uint32_t n_tokens);
/* Code of sub-vector j of a token. Slow: for tests and tools. [any] [noalloc] */
uint32_t qy_code_at(const struct qy_quantizer *quantizer, const struct qy_slab *codes,
                    uint32_t token, uint32_t j);

/* Encodes n vectors k [n][stride] as tokens first .. first + n - 1; other tokens' codes stay. Items
 * of one call write different slabs. */
struct qy_encode_item {
    const struct qy_quantizer *quantizer;
    const float *k;
    size_t stride;
    struct qy_slab codes;
    uint32_t first, n;
};
QY_MUST enum qy_status qy_device_encode(struct qy_device *dev, const struct qy_encode_item *items,
                                        uint32_t n_items);

/* scores[h * stride + i] = scale * (q[h] . the decoded vector of token first + i), by tables per
 * sub-vector. 4-bit codes: tables are rounded to 8 bits or fewer and looked up in registers; the
 * error of a score is at most m half steps of its head's tables (a step: the widest sum of ranges of
 * four neighbouring tables over 253). Gather of a table: 8 and 16 bits. A query that is not finite
 * gives NaN. */
struct qy_code_score_item {
    const struct qy_quantizer *quantizer;
    const float *q; /* [group][d] */
    struct qy_slab codes;
    uint32_t first, n, group;
    float *scores;
    size_t stride;
};
QY_MUST enum qy_status qy_device_code_score(struct qy_device *dev,
                                            const struct qy_code_score_item *items,
                                            uint32_t n_items, float scale, struct qy_arena *arena);
/* Arena bytes of a call of n_items of one quantizer. */
size_t qy_device_code_score_scratch(const struct qy_device *dev, uint32_t n_items,
                                    const struct qy_quantizer *quantizer, uint32_t group);

/* 4-bit keys: each element k ~ low + step * n, n in 0..15, with f16 low and step per token: d / 2 + 4
 * bytes. d is even, at most 256. NaN is kept as 0, what f16 cannot hold as its largest. */
size_t qy_key4_slab_bytes(uint32_t d, uint32_t n_tokens);
struct qy_key4_item {
    const float *k; /* [n][stride] */
    size_t stride;
    uint32_t d;
    struct qy_slab keys;
    uint32_t first, n;
};
QY_MUST enum qy_status qy_device_key4_append(struct qy_device *dev,
                                             const struct qy_key4_item *items, uint32_t n_items);
/* scores[h * stride + i] = scale * q[h] . k of token ids[i] (ascending is fastest), or first + i when
 * ids is NULL. q is rounded to 16 bits; one that is not finite scores NaN. */
struct qy_key4_score_item {
    const float *q; /* [group][d] */
    uint32_t d, group;
    struct qy_slab keys;
    const uint32_t *ids;
    uint32_t first, n;
    float *scores;
    size_t stride;
};
QY_MUST enum qy_status qy_device_key4_score(struct qy_device *dev,
                                            const struct qy_key4_score_item *items,
                                            uint32_t n_items, float scale, struct qy_arena *arena);
size_t qy_device_key4_score_scratch(const struct qy_device *dev, uint32_t n_items, uint32_t group,
                                    uint32_t d);

/* Bounds of pages of `page` tokens (a power of two, at most 2^shift): the least and the largest of
 * each element of the page's keys, as f16 that bound the stored keys. A page begun is bounded by
 * what it has; NaN is left out. d is even, at most 256. Quest, arXiv:2406.10774, sec. 3. */
size_t qy_bound_slab_bytes(uint32_t d, uint32_t page, uint32_t n_tokens);
struct qy_bound_item {
    struct qy_rows rows; /* tokens first .. first + n - 1 are new; the page of `first` is redone */
    uint32_t first, n, page;
    struct qy_slab bounds;
};
QY_MUST enum qy_status qy_device_bound_append(struct qy_device *dev,
                                              const struct qy_bound_item *items, uint32_t n_items);
/* scores[h * stride + p] = scale * sum_i max(q_i low_i, q_i high_i) of page first + p: no key of
 * the page scores above it (but for the rounding of the sums; scale > 0). Never infinite or NaN: what
 * has no bound in f16 scores FLT_MAX. */
struct qy_bound_score_item {
    const float *q; /* [group][d] */
    uint32_t d, group, page;
    struct qy_slab bounds;
    uint32_t first, n; /* pages */
    float *scores;
    size_t stride;
};
QY_MUST enum qy_status qy_device_bound_score(struct qy_device *dev,
                                             const struct qy_bound_score_item *items,
                                             uint32_t n_items, float scale);

#endif
