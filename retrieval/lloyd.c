/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See lloyd.h. Each thread begins the words of some sets. An update is two runs over the team: the
 * device assigns the points of all sets, then each thread takes sets and moves their words to the
 * means.
 */
#include "retrieval/lloyd.h"

#include <math.h>
#include <string.h>

enum { ALIGN = 64 };

/* Sums of one sub-vector of one set, per thread. */
struct sums {
    float *sum;      /* [n_words][d / m] */
    uint32_t *count; /* [n_words]        */
};

struct update {
    const struct qyi_lloyd *sets;
    uint32_t n_sets;
    uint8_t *scratch;
    size_t scratch_bytes, count_at; /* of one thread */
};

static uint32_t part_of(const struct qy_quantizer *q)
{
    return q->d / q->m;
}

/* Writes word w of sub-vector j from v [d / m], and its bias. */
static void put_word(const struct qyi_lloyd *set, uint32_t j, uint32_t w, const float *v)
{
    const struct qy_quantizer *q = set->quantizer;
    const uint32_t part = part_of(q);
    float *to = set->words + (size_t)j * part * q->n_words + w;
    float norm = 0.0F;

    for (uint32_t i = 0; i < part; i++) {
        norm += v[i] * v[i];
    }
    const float scale = set->spherical && norm > 0.0F ? 1.0F / sqrtf(norm) : 1.0F;
    for (uint32_t i = 0; i < part; i++) {
        to[(size_t)i * q->n_words] = v[i] * scale;
    }
    /* the nearest word has the largest x . w - |w|^2 / 2 */
    set->bias[(size_t)j * q->n_words + w] = set->spherical ? 0.0F : 0.5F * norm;
}

static void begin_spaced(const struct qyi_lloyd *set)
{
    const struct qy_quantizer *q = set->quantizer;

    for (uint32_t w = 0; w < q->n_words; w++) {
        const uint32_t point = (uint32_t)((uint64_t)w * set->n / q->n_words);

        for (uint32_t j = 0; j < q->m; j++) {
            put_word(set, j, w, set->x + (size_t)point * q->d + (size_t)j * part_of(q));
        }
    }
}

/* A number in 0 .. 1, from a fixed sequence. */
static double draw(uint64_t *state)
{
    *state = *state * 6364136223846793005U + 1442695040888963407U;
    return (double)(*state >> 11) * 0x1p-53;
}

/* near [n] squared distance to the nearest word so far: lowered by the word at v. Returns the sum. */
static double lower_distances(const struct qyi_lloyd *set, uint32_t j, const float *v, float *near)
{
    const uint32_t part = part_of(set->quantizer);
    double sum = 0.0;

    for (uint32_t t = 0; t < set->n; t++) {
        const float *x = set->x + (size_t)t * set->quantizer->d + (size_t)j * part;
        float distance = 0.0F;

        for (uint32_t i = 0; i < part; i++) {
            distance += (x[i] - v[i]) * (x[i] - v[i]);
        }
        near[t] = distance < near[t] ? distance : near[t];
        sum += (double)near[t];
    }
    return sum;
}

/* Each word is a point, drawn by its squared distance to the words before it. */
static void begin_drawn(const struct qyi_lloyd *set, uint32_t j, float *near)
{
    const struct qy_quantizer *q = set->quantizer;
    const uint32_t part = part_of(q);
    uint64_t state = j + 1;
    uint32_t point = (uint32_t)(draw(&state) * set->n);

    for (uint32_t t = 0; t < set->n; t++) {
        near[t] = INFINITY;
    }
    for (uint32_t w = 0; w < q->n_words; w++) {
        const float *v = set->x + (size_t)point * q->d + (size_t)j * part;
        double left;

        put_word(set, j, w, v);
        left = draw(&state) * lower_distances(set, j, v, near);
        for (point = 0; point + 1 < set->n && left >= (double)near[point]; point++) {
            left -= (double)near[point];
        }
    }
}

static void begin_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct update *u = arg;
    float *near = (float *)(void *)(u->scratch + thread * u->scratch_bytes);
    size_t begin;
    size_t end;

    qy_team_range(u->n_sets, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const struct qyi_lloyd *set = &u->sets[i];

        if (set->n > 0 && set->spherical) {
            begin_spaced(set);
        }
        for (uint32_t j = 0; set->n > 0 && !set->spherical && j < set->quantizer->m; j++) {
            begin_drawn(set, j, near);
        }
    }
}

/* Words without a point take half of the largest cell: both move a little to either side. */
static void fill_empty(const struct qy_quantizer *q, struct sums *s)
{
    const float apart = 1.0F / 1024.0F;
    const uint32_t part = part_of(q);

    for (uint32_t w = 0; w < q->n_words; w++) {
        if (s->count[w] > 0) {
            continue;
        }
        uint32_t big = 0;
        for (uint32_t v = 1; v < q->n_words; v++) {
            big = s->count[v] > s->count[big] ? v : big;
        }
        if (s->count[big] < 2) {
            return; /* fewer points than words: the rest stays where it is */
        }
        float *from = s->sum + (size_t)big * part;
        float *to = s->sum + (size_t)w * part;
        for (uint32_t i = 0; i < part; i++) {
            const float sign = i % 2 == 0 ? apart : -apart;

            to[i] = from[i] * (1.0F + sign);
            from[i] *= 1.0F - sign;
        }
        s->count[w] = s->count[big] / 2;
        s->count[big] -= s->count[w];
    }
}

