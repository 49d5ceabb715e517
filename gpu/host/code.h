/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codes of a quantizer on the host: where a code lies in a slab, and the kernels that make codes
 * and score them. Private to gpu/; gpu/quantizer.c, encode.c and code_score.c call them.
 *
 * 4-bit codes lie in groups of 2 L tokens, L = 64 (slabs of 128 tokens and more), 32 or 16. In a
 * group each sub-vector has L bytes side by side, the first L tokens in the low nibbles and the
 * others in the high ones:
 *
 *   group 0: [sub-vector 0: L bytes][sub-vector 1: L bytes] ..   group 1: ..
 *
 * Token i of a half is byte (i mod L/2) * 2 + i / (L/2): sums of bytes that are widened to 16 bits
 * come out in the order of tokens, without a shuffle.
 *
 * 8-bit codes: [token][m] bytes. 16-bit codes: [token] uint16_t.
 */
#ifndef QY_GPU_HOST_CODE_H
#define QY_GPU_HOST_CODE_H

#include "gpu/gpu.h"

enum {
    QYI_CODE_MAX_D = 512,   /* elements of a vector: buffers on the stack             */
    QYI_CODE_MAX_M = 256,   /* sub-vectors: their 8-bit entries are summed in 16 bits  */
    QYI_CODE_KEYS = 32,     /* keys of one call of an encode kernel                   */
    QYI_CODE_HEADS = 4,     /* heads of a gather table that lie side by side          */
    QYI_CODE_SPLIT = 128,   /* tokens: no group of 4-bit codes crosses a multiple of it */
    QYI_CODE_MAX_LANE = 64, /* largest L                                              */
    QYI_CODE_PAGE = 16,     /* tokens, a multiple of all kernels' vectors              */
    QYI_CODE_ADDS = 4       /* table entries that are added in 8 bits                 */
};

/* L of slabs of n_tokens. */
static inline uint32_t qyi_code4_lane(uint32_t n_tokens)
{
    return n_tokens >= 128 ? 64 : n_tokens >= 64 ? 32 : 16;
}
/* Byte of sub-vector 0 of a token of a slab (sub-vector j: j * lane further), and its bit. */
static inline size_t qyi_code4_at(uint32_t lane, uint32_t m, uint32_t token, uint32_t *bit)
{
    const uint32_t i = token % lane;
    *bit = token / lane % 2 * 4;
    return (size_t)(token / (2 * lane)) * m * lane + i % (lane / 2) * 2 + i / (lane / 2);
}

/* 4-bit tables of one query head: score = base + step * sum_j entries[j][code_j], where any
 * QYI_CODE_ADDS entries of sub-vectors 4 i .. 4 i + 3 add up to at most 255. */
struct qyi_code_head {
    float base, step;
};

/* Sums of entries of one group of 4-bit codes for some heads: sums [n_heads][stride], 2 * lane each.
 * Such a sum is at most 255 * 64. */
struct qyi_code_group {
    const uint8_t *codes; /* [m][lane] */
    const uint8_t *next;  /* what will be needed soon, as many bytes; NULL: nothing */
    uint32_t lane, m, n_heads;
    const uint8_t *entries; /* [n_heads][m][16], 16-byte aligned */
    uint16_t *sums;
    size_t stride;
};
typedef void (*qyi_code_scan_fn)(const struct qyi_code_group *group);

/* masses[i] = sum of exp(step * (sum - most)) of the sums of page i, none above `most`, but for those
 * QYI_CODE_PAGE - left[i] that are 0 because they do not count. */
struct qyi_code_masses {
    const uint16_t *sums; /* [n][QYI_CODE_PAGE] */
    uint32_t n, most;
    float step;
    const uint32_t *left; /* [n] */
    float *masses;        /* [n] */
};

/* Tokens of one slab: out[h * stride + i] = sum_j tables[j][code of token i][h]. */
struct qyi_code_gather {
    const void *codes; /* [n][m] uint8_t, or [n] uint16_t when bits is 16 */
    uint32_t bits, n, m, n_words, n_heads;
    const float *tables; /* [m][words of a table][QYI_CODE_HEADS], 16-byte aligned */
    float *out;
    size_t stride;
};

enum qyi_code_join { QYI_CODE_SET, QYI_CODE_ADD, QYI_CODE_LARGER };

