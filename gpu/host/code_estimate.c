/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over what was not chosen, estimated page by page: weights by the 16-bit sums of the scan
 * of 4-bit codes, means of values less those of the chosen. Whole items are shared out over the
 * team.
 *
 * The sums of tokens that do not count become 0, the least there is: the largest sum is then one of
 * a token that counts, and what they add to a page's mass is known.
 */
#include <math.h>
#include <string.h>

#include "gpu/host/code.h"
#include "gpu/host/host.h"
#include "gpu/host/rows.h"
#include "gpu/host/value.h"

enum {
    TOGETHER = 8,          /* means that are weighed together             */
    AHEAD = 8,             /* rows fetched before they are needed         */
    TEAM_WORK = 512 * 1024 /* look-ups: below, the caller alone is faster */
};

/* Of one thread. */
struct memory {
    uint8_t *entries;            /* [group][m][16]                         */
    struct qyi_code_head *heads; /* [group]                                */
    uint16_t *sums;              /* [group][stride]                        */
    float *masses;               /* [group][pages]                         */
    uint32_t *left;              /* [pages] tokens of the page that count  */
    float *rows;                 /* [TOGETHER][d]                          */
};

/* The sizes that all items of a call fit. */
struct sizes {
    size_t entries, heads, rows; /* bytes                             */
    size_t stride, pages;        /* sums; pages of an item, of a line */
    uint32_t group;
};

struct job {
    const struct qy_code_estimate_item *items;
    const struct qyi_code_kernels *codes;
    const struct qyi_value_kernels *values;
    float scale;
    struct sizes sizes;
    uint8_t *memory; /* [threads] */
    struct qyi_units items_left;
};

/* ---- one item ------------------------------------------------------------------------------------ */

/* The item's tokens, in whole pages. */
struct span {
    uint32_t first, past; /* that may count         */
    uint32_t begin, n;    /* first token of page 0; pages */
    uint32_t scanned;     /* first token of the sums: of a group of codes and of a page */
};

static struct span span_of(const struct qy_code_estimate_item *it)
{
    const uint32_t step = qyi_code4_step((uint32_t)1 << it->codes.shift);
    const uint32_t whole = step > it->page ? step : it->page;
    struct span s = {.first = it->first, .past = it->first + it->n};

    s.begin = it->first / it->page * it->page;
    s.n = (s.past - s.begin + it->page - 1) / it->page;
    s.scanned = it->first / whole * whole;
    return s;
}

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
                                       .stride = job->sizes.stride};

    qyi_code_sums(&sums, s->scanned, s->past);
    for (uint32_t h = 0; h < it->group; h++) {
        uint16_t *at = m->sums + h * job->sizes.stride + (s->begin - s->scanned);
        const size_t end = (size_t)s->n * it->page;
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
        const uint32_t begin = s->begin + p * it->page;
        const uint32_t from = begin > s->first ? begin : s->first;

        left[p] = (s->past - begin < it->page ? s->past : begin + it->page) - from;
    }
    for (uint32_t i = 0; i < it->n_ids; i++) {
        left[(it->ids[i] - s->begin) / it->page]--;
    }
}

/* Masses of the pages become weights that add up to 1; returns the log of their sum. */
static float make_weights(const struct job *job, const struct qy_code_estimate_item *it,
                          const struct span *s, const struct memory *m, uint32_t h)
{
    const struct qyi_code_head *head = &m->heads[h];
    const uint16_t *sums = m->sums + h * job->sizes.stride + (s->begin - s->scanned);
    float *weights = m->masses + h * job->sizes.pages;
    double all = 0.0;

    if (!isfinite(head->base) || !isfinite(head->step)) {
        memset(weights, 0, s->n * sizeof(*weights));
        return -INFINITY;
    }
    const struct qyi_code_masses masses = {.sums = sums,
                                           .n = s->n,
                                           .page = it->page,
                                           .most = job->codes->largest(sums, s->n * it->page),
                                           .step = head->step,
                                           .left = m->left,
                                           .masses = weights};
    job->codes->masses(&masses);
    for (uint32_t p = 0; p < s->n; p++) {
        all += (double)weights[p];
    }
    for (uint32_t p = 0; p < s->n; p++) {
        weights[p] = all > 0.0 ? weights[p] / (float)all : 0.0F;
    }
    return all > 0.0 ? head->base + head->step * (float)masses.most + logf((float)all) : -INFINITY;
}

static void fetch_value(const struct qy_rows *rows, uint32_t token)
{
    const size_t bytes = qy_row_bytes(rows->type, rows->d) / 2;
    const uint8_t *value = qy_row_at(rows, token) + bytes;

    for (size_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch(value + i);
    }
}

/* Mean [d] of the tokens of page p that count: of the page's, or of fewer if those are less work.
 * *at: the next of the ids, moved past the page's. */
