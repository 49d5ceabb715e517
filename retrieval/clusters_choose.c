/* SPDX-License-Identifier: Apache-2.0 */
/* See clusters_choose.h. Units come off a heap in the order of their scores: only as many as the
 * two zones take are put in order. */
#include "retrieval/clusters_choose.h"

#include <math.h>
#include <string.h>

/* Is unit a better than unit b? Ties to the lower; shares are no NaN. */
static int better(const float *pooled, uint32_t a, uint32_t b)
{
    return pooled[a] > pooled[b] || (pooled[a] == pooled[b] && a < b);
}

static void sift(const float *pooled, uint32_t *heap, uint32_t n, uint32_t at)
{
    const uint32_t moved = heap[at];

    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child >= n) {
            break;
        }
        if (child + 1 < n && better(pooled, heap[child + 1], heap[child])) {
            child++;
        }
        if (!better(pooled, heap[child], moved)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static uint32_t pop(const float *pooled, uint32_t *heap, uint32_t *n)
{
    const uint32_t top = heap[0];

    heap[0] = heap[--*n];
    if (*n > 0) {
        sift(pooled, heap, *n, 0);
    }
    return top;
}

static void mark(uint64_t *bits, uint32_t i)
{
    bits[i / 64] |= (uint64_t)1 << (i % 64);
}

/* Places of the marked bits, plus base, ascending. */
static uint32_t list_marked(const uint64_t *bits, uint32_t n_bits, uint32_t base, uint32_t *out)
{
    uint32_t n = 0;

    for (uint32_t w = 0; w <= n_bits / 64; w++) {
        for (uint64_t rest = bits[w]; rest != 0; rest &= rest - 1) {
            out[n++] = base + w * 64 + (uint32_t)__builtin_ctzll(rest);
        }
    }
    return n;
}

/* The units that hold a token, as a heap. Returns their number. */
static uint32_t gather_units(const struct qyi_clusters_choice *c, uint32_t *n_filled)
{
    uint32_t n = 0;

    for (uint32_t u = 0; u < c->n_clusters; u++) {
        if (c->slab->begin[u + 1] > c->slab->begin[u]) {
            c->heap[n++] = u;
        }
    }
    *n_filled = n;
    for (uint32_t u = c->n_clusters; u < c->n_clusters + c->n_pending; u++) {
        c->heap[n++] = u;
    }
    for (uint32_t at = n / 2; at > 0; at--) {
        sift(c->pooled, c->heap, n, at - 1);
    }
    return n;
}

void qyi_clusters_choose(struct qyi_clusters_choice *c)
{
    const uint32_t range = c->hi - c->lo;
    uint32_t n_filled = 0;
    uint32_t n = gather_units(c, &n_filled);
    uint32_t left = c->k;

    memset(c->bits, 0, (range / 64 + 1) * sizeof(*c->bits));
    while (left > 0 && n > 0) {
        const uint32_t u = pop(c->pooled, c->heap, &n);

        if (u >= c->n_clusters) {
            mark(c->bits, c->pending + (u - c->n_clusters) - c->lo);
            left--;
            continue;
        }
        for (uint32_t m = c->slab->begin[u]; left > 0 && m < c->slab->begin[u + 1]; m++, left--) {
            mark(c->bits, c->slab->members[m] - c->lo);
        }
    }
    *c->n_ids = list_marked(c->bits, range, c->lo, c->ids);

    uint32_t wanted = (uint32_t)ceil(c->estimated * n_filled);
    memset(c->bits, 0, (c->n_clusters / 64 + 1) * sizeof(*c->bits));
    while (wanted > 0 && n > 0) {
        const uint32_t u = pop(c->pooled, c->heap, &n);

        if (u < c->n_clusters) {
            mark(c->bits, u);
            wanted--;
        }
    }
    c->n_estimates = list_marked(c->bits, c->n_clusters, 0, c->estimates);
    for (uint32_t i = 0; i < c->n_estimates; i++) {
        c->bias[i] = c->slab->log_size[c->estimates[i]];
    }
}
