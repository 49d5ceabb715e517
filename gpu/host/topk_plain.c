/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Selection in plain C, and the words in which topk_body.h and union_body.h are written:
 *
 *   WORD_N                     elements looked at together; a mask has a bit for each
 *   words_not_below(s, x)      mask of s[j] >= x; NaN is not
 *   words_above(s, x)          mask of s[j] > x; NaN is not
 *   words_between(k, lo, hi)   mask of lo <= k[j] <= hi
 *   words_keep(to, from, mask) writes the elements of the mask side by side; up to WORD_N words of
 *                              `to` are spoilt; to may be from or lie before it
 *   words_places(to, at, mask) the same of at, at + 1, ...
 *   words_masses(sums, k, n, x) sums[i % 16] += the mass behind k[i] where k[i] >= x, for i < n, a
 *                              multiple of 16
 */
#include <string.h>

#include "gpu/host/topk.h"

enum { WORD_N = 1 };

static inline uint32_t words_not_below(const float *s, float x)
{
    return *s >= x;
}
static inline uint32_t words_above(const float *s, float x)
{
    return *s > x;
}
static inline uint32_t words_between(const uint32_t *k, uint32_t lo, uint32_t hi)
{
    return (uint32_t)(*k >= lo) & (uint32_t)(*k <= hi);
}
static inline void words_keep(uint32_t *to, const void *from, uint32_t mask)
{
    (void)mask; /* one element: spoilt or kept, the caller knows */
    memcpy(to, from, sizeof(*to));
}
static inline void words_places(uint32_t *to, uint32_t at, uint32_t mask)
{
    (void)mask;
    *to = at;
}
static inline void words_masses(double sums[16], const uint32_t *k, uint32_t n, uint32_t x)
{
    for (uint32_t i = 0; i < n; i += 16) {
        for (uint32_t j = 0; j < 16; j++) {
            const uint32_t key = k[i + j];
            const uint32_t bits = key >= x && key > 0x80000000U ? key & 0x7fffffffU : 0;
            float mass;
            memcpy(&mass, &bits, sizeof(mass));
            sums[j] += (double)mass;
        }
    }
}

#include "gpu/host/topk_body.h"
#include "gpu/host/union_body.h"

const struct qyi_topk_kernels qyi_topk_plain = {.topk = topk_item, .unite = union_item};