static void move_words(const struct qyi_lloyd *set, uint32_t j, struct sums *s)
{
    const struct qy_quantizer *q = set->quantizer;
    const uint32_t part = part_of(q);

    memset(s->sum, 0, (size_t)q->n_words * part * sizeof(*s->sum));
    memset(s->count, 0, q->n_words * sizeof(*s->count));
    for (uint32_t t = 0; t < set->n; t++) {
        const uint32_t w = qy_code_at(q, &set->codes, t, j);
        const float *x = set->x + (size_t)t * q->d + (size_t)j * part;
        float *sum = s->sum + (size_t)w * part;

        for (uint32_t i = 0; i < part; i++) {
            sum[i] += x[i];
        }
        s->count[w]++;
    }
    for (uint32_t w = 0; w < q->n_words; w++) {
        const float share = s->count[w] > 0 ? 1.0F / (float)s->count[w] : 0.0F;

        for (uint32_t i = 0; i < part; i++) {
            s->sum[(size_t)w * part + i] *= share;
        }
    }
    uint32_t n_empty = 0;
    for (uint32_t w = 0; w < q->n_words; w++) {
        n_empty += s->count[w] == 0;
    }
    if (n_empty > 0) {
        fill_empty(q, s);
    }
    for (uint32_t w = 0; w < q->n_words; w++) {
        if (s->count[w] > 0) {
            put_word(set, j, w, s->sum + (size_t)w * part);
        }
    }
}

static void update_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct update *u = arg;
    uint8_t *mine = u->scratch + thread * u->scratch_bytes;
    struct sums s = {(float *)(void *)mine, (uint32_t *)(void *)(mine + u->count_at)};
    size_t begin;
    size_t end;

    qy_team_range(u->n_sets, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        for (uint32_t j = 0; u->sets[i].n > 0 && j < u->sets[i].quantizer->m; j++) {
            move_words(&u->sets[i], j, &s);
        }
    }
}

static enum qy_status assign(struct qy_device *dev, const struct qyi_lloyd *sets, uint32_t n_sets,
                             struct qy_encode_item *items)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_sets; i++) {
        if (sets[i].n > 0) {
            items[n++] = (struct qy_encode_item){.quantizer = sets[i].quantizer,
                                                 .k = sets[i].x,
                                                 .stride = sets[i].quantizer->d,
                                                 .codes = sets[i].codes,
                                                 .n = sets[i].n};
        }
    }
    return n > 0 ? qy_device_encode(dev, items, n) : QY_OK;
}

enum qy_status qyi_lloyd_run(const struct qy_runtime *rt, struct qy_device *dev,
                             const struct qyi_lloyd *sets, uint32_t n_sets, uint32_t iterations)
{
    struct update u = {.sets = sets, .n_sets = n_sets};
    size_t counts = 0;
    size_t n = 0;

    for (uint32_t i = 0; i < n_sets; i++) {
        const struct qy_quantizer *q = sets[i].quantizer;
        const size_t sum = (size_t)q->n_words * part_of(q) * sizeof(float);

        u.count_at = sum > u.count_at ? sum : u.count_at;
        counts = q->n_words > counts ? q->n_words : counts;
        n = sets[i].n > n ? sets[i].n : n;
    }
    u.count_at = (u.count_at + ALIGN - 1) / ALIGN * ALIGN;
    /* sums and counts, or before them the distances of the points */
    u.scratch_bytes = u.count_at + counts * sizeof(uint32_t);
    u.scratch_bytes = u.scratch_bytes > n * sizeof(float) ? u.scratch_bytes : n * sizeof(float);
    u.scratch_bytes = (u.scratch_bytes + ALIGN - 1) / ALIGN * ALIGN;
    const size_t all = qy_team_size(rt->team) * u.scratch_bytes;

    u.scratch = qy_alloc_zero(&rt->mem, all + n_sets * sizeof(struct qy_encode_item));
    if (!u.scratch) {
        return QY_ERR_NOMEM;
    }
    struct qy_encode_item *items = (struct qy_encode_item *)(void *)(u.scratch + all);
    qy_team_run(rt->team, begin_run, &u);
    enum qy_status st = assign(dev, sets, n_sets, items);
    for (uint32_t i = 0; st == QY_OK && i < iterations; i++) {
        qy_team_run(rt->team, update_run, &u);
        st = assign(dev, sets, n_sets, items);
    }
    qy_free(&rt->mem, u.scratch);
    return st;
}