static void make_row(const struct job *job, const struct qy_code_estimate_item *it,
                     const struct span *s, uint32_t p, uint32_t left, uint32_t *at, float *row)
{
    const struct qyi_value_kernels *k = job->values;
    const uint32_t d = it->rows.d;
    const uint32_t begin = s->begin + p * it->page;
    const uint32_t end = it->n_tokens - begin < it->page ? it->n_tokens : begin + it->page;
    const uint32_t from = begin > s->first ? begin : s->first;
    const uint32_t to = end < s->past ? end : s->past;
    const float share = left > 0 ? 1.0F / (float)left : 0.0F;
    const int whole = 2 * left >= end - begin; /* nearer to all of the page's than to none */
    uint32_t next = from;

    memset(row, 0, d * sizeof(*row));
    if (whole) {
        k->load(qyi_value_at(&it->values, d, it->page, begin / it->page), d,
                share * (float)(end - begin), row);
        k->add(&it->rows, begin, from, -share, row);
        k->add(&it->rows, to, end, -share, row);
    }
    for (; *at < it->n_ids && it->ids[*at] < to; (*at)++) {
        const uint32_t id = it->ids[*at];

        if (whole) {
            if (it->n_ids - *at > AHEAD) {
                fetch_value(&it->rows, it->ids[*at + AHEAD]);
            }
            k->add(&it->rows, id, id + 1, -share, row);
        } else {
            k->add(&it->rows, next, id, share, row);
        }
        next = id + 1;
    }
    if (!whole) {
        k->add(&it->rows, next, to, share, row);
    }
}

static void run_item(const struct job *job, const struct qy_code_estimate_item *it,
                     const struct memory *m)
{
    const struct span s = span_of(it);
    const uint32_t d = it->quantizer->d;
    uint32_t at = 0;

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
        it->lse[h] = make_weights(job, it, &s, m, h);
    }
    for (uint32_t p = 0; p < s.n; p += TOGETHER) {
        const uint32_t n = s.n - p < TOGETHER ? s.n - p : TOGETHER;

        for (uint32_t i = 0; i < n; i++) {
            make_row(job, it, &s, p + i, m->left[p + i], &at, m->rows + (size_t)i * d);
        }
        for (uint32_t h = 0; h < it->group; h++) {
            job->values->weigh(m->rows, m->masses + h * job->sizes.pages + p, n, d,
                               it->out + (size_t)h * d);
        }
    }
}

/* ---- call ---------------------------------------------------------------------------------------- */

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void sizes_add(struct sizes *sizes, uint32_t n, uint32_t page,
                      const struct qy_quantizer *quantizer, uint32_t group)
{
    /* from the start of a group and page to the end of one, and what a kernel writes past it */
    const size_t whole = page > QYI_CODE_SPLIT ? page : QYI_CODE_SPLIT;

    sizes->entries = larger(sizes->entries, round64((size_t)group * quantizer->m * 16));
    sizes->heads = larger(sizes->heads, round64(group * sizeof(struct qyi_code_head)));
    sizes->rows = larger(sizes->rows, round64(TOGETHER * quantizer->d * sizeof(float)));
    sizes->stride = larger(sizes->stride, round64(n + 2 * whole + QYI_CODE_SPLIT));
    sizes->pages = larger(sizes->pages, round64((size_t)n / page + 2));
    sizes->group = group > sizes->group ? group : sizes->group;
}

static size_t thread_bytes(const struct sizes *s)
{
    return s->entries + s->heads + s->group * s->stride * sizeof(uint16_t) +
           s->group * s->pages * sizeof(float) + s->pages * sizeof(uint32_t) + s->rows;
}

static struct memory memory_of(const struct job *job, uint32_t thread)
{
    const struct sizes *s = &job->sizes;
    uint8_t *at = job->memory + thread * thread_bytes(s);
    struct memory m = {.entries = at};

    m.heads = (void *)(at += s->entries);
    m.sums = (void *)(at += s->heads);
    m.masses = (void *)(at += s->group * s->stride * sizeof(*m.sums));
    m.left = (void *)(at += s->group * s->pages * sizeof(*m.masses));
    m.rows = (void *)(at + s->pages * sizeof(*m.left));
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
           qyi_value_valid(it->rows.d, it->page, &it->values) && it->n_ids <= it->n &&
           it->first <= it->n_tokens && it->n <= it->n_tokens - it->first;
}

enum qy_status qy_device_code_estimate(struct qy_device *dev,
                                       const struct qy_code_estimate_item *items, uint32_t n_items,
                                       float scale, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    const uint32_t n_threads = qy_team_size(dev->rt->team);
    struct job job = {.items = items,
                      .codes = qyi_code_for(dev->level),
                      .values = qyi_value_for(dev->level),
                      .scale = scale,
                      .items_left = {n_items, 0}};
    uint64_t work = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        if (!item_valid(&items[i])) {
            return QY_ERR_INVALID;
        }
        sizes_add(&job.sizes, items[i].n, items[i].page, items[i].quantizer, items[i].group);
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

size_t qy_device_code_estimate_scratch(const struct qy_device *dev, uint32_t max_n, uint32_t page,
                                       const struct qy_quantizer *quantizer, uint32_t group)
{
    struct sizes sizes = {0};

    sizes_add(&sizes, max_n, page, quantizer, group);
    return qy_team_size(dev->rt->team) * thread_bytes(&sizes) + 64;
}
