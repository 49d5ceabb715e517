/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 4-bit keys on the host, private to gpu/host: their layout and the kernels that key4.c calls once
 * it has checked arguments and split the work.
 *
 * A key is W = ceil(d / 4) words of 16 bits; nibble j of word w is element j * W + w. Rounding: to
 * the nearest of low + step * n, with the low and step that are stored. In a slab of 2^shift
 * tokens the words of all tokens come first, then each token's low and step (f16 both), so that
 * a key of 64 elements lies in half a cache line:
 *
 *   [token 0: W words][token 1: W words] ... [low 0, step 0][low 1, step 1] ... [padding]
 *
 * Kernels read words in chunks of 16, past a key's last word too; a query has zeros there, and the
 * padding lets the last key of a slab do the same.
 *
 * Queries are rounded to 16 bits with a scale per head, so that dots are exact sums of integers:
 * (at most 256 * 15 * 32767 < 2^31). Their error is 1/2000 of what rounding the keys costs.
 */
#ifndef QY_GPU_HOST_KEY4_H
#define QY_GPU_HOST_KEY4_H

#include <string.h>

#include "gpu/gpu.h"

enum {
    QYI_KEY4_MAX_D = 256,
    QYI_KEY4_CHUNK = 16, /* words that a kernel takes at once */
    QYI_KEY4_MAX_CHUNKS = QYI_KEY4_MAX_D / 4 / QYI_KEY4_CHUNK
};

static inline uint32_t qyi_key4_words(uint32_t d)
{
    return (d + 3) / 4;
}
static inline uint32_t qyi_key4_chunks(uint32_t d)
{
    return (qyi_key4_words(d) + QYI_KEY4_CHUNK - 1) / QYI_KEY4_CHUNK;
}

/* A group's queries, ready for the kernels: memory of the arena. */
struct qyi_key4_query {
    int16_t *values; /* [group][chunks][4 nibbles][16 words], 64-byte aligned            */
    float *sum;      /* [group] of the query as given; NaN where it is not finite        */
    float *step;     /* [group] what 1 of its values stands for                          */
};

/* Tokens ids[0..n) or first .. first + n - 1; `after` ids follow them and may be prefetched. */
struct qyi_key4_span {
    const struct qyi_key4_query *query;
    const struct qy_slab *keys;
    const uint32_t *ids;
    uint32_t d, group, first, n, after;
};

struct qyi_key4_kernels {
    /* k [d] to words [W] and meta: low, step. NaN counts as 0, beyond f16 as its largest. */
    void (*append)(const float *k, uint32_t d, uint8_t *words, uint8_t *meta);
    void (*score)(const struct qyi_key4_span *span, float scale, float *scores, size_t stride);
};

extern const struct qyi_key4_kernels qyi_key4_plain;
#if defined(__x86_64__)
extern const struct qyi_key4_kernels qyi_key4_avx2;
extern const struct qyi_key4_kernels qyi_key4_avx512;
#endif

/* Words and meta of a token. */
static inline uint8_t *qyi_key4_words_at(const struct qy_slab *keys, uint32_t d, uint32_t token)
{
    const uint32_t mask = ((uint32_t)1 << keys->shift) - 1;
    return keys->blocks[token >> keys->shift] + keys->offset +
           (size_t)(token & mask) * (2 * qyi_key4_words(d));
}
static inline uint8_t *qyi_key4_meta_at(const struct qy_slab *keys, uint32_t d, uint32_t token)
{
    const uint32_t mask = ((uint32_t)1 << keys->shift) - 1;
    return keys->blocks[token >> keys->shift] + keys->offset +
           ((size_t)1 << keys->shift) * (2 * qyi_key4_words(d)) + (size_t)(token & mask) * 4;
}

#endif
