/* SPDX-License-Identifier: Apache-2.0 */
/* 4-bit keys: checks, rounds queries, shares ranges of tokens out over the team. The layout is in
 * key4.h, the arithmetic in key4_*.c. */
#include "gpu/host/key4.h"

#include <math.h>

#include "gpu/host/host.h"
#include "gpu/host/rows.h"

enum {
    RANGE_TOKENS = 256,
    TEAM_BYTES = 64 * 1024, /* keys below this: the caller alone is faster than the team */
    TEAM_FLOATS = 1 << 15,  /* the same for appended elements                             */
    ALIGN = 64
};

static const struct qyi_key4_kernels *kernels_for(enum qy_cpu_level level)
{
#if defined(__x86_64__)
    if (level == QY_CPU_AVX512) {
        return &qyi_key4_avx512;
    }
    if (level == QY_CPU_AVX2) {
        return &qyi_key4_avx2;
    }
#else
    (void)level;
#endif
    return &qyi_key4_plain;
}

static size_t round_up(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static int shape_valid(uint32_t d, const struct qy_slab *keys)
{
    return d >= 2 && d % 2 == 0 && d <= QYI_KEY4_MAX_D && keys->shift < 32;
}

size_t qy_key4_slab_bytes(uint32_t d, uint32_t n_tokens)
{
    const size_t words = qyi_key4_words(d);
    /* a kernel reads whole chunks */
    const size_t past = words % QYI_KEY4_CHUNK == 0 ? 0 : 2 * (size_t)QYI_KEY4_CHUNK;

    return round_up(n_tokens * (2 * words + 4) + past);
}

/* ---- append -------------------------------------------------------------------------------- */

struct append_job {
    const struct qy_key4_item *items;
    const struct qyi_key4_kernels *kernels;
    uint32_t n_items;
    struct qyi_units units; /* one token of one item, counted over all items */
};

static void append_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct append_job *job = arg;
    uint32_t begin;
    uint32_t end;

    (void)thread;
    while (qyi_units_take(&job->units, n_threads, &begin, &end)) {
        uint32_t base = 0;
        for (uint32_t i = 0; i < job->n_items && base < end; i++) {
            const struct qy_key4_item *item = &job->items[i];
            const uint32_t from = begin > base ? begin - base : 0;
            const uint32_t to = end - base < item->n ? end - base : item->n;
            for (uint32_t t = from; t < to; t++) {
                job->kernels->append(item->k + t * item->stride, item->d,
                                     qyi_key4_words_at(&item->keys, item->d, item->first + t),
                                     qyi_key4_meta_at(&item->keys, item->d, item->first + t));
            }
            base += item->n;
        }
    }
}

enum qy_status qy_device_key4_append(struct qy_device *dev, const struct qy_key4_item *items,
                                     uint32_t n_items)
{
    struct append_job job = {
        .items = items, .kernels = kernels_for(dev->level), .n_items = n_items, .units = {0, 0}};
    size_t floats = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        if (!shape_valid(items[i].d, &items[i].keys)) {
            return QY_ERR_INVALID;
        }
        job.units.total += items[i].n;
        floats += (size_t)items[i].n * items[i].d;
    }
    qy_team_run(floats < TEAM_FLOATS ? NULL : dev->rt->team, append_run, &job);
    return QY_OK;
}

/* ---- score --------------------------------------------------------------------------------- */

struct score_job {
    const struct qy_key4_score_item *items;
    const struct qyi_key4_kernels *kernels;
    struct qyi_key4_query *queries; /* [n_items] */
    float scale;
    struct qyi_units units; /* ranges of RANGE_TOKENS tokens, item after item */
};

enum { LANES = 16 }; /* partial sums, for the compiler's vectors */

/* The largest |q_i| and the sum. Either is not finite where q is not. */
static void measure_query(const float *q, uint32_t d, float *largest, float *sum)
{
    float most[LANES] = {0};
    float total[LANES] = {0};

    for (uint32_t i = 0; i < d; i += LANES) {
        const uint32_t n = d - i < LANES ? d - i : LANES;
        for (uint32_t l = 0; l < n; l++) {
            const float size = fabsf(q[i + l]);
            most[l] = size > most[l] ? size : most[l];
            total[l] += q[i + l];
        }
    }
    for (uint32_t l = 1; l < LANES; l++) {
        most[0] = most[l] > most[0] ? most[l] : most[0];
        total[0] += total[l];
    }
    *largest = most[0];
    *sum = total[0];
}

/* Values of one head [chunks][4][16]: q / step rounded, zeros past the last element. A query that
 * is not finite makes every score of the head NaN. */