struct qyi_code_kernels {
    /* Codes of n <= QYI_CODE_KEYS vectors k [n][stride] into codes [m][QYI_CODE_KEYS]; 4 bits. */
    void (*encode4)(const struct qy_quantizer *quantizer, const float *k, size_t stride, uint32_t n,
                    uint8_t *codes);
    /* As encode4, 8 and 16 bits, into codes [m][QYI_CODE_KEYS]. */
    void (*encode_wide)(const struct qy_quantizer *quantizer, const float *k, size_t stride,
                        uint32_t n, uint16_t *codes);
    /* Entries [m][16] and head of one query q [d] times scale; 4 bits. */
    void (*table4)(const struct qy_quantizer *quantizer, const float *q, float scale,
                   uint8_t *entries, struct qyi_code_head *head);
    /* Words begin .. end - 1 of tables [m][table words][QYI_CODE_HEADS] of n_heads <=
     * QYI_CODE_HEADS queries q [n_heads][d] times scale; 8 and 16 bits. */
    void (*table_wide)(const struct qy_quantizer *quantizer, const float *q, uint32_t n_heads,
                       float scale, uint32_t begin, uint32_t end, float *tables);
    qyi_code_scan_fn scan[3]; /* by lane: 16, 32, 64 */
    /* scores[i] = base + step * sums[i]. */
    void (*scores)(const uint16_t *sums, uint32_t n, const struct qyi_code_head *head,
                   float *scores);
    /* The largest of n > 0 sums. */
    uint32_t (*largest)(const uint16_t *sums, uint32_t n);
    /* exp(base + step * sum) of n sums, none above `most`, added up. */
    float (*mass)(const uint16_t *sums, uint32_t n, uint32_t most,
                  const struct qyi_code_head *head);
    void (*masses)(const struct qyi_code_masses *masses);
    /* weights[i] = exp(base + step * sums[i]), i = 0 .. QYI_CODE_PAGE - 1. */
    void (*page)(const uint16_t *sums, const struct qyi_code_head *head, float *weights);
    /* pooled [n] of all places, head by head: pooled[i] becomes exp(base + step * sums[i]), is increased
     * by it, or becomes the larger of both. No sum is above `most`, no exp above 1. */
    void (*pool)(const uint16_t *sums, uint32_t n, uint32_t most, const struct qyi_code_head *head,
                 enum qyi_code_join join, float *pooled);
    /* out [d] = mean of the values of rows ids [n]; 0 of none. */
    void (*values)(const struct qy_rows *rows, const uint32_t *ids, uint32_t n, float *out);
    /* The largest of n scores, as a finite number, NaN being the least; the sum of exp(score - base).
     */
    float (*scores_largest)(const float *scores, uint32_t n);
    float (*scores_mass)(const float *scores, uint32_t n, float base);
    void (*gather)(const struct qyi_code_gather *gather);
};

/* Words of a gather table: a byte is in range whatever it holds. */
static inline uint32_t qyi_code_table_words(const struct qy_quantizer *quantizer)
{
    return quantizer->bits == 8 ? 256 : quantizer->n_words;
}

extern const struct qyi_code_kernels qyi_code_plain;
#if defined(__x86_64__)
extern const struct qyi_code_kernels qyi_code_avx2;
extern const struct qyi_code_kernels qyi_code_avx512;
void qyi_code_scan_xmm(const struct qyi_code_group *group);
void qyi_code_scan_avx2(const struct qyi_code_group *group);
void qyi_code_scan_avx512(const struct qyi_code_group *group);
#endif

/* Sums of whole groups of 4-bit codes, of tokens begin .. end - 1: multiples of qyi_code4_step, token
 * begin is sums[0] of each head [group][stride]. Tokens past `last` may be of slabs that are not
 * there: they are not looked at ahead. */
struct qyi_code_sums {
    const struct qyi_code_kernels *kernels;
    const struct qy_slab *codes;
    uint32_t m, group;
    const uint8_t *entries; /* [group][m][16] */
    uint64_t last;
    uint16_t *sums;
    size_t stride;
};
void qyi_code_sums(const struct qyi_code_sums *s, uint64_t begin, uint64_t end);

/* Up to whole cache lines. */
static inline size_t qyi_round64(size_t n)
{
    return (n + 63) / 64 * 64;
}
static inline size_t qyi_larger(size_t a, size_t b)
{
    return a > b ? a : b;
}
/* Bytes of the 4-bit tables of `group` heads: [group][m][16], [group] qyi_code_head. */
static inline size_t qyi_code_entries_bytes(uint32_t m, uint32_t group)
{
    return qyi_round64((size_t)group * m * 16);
}
static inline size_t qyi_code_heads_bytes(uint32_t group)
{
    return qyi_round64(group * sizeof(struct qyi_code_head));
}
/* Memory that is enough for the tables and sums of any of some items. */
struct qyi_code_sizes {
    size_t entries, heads, stride; /* bytes, bytes, sums of a head */
    uint32_t group;
};
/* Makes it enough for one more item: n tokens, from any token on. */
void qyi_code_sizes_add(struct qyi_code_sizes *sizes, uint32_t n, uint32_t m, uint32_t group);

/* Tokens of a group: of what exists of it in slabs of n_tokens. */
static inline uint32_t qyi_code4_step(uint32_t n_tokens)
{
    const uint32_t lane = qyi_code4_lane(n_tokens);
    return n_tokens < 2 * lane ? n_tokens : 2 * lane;
}

/* Table of a level. */
const struct qyi_code_kernels *qyi_code_for(enum qy_cpu_level level);
/* Is it a shape that the kernels take? Looks at no table. */
int qyi_quantizer_valid(const struct qy_quantizer *quantizer);

#endif
