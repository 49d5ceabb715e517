/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over what was not chosen, estimated: weights by the 16-bit sums of the scan of 4-bit
 * codes, values by tokens drawn. Whole items are shared out over the team.
 *
 * The sums of tokens that do not count become 0, the least there is: the largest sum is then one of
 * a token that counts, and what they add to a page's mass is known. A draw looks at the masses of
 * pages first, and at the tokens of those pages alone that it falls on.
 */
#include <math.h>
#include <string.h>

#include "gpu/host/code.h"
#include "gpu/host/host.h"
#include "gpu/host/rows.h"

enum {
    PAGE = QYI_CODE_PAGE,
    MAX_SAMPLES = 4096,    /* of a head                                   */
    TEAM_WORK = 512 * 1024 /* look-ups: below, the caller alone is faster */
};

/* The sizes that all items of a call fit. */
struct sizes {
    struct qyi_code_sizes scan;
    size_t pages, drawn; /* pages of a head, bytes */
};

/* Of one thread. */
struct memory {
    uint8_t *entries;            /* [group][m][16]                        */
    struct qyi_code_head *heads; /* [group]: of scores, then of weights   */
    uint16_t *sums;              /* [group][stride]                       */
    float *weights;              /* [group][pages], together 1            */
    uint32_t *left;              /* [pages] tokens of the page that count */
    uint32_t *drawn;             /* [samples] tokens                      */
};

struct job {
    const struct qy_code_estimate_item *items;
    const struct qyi_code_kernels *codes;
    float scale;
    struct sizes sizes;
    uint8_t *memory; /* [threads] */
    struct qyi_units items_left;
};

/* The item's tokens, in whole pages. */
struct span {
    uint32_t first, past; /* that may count                                          */
    uint32_t begin, n;    /* first token of page 0; pages                            */
    uint32_t scanned;     /* first token of the sums: of a group of codes and a page */
};

static struct span span_of(const struct qy_code_estimate_item *it)
{
    const uint32_t step = qyi_code4_step((uint32_t)1 << it->codes.shift);
    const uint32_t whole = step > PAGE ? step : PAGE;
    struct span s = {.first = it->first, .past = it->first + it->n};

    s.begin = it->first / PAGE * PAGE;
    s.n = (s.past - s.begin + PAGE - 1) / PAGE;
    s.scanned = it->first / whole * whole;
    return s;
}

/* ---- weights ------------------------------------------------------------------------------------- */

/* Sums of all pages' tokens; 0 for those that do not count. */
static void make_sums(const struct job *job, const struct qy_code_estimate_item *it,
                      const struct span *s, const struct memory *m)
{
    const struct qyi_code_sums sums = {.kernels = job->codes,
                                       .codes = &it->codes,
                                       .m = it->quantizer->m,
                                       .group = it->group,
                                       .entries = m->entries,
                                       .last = (uint64_t)s->past - 1,
                                       .sums = m->sums,
                                       .stride = job->sizes.scan.stride};

    qyi_code_sums(&sums, s->scanned, s->past);
    for (uint32_t h = 0; h < it->group; h++) {
        uint16_t *at = m->sums + h * job->sizes.scan.stride + (s->begin - s->scanned);
        const size_t end = (size_t)s->n * PAGE;
        const size_t past = s->past - s->begin;

        memset(at, 0, (s->first - s->begin) * sizeof(*at));
        memset(at + past, 0, (end - past) * sizeof(*at));
        for (uint32_t i = 0; i < it->n_ids; i++) {
            at[it->ids[i] - s->begin] = 0;
        }
    }
}

static void count_left(const struct qy_code_estimate_item *it, const struct span *s, uint32_t *left)
{
    for (uint32_t p = 0; p < s->n; p++) {
        const uint32_t begin = s->begin + p * PAGE;
        const uint32_t from = begin > s->first ? begin : s->first;

        left[p] = (s->past - begin < PAGE ? s->past : begin + PAGE) - from;
    }
    for (uint32_t i = 0; i < it->n_ids; i++) {
        left[(it->ids[i] - s->begin) / PAGE]--;
    }
}

/* Masses of the pages become weights that add up to 1, and the head that of a token's weight:
 * exp(base + step * sum). Returns the log of the masses' sum. */