static void round_query(const float *q, uint32_t d, int16_t *values, float *sum, float *step)
{
    const uint32_t words = qyi_key4_words(d);
    float largest;

    measure_query(q, d, &largest, sum);
    memset(values, 0, (size_t)qyi_key4_chunks(d) * 4 * QYI_KEY4_CHUNK * sizeof(*values));
    /* so small that the inverse would not be finite: 0 */
    const float inverse = largest > 1e-33F ? 32767.0F / largest : 0.0F;
    *step = largest / 32767.0F;
    if (!isfinite(*sum) || !isfinite(largest)) {
        *sum = NAN;
        *step = 0.0F;
        return;
    }
    for (uint32_t j = 0; j < 4; j++) {
        for (uint32_t w = 0; w < words && j * words + w < d; w++) {
            const float x = q[j * words + w] * inverse;
            values[(w / QYI_KEY4_CHUNK * 4 + j) * QYI_KEY4_CHUNK + w % QYI_KEY4_CHUNK] =
                (int16_t)(int32_t)(x + (x < 0.0F ? -0.5F : 0.5F));
        }
    }
}

static uint32_t ranges_of(const struct qy_key4_score_item *item)
{
    return (uint32_t)(((uint64_t)item->n + RANGE_TOKENS - 1) / RANGE_TOKENS);
}

static void score_range(const void *arg, uint32_t i, uint32_t range)
{
    const struct score_job *job = arg;
    const struct qy_key4_score_item *item = &job->items[i];
    const uint32_t at = range * RANGE_TOKENS;
    const uint32_t n = item->n - at < RANGE_TOKENS ? item->n - at : RANGE_TOKENS;
    const struct qyi_key4_span span = {.query = &job->queries[i],
                                       .keys = &item->keys,
                                       .ids = item->ids == NULL ? NULL : item->ids + at,
                                       .d = item->d,
                                       .group = item->group,
                                       .first = item->first + at,
                                       .n = n,
                                       .after = item->n - at - n};

    job->kernels->score(&span, job->scale, item->scores + at, item->stride);
}

static uint32_t score_units(const void *arg, uint32_t item)
{
    const struct score_job *job = arg;

    return ranges_of(&job->items[item]);
}

static void score_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct score_job *job = arg;

    (void)thread;
    qyi_units_walk(&job->units, n_threads, job, score_units, score_range);
}

static size_t values_bytes(uint32_t group, uint32_t d)
{
    return (size_t)group * qyi_key4_chunks(d) * 4 * QYI_KEY4_CHUNK * sizeof(int16_t);
}

/* Rounds an item's queries into the arena. */
static enum qy_status prepare_query(const struct qy_key4_score_item *item, struct qy_arena *arena,
                                    struct qyi_key4_query *query)
{
    const size_t bytes = values_bytes(item->group, item->d);
    uint8_t *memory = qy_arena_take(arena, bytes + 2 * item->group * sizeof(float), ALIGN);

    if (memory == NULL) {
        return QY_ERR_NOMEM;
    }
    query->values = (int16_t *)(void *)memory;
    query->sum = (float *)(void *)(memory + bytes);
    query->step = query->sum + item->group;
    for (uint32_t h = 0; h < item->group; h++) {
        round_query(item->q + (size_t)h * item->d, item->d,
                    query->values + h * values_bytes(1, item->d) / sizeof(int16_t), &query->sum[h],
                    &query->step[h]);
    }
    return QY_OK;
}

enum qy_status qy_device_key4_score(struct qy_device *dev, const struct qy_key4_score_item *items,
                                    uint32_t n_items, float scale, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct score_job job = {
        .items = items, .kernels = kernels_for(dev->level), .scale = scale, .units = {0, 0}};
    enum qy_status st = QY_OK;
    size_t bytes = 0;

    if (n_items == 0) {
        return QY_OK;
    }
    job.queries = qy_arena_take(arena, n_items * sizeof(*job.queries), ALIGN);
    if (job.queries == NULL) {
        st = QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; st == QY_OK && i < n_items; i++) {
        const struct qy_key4_score_item *item = &items[i];
        if (!shape_valid(item->d, &item->keys) || item->group < 1 || item->group > QYI_MAX_GROUP) {
            st = QY_ERR_INVALID;
        } else if (item->n > 0) {
            st = prepare_query(item, arena, &job.queries[i]);
        }
        job.units.total += ranges_of(item);
        bytes += (size_t)item->n * item->d / 2;
    }
    if (st == QY_OK) {
        qy_team_run(bytes < TEAM_BYTES ? NULL : dev->rt->team, score_run, &job);
    }
    qy_arena_rewind(arena, mark);
    return st;
}

size_t qy_device_key4_score_scratch(const struct qy_device *dev, uint32_t n_items, uint32_t group,
                                    uint32_t d)
{
    const size_t item = round_up(values_bytes(group, d) + 2 * group * sizeof(float)) +
                        sizeof(struct qyi_key4_query);

    (void)dev;
    return n_items * item + 2 * ALIGN; /* alignment of the first of each kind */
}
