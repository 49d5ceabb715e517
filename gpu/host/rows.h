/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels of rows on the host, private to gpu/host: what the public functions (append.c, attend.c,
 * attend_chunk.c, score.c, pool.c) call once they have checked arguments and split the work.
 *
 * Each set is one `static const` table made from the same bodies (*_body.h) with other vector words
 * (vec_*.h). No function here allocates, checks its arguments or looks at threads.
 */
#ifndef QY_GPU_HOST_ROWS_H
#define QY_GPU_HOST_ROWS_H

#include <stdatomic.h>

#include "gpu/gpu.h"

enum {
    QYI_PIECE_ROWS = QY_ATTEND_PIECE, /* rows of one partial of decode attention      */
    QYI_MAX_GROUP = 64,    /* query heads per KV head                                   */
    QYI_CHUNK_KEYS = 64,   /* rows of one step of prefill attention: fixes the bits     */
    QYI_CHUNK_LANES = 192, /* query rows (tokens x heads) that share one converted tile */
    QYI_CHUNK_PAD = 48     /* largest lane block of any set, see vec_*.h                */
};

/* n rows of one item: ids[0..n) or first .. first + n - 1. `after` rows follow these in the item
 * (in ids too): they may be prefetched. */
struct qyi_span {
    const float *q; /* [group][d] */
    const struct qy_rows *rows;
    const uint32_t *ids;
    uint32_t first, n, group, after;
    const float *bias; /* [n] or NULL; attend only */
};

/* Queries q_begin .. q_end - 1 of item over its rows key_begin .. key_end - 1; scratch as
 * attend_chunk.c reckons it (64-byte aligned). */
struct qyi_chunk {
    const struct qy_chunk_item *item;
    uint32_t q_begin, q_end;
    uint32_t key_end; /* the item's, where that is 0: qyi_chunk_rows */
    float scale;
    float *scratch;
};

/* One past the last row that the item has a say about. */
static inline uint64_t qyi_chunk_rows(const struct qy_chunk_item *item)
{
    return (uint64_t)item->first + (item->earlier ? 0 : item->n_q);
}

struct qyi_pool_head {
    double mass; /* of lo .. hi - 1                         */
    float share; /* factor from exp to the share in the pool */
};

struct qyi_rows_kernels {
    uint32_t lanes; /* attend and score need d to be a multiple of it */
    /* n floats at src as row elements at dst. Returns 1 when one is not finite afterwards. */
    int (*pack)(const float *src, uint32_t n, enum qy_row_type type, void *dst);
    /* out [group][d], lse [group] of the span alone. n = 0: 0 and -inf. */
    void (*attend)(const struct qyi_span *span, float scale, float *out, float *lse);
    /* scores[h * stride + i] = scale * q[h] . k of the span's row i. */
    void (*score)(const struct qyi_span *span, float scale, float *scores, size_t stride);
    void (*chunk)(const struct qyi_chunk *chunk); /* any d */
    /* Scores of head h become exp(score - the largest); *head receives what places needs. */
    void (*pool_head)(const struct qy_pool_item *item, uint32_t h, struct qyi_pool_head *head);
    /* pooled[begin .. end - 1] of the heads [group]. */
    void (*pool_places)(const struct qy_pool_item *item, const struct qyi_pool_head *heads,
                        uint32_t begin, uint32_t end);
};

extern const struct qyi_rows_kernels qyi_rows_plain;
extern const struct qyi_rows_kernels qyi_rows_scalar; /* attend and score of any d */
#if defined(__x86_64__)
extern const struct qyi_rows_kernels qyi_rows_avx2;
extern const struct qyi_rows_kernels qyi_rows_avx512;
#endif

/* Table of a level for attend and score with heads of d elements. */
const struct qyi_rows_kernels *qyi_rows_for(enum qy_cpu_level level, uint32_t d);
/* Table of a level for all other kernels. */
const struct qyi_rows_kernels *qyi_rows_any(enum qy_cpu_level level);

/* Is this shape one that the row kernels take? */
int qyi_rows_valid(const struct qy_rows *rows, uint32_t group);

/* As qy_device_merge. */
void qyi_merge(const float *parts_out, const float *parts_lse, uint32_t n_parts, uint32_t heads,
               uint32_t d, float *out, float *lse);

/* Work shared out in runs that become shorter towards the end: long runs keep a thread on
 * neighbouring memory, short ones level the finish. Who computes what never changes a bit. */
struct qyi_units {
    uint32_t total;
    _Atomic uint32_t next;
};
/* Takes units *begin .. *end - 1. 0: none is left. */
static inline int qyi_units_take(struct qyi_units *units, uint32_t n_threads, uint32_t *begin,
                                 uint32_t *end)
{
    /* relaxed: the counter only hands out numbers; qy_team_run orders the data */
    uint32_t at = atomic_load_explicit(&units->next, memory_order_relaxed);
    uint32_t n;
    do {
        if (at >= units->total) {
            return 0;
        }
        n = n_threads == 1 ? units->total - at : (units->total - at) / (n_threads * 3) + 1;
    } while (!atomic_compare_exchange_weak_explicit(&units->next, &at, at + n, memory_order_relaxed,
                                                    memory_order_relaxed));
    *begin = at;
    *end = at + n;
    return 1;
}

/* Walks the units of n items, whose units follow each other: count(job, i) of item i. Every unit of
 * every item is given once to work, on one of the threads that call this. */
static inline __attribute__((always_inline)) void
qyi_units_walk(struct qyi_units *units, uint32_t n_threads, const void *job,
               uint32_t (*count)(const void *job, uint32_t item),
               void (*work)(const void *job, uint32_t item, uint32_t unit))
{
    uint32_t begin;
    uint32_t end;
    uint32_t i = 0;
    uint32_t base = 0; /* first unit of item i */

    while (qyi_units_take(units, n_threads, &begin, &end)) {
        for (uint32_t u = begin; u < end; u++) {
            while (u - base >= count(job, i)) {
                base += count(job, i);
                i++;
            }
            work(job, i, u - base);
        }
    }
}

#endif