static float make_weights(const struct job *job, const struct span *s, const struct memory *m,
                          uint32_t h)
{
    const struct qyi_code_head head = m->heads[h];
    const uint16_t *sums = m->sums + h * job->sizes.scan.stride + (s->begin - s->scanned);
    float *weights = m->weights + h * job->sizes.pages;
    double all = 0.0;

    if (!isfinite(head.base) || !isfinite(head.step)) {
        memset(weights, 0, s->n * sizeof(*weights));
        return -INFINITY;
    }
    const struct qyi_code_masses masses = {.sums = sums,
                                           .n = s->n,
                                           .most = job->codes->largest(sums, s->n * PAGE),
                                           .step = head.step,
                                           .left = m->left,
                                           .masses = weights};
    job->codes->masses(&masses);
    for (uint32_t p = 0; p < s->n; p++) {
        all += (double)weights[p]; /* some token counts: at least about 1 */
    }
    for (uint32_t p = 0; p < s->n; p++) {
        weights[p] /= (float)all;
    }
    m->heads[h].base = -head.step * (float)masses.most - logf((float)all);
    return head.base + head.step * (float)masses.most + logf((float)all);
}

/* ---- draws --------------------------------------------------------------------------------------- */

/* A walk over the weights of one head, that draws at equal steps. */
struct draw {
    double next, step; /* weight before the next token drawn; from one to the next */
    uint32_t n;        /* tokens drawn                                             */
    uint32_t at;       /* the next of the ids                                      */
};

static void fetch_value(const struct qy_rows *rows, uint32_t token)
{
    const size_t bytes = qy_row_bytes(rows->type, rows->d) / 2;
    const uint8_t *value = qy_row_at(rows, token) + bytes;

    for (size_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch(value + i);
    }
}

static void draw_token(const struct qy_code_estimate_item *it, const struct memory *m,
                       uint32_t token, double until, struct draw *draw)
{
    while (draw->next < until && draw->n < it->samples) {
        m->drawn[draw->n++] = token;
        draw->next += draw->step;
        fetch_value(&it->rows, token);
    }
}

/* Draws from page p, whose weights lie in begin .. end of all. */
static void draw_page(const struct job *job, const struct qy_code_estimate_item *it,
                      const struct span *s, const struct memory *m, uint32_t h, uint32_t p,
                      double begin, double end, struct draw *draw)
{
    const uint32_t page = s->begin + p * PAGE;
    float weights[PAGE];
    uint32_t last = page;

    job->codes->page(m->sums + h * job->sizes.scan.stride + (page - s->scanned), &m->heads[h],
                     weights);
    while (draw->at < it->n_ids && it->ids[draw->at] < page) {
        draw->at++;
    }
    for (uint32_t i = 0; i < PAGE; i++) {
        const uint32_t token = page + i;

        if (draw->at < it->n_ids && it->ids[draw->at] == token) {
            draw->at++;
        } else if (token >= s->first && token < s->past) {
            begin += (double)weights[i];
            draw_token(it, m, token, begin < end ? begin : end, draw);
            last = token;
        }
    }
    draw_token(it, m, last, end, draw); /* what rounding left */
}

/* out [d] of one head. */
static void draw_head(const struct job *job, const struct qy_code_estimate_item *it,
                      const struct span *s, const struct memory *m, uint32_t h)
{
    const float *weights = m->weights + h * job->sizes.pages;
    struct draw draw = {.step = 1.0 / it->samples, .next = 0.5 / it->samples};
    double begin = 0.0;

    for (uint32_t p = 0; p < s->n; p++) {
        const double end = begin + (double)weights[p];

        if (draw.next < end) {
            draw_page(job, it, s, m, h, p, begin, end, &draw);
        }
        begin = end;
    }
    job->codes->values(&it->rows, m->drawn, draw.n, it->out + (size_t)h * it->rows.d);
}

/* ---- one item ------------------------------------------------------------------------------------ */

static void run_item(const struct job *job, const struct qy_code_estimate_item *it,
                     const struct memory *m)
{
    const struct span s = span_of(it);
    const uint32_t d = it->quantizer->d;

    memset(it->out, 0, (size_t)it->group * d * sizeof(*it->out));
    for (uint32_t h = 0; h < it->group; h++) {
        it->lse[h] = -INFINITY;
        job->codes->table4(it->quantizer, it->q + (size_t)h * d, job->scale,
                           m->entries + (size_t)h * it->quantizer->m * 16, &m->heads[h]);
    }
    if (it->n == it->n_ids) {
        return;
    }
    make_sums(job, it, &s, m);
    count_left(it, &s, m->left);
    for (uint32_t h = 0; h < it->group; h++) {
        it->lse[h] = make_weights(job, &s, m, h);
        if (it->lse[h] > -INFINITY) {
            draw_head(job, it, &s, m, h);
        }
    }
}

/* ---- call ---------------------------------------------------------------------------------------- */

static void sizes_add(struct sizes *sizes, uint32_t n, uint32_t samples,
                      const struct qy_quantizer *quantizer, uint32_t group)
{
    qyi_code_sizes_add(&sizes->scan, n, quantizer->m, group);
    sizes->pages = qyi_larger(sizes->pages, qyi_round64((size_t)n / PAGE + 2));
    sizes->drawn = qyi_larger(sizes->drawn, qyi_round64(samples * sizeof(uint32_t)));
}

static size_t thread_bytes(const struct sizes *s)
{
    const struct qyi_code_sizes *scan = &s->scan;

    return scan->entries + scan->heads + scan->group * scan->stride * sizeof(uint16_t) +
           scan->group * s->pages * sizeof(float) + s->pages * sizeof(uint32_t) + s->drawn;
}

static struct memory memory_of(const struct job *job, uint32_t thread)
{
    const struct sizes *s = &job->sizes;
    const struct qyi_code_sizes *scan = &s->scan;
    uint8_t *at = job->memory + thread * thread_bytes(s);
    struct memory m = {.entries = at};

    m.heads = (void *)(at += scan->entries);
    m.sums = (void *)(at += scan->heads);
    m.weights = (void *)(at += scan->group * scan->stride * sizeof(*m.sums));
    m.left = (void *)(at += scan->group * s->pages * sizeof(*m.weights));
    m.drawn = (void *)(at + s->pages * sizeof(*m.left));
    return m;
}

static void run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct job *job = arg;
    const struct memory m = memory_of(job, thread);
    uint32_t begin;
    uint32_t end;

    while (qyi_units_take(&job->items_left, n_threads, &begin, &end)) {
        for (uint32_t i = begin; i < end; i++) {
            run_item(job, &job->items[i], &m);
        }
    }
}

static int item_valid(const struct qy_code_estimate_item *it)
{
    return qyi_quantizer_valid(it->quantizer) && it->quantizer->bits == 4 && it->codes.shift < 32 &&
           qyi_rows_valid(&it->rows, it->group) && it->rows.d == it->quantizer->d &&
           it->rows.codec == NULL && it->samples > 0 && it->samples <= MAX_SAMPLES &&
           it->n_ids <= it->n && it->n <= UINT32_MAX - it->first;
}

enum qy_status qy_device_code_estimate(struct qy_device *dev,
                                       const struct qy_code_estimate_item *items, uint32_t n_items,
                                       float scale, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    const uint32_t n_threads = qy_team_size(dev->rt->team);
    struct job job = {.items = items,
                      .codes = qyi_code_for(dev->level),
                      .scale = scale,
                      .items_left = {n_items, 0}};
    uint64_t work = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        if (!item_valid(&items[i])) {
            return QY_ERR_INVALID;
        }
        sizes_add(&job.sizes, items[i].n, items[i].samples, items[i].quantizer, items[i].group);
        work += (uint64_t)items[i].n * items[i].quantizer->m * items[i].group;
    }
    if (n_items == 0) {
        return QY_OK;
    }
    job.memory = qy_arena_take(arena, n_threads * thread_bytes(&job.sizes), 64);
    if (job.memory == NULL) {
        return QY_ERR_NOMEM;
    }
    qy_team_run(work < TEAM_WORK ? NULL : dev->rt->team, run, &job);
    qy_arena_rewind(arena, mark);
    return QY_OK;
}

size_t qy_device_code_estimate_scratch(const struct qy_device *dev, uint32_t max_n,
                                       uint32_t samples, const struct qy_quantizer *quantizer,
                                       uint32_t group)
{
    struct sizes sizes = {0};

    sizes_add(&sizes, max_n, samples, quantizer, group);
    return qy_team_size(dev->rt->team) * thread_bytes(&sizes) + 64;
}
