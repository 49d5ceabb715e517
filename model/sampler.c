/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Picks the next token. The filters come in llama.cpp's order: top-k, top-p, min-p, then the
 * temperature, then one draw. Everything is reserved at open; next takes no memory.
 *
 *   logits -> candidates (the k largest, or all that can matter) -> the likeliest, taken from a
 * heap until top-p or min-p ends it -> draw
 */
#include <math.h>

#include "model/model.h"

/* Sources: top-k Fan et al. 2018, arXiv:1805.04833; top-p Holtzman et al. 2019, arXiv:1904.09751;
 * min-p Nguyen et al. 2024, arXiv:2407.01082; xoshiro256** and splitmix64 by Blackman and Vigna. */

struct candidate {
    float logit;
    int32_t id;
};

struct qy_sampler {
    struct qy_allocator mem;
    struct qy_sampler_params params;
    uint32_t n_vocab;
    uint64_t state[4];
    struct candidate *heap; /* [n_vocab]; NULL when greedy */
};

/* The largest two logits. */
struct top {
    int32_t id;
    float first, second;
    int has_nan;
};

static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = (*x += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t rotl(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

/* A number in [0, 1). */
static double uniform(uint64_t s[4])
{
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return (double)(result >> 11) * 0x1p-53;
}

static enum qy_status check(const struct qy_sampler_params *p, uint32_t n_vocab,
                            struct qy_error *err)
{
    if (n_vocab == 0 || n_vocab > INT32_MAX) {
        return qy_error_set(err, QY_ERR_INVALID, "sampler: no logits to choose from");
    }
    if (!(p->temperature >= 0 && p->temperature <= 1e6F)) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "temperature '%g': not in 0 to 1000000; 0 takes the likeliest token",
                            (double)p->temperature);
    }
    if (p->top_k < 0) {
        return qy_error_set(err, QY_ERR_INVALID, "top-k '%d': below 0; 0 turns it off",
                            (int)p->top_k);
    }
    if (!(p->top_p > 0 && p->top_p <= 1)) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "top-p '%g': not above 0 and up to 1; 1 turns it off",
                            (double)p->top_p);
    }
    if (!(p->min_p >= 0 && p->min_p <= 1)) {
        return qy_error_set(err, QY_ERR_INVALID, "min-p '%g': not in 0 to 1; 0 turns it off",
                            (double)p->min_p);
    }
    return QY_OK;
}

enum qy_status qy_sampler_open(const struct qy_allocator *mem, uint32_t n_vocab,
                               const struct qy_sampler_params *params, struct qy_sampler **sampler,
                               struct qy_error *err)
{
    enum qy_status st = check(params, n_vocab, err);
    if (st != QY_OK) {
        return st;
    }
    struct qy_sampler *s = qy_alloc_zero(mem, sizeof(*s));
    if (s == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "sampler: no memory");
    }
    s->mem = *mem;
    s->params = *params;
    s->n_vocab = n_vocab;
    if (params->temperature > 0) {
        s->heap = qy_alloc_zero(mem, n_vocab * sizeof(*s->heap));
        if (s->heap == NULL) {
            qy_free(mem, s);
            return qy_error_set(err, QY_ERR_NOMEM, "sampler: no memory for %u logits", n_vocab);
        }
    }
    uint64_t seed = params->seed;
    for (int i = 0; i < 4; i++) {
        s->state[i] = splitmix(&seed);
    }
    *sampler = s;
    return QY_OK;
}

void qy_sampler_close(struct qy_sampler *sampler)
{
    if (sampler == NULL) {
        return;
    }
    struct qy_allocator mem = sampler->mem;
    qy_free(&mem, sampler->heap);
    qy_free(&mem, sampler);
}

static struct top find_top(const float *logits, uint32_t n)
{
    struct top top = {-1, -INFINITY, -INFINITY, 0};
    for (uint32_t i = 0; i < n; i++) {
        float x = logits[i];
        if (x <= top.second) {
            continue;
        }
        if (isnan(x)) {
            top.has_nan = 1;
            return top;
        }
        if (x > top.first) {
            top.second = top.first;
            top.first = x;
            top.id = (int32_t)i;
        } else {
            top.second = x;
        }
    }
    return top;
}

/* Larger logit first, then the lower id. */
static int before(struct candidate a, struct candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* Puts heap[at] in its place; the first of all is on top, or with last_on_top the last. */
static void sift_down(struct candidate *heap, size_t n, size_t at, int last_on_top)
{
    struct candidate moved = heap[at];
    for (size_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && before(heap[child + 1], heap[child]) != last_on_top) {
            child++;
        }
        if (before(heap[child], moved) == last_on_top) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static void make_heap(struct candidate *heap, size_t n, int last_on_top)
{
    for (size_t i = n / 2; i > 0; i--) {
        sift_down(heap, n, i - 1, last_on_top);
    }
}

/* The weight of a logit before the temperature; the largest has 1. */
static double weigh(float logit, const struct top *top)
{
    return (double)expf(logit - top->first);
}

/* The k largest of all logits, in no order. */
static size_t collect_top_k(struct qy_sampler *s, const float *logits, size_t k)
{
    struct candidate *heap = s->heap;
    for (size_t i = 0; i < k; i++) {
        heap[i].logit = logits[i];
        heap[i].id = (int32_t)i;
    }
    make_heap(heap, k, 1);
    for (size_t i = k; i < s->n_vocab; i++) {
        if (logits[i] > heap[0].logit) { /* an equal one has the higher id */
            heap[0].logit = logits[i];
            heap[0].id = (int32_t)i;
            sift_down(heap, k, 0, 1);
        }
    }
    return k;
}

/* Everything that is not below cut, in the order of ids. */
static size_t collect_all(struct qy_sampler *s, const float *logits, double cut)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_vocab; i++) {
        if (logits[i] >= cut) {
            s->heap[n].logit = logits[i];
            s->heap[n++].id = (int32_t)i;
        }
    }
    return n;
}

/* What collect_all gives, less what cannot be among the likeliest that make up top_p. *total
 * receives the weight of all logits. */
static size_t collect_top_p(struct qy_sampler *s, const float *logits, const struct top *top,
                            double cut, double *total)
{
    *total = 0;
    for (size_t i = 0; i < s->n_vocab; i++) {
        *total += weigh(logits[i], top);
    }
    /* All that are below (1 - p) / n together have less than 1 - p. */
    double share = (1 - (double)s->params.top_p) / s->n_vocab;
    double floor = (double)top->first + log(*total * share) - 1e-3;
    return collect_all(s, logits, cut > floor ? cut : floor);
}

/* Leaves of the candidates [n] those that make up top_p of total and are not below cut, at least
 * one. They are moved to the end of [n]; their number is returned. */
static size_t keep_likeliest(struct qy_sampler *s, size_t n, const struct top *top, double total,
                             double cut)
{
    struct candidate *heap = s->heap;
    double sum = 0;
    size_t kept = 0;
    make_heap(heap, n, 0);
    while (kept < n && (kept == 0 || heap[0].logit >= cut)) {
        struct candidate first = heap[0];
        kept++;
        heap[0] = heap[n - kept];
        heap[n - kept] = first;
        sift_down(heap, n - kept, 0, 0);
        sum += weigh(first.logit, top);
        if (s->params.top_p < 1 && sum >= (double)s->params.top_p * total) {
            break;
        }
    }
    return kept;
}

/* One of the candidates by their weights at the temperature. */
static int32_t draw(struct qy_sampler *s, const struct candidate *from, size_t n,
                    const struct top *top)
{
    const float scale = 1.0F / s->params.temperature;
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        total += (double)expf((from[i].logit - top->first) * scale);
    }
    double left = uniform(s->state) * total;
    int32_t last = top->id;
    for (size_t i = 0; i < n && left >= 0; i++) {
        double weight = (double)expf((from[i].logit - top->first) * scale);
        last = weight > 0 ? from[i].id : last;
        left -= weight;
    }
    return last;
}

static int32_t filter_and_draw(struct qy_sampler *s, const float *logits, const struct top *top)
{
    const struct qy_sampler_params *p = &s->params;
    /* p >= min_p of the largest p, as logits */
    double cut = p->min_p > 0 ? (double)top->first + log((double)p->min_p) : -INFINITY;
    const int top_k = p->top_k > 0 && (uint32_t)p->top_k < s->n_vocab;
    if (!top_k && !(p->top_p < 1)) {
        return draw(s, s->heap, collect_all(s, logits, cut), top);
    }
    double total = 0;
    size_t n;
    if (top_k) {
        n = collect_top_k(s, logits, (size_t)p->top_k);
        for (size_t i = 0; i < n; i++) {
            total += weigh(s->heap[i].logit, top);
        }
    } else {
        n = collect_top_p(s, logits, top, cut, &total);
    }
    size_t kept = keep_likeliest(s, n, top, total, cut);
    return draw(s, s->heap + n - kept, kept, top);
}

int32_t qy_sampler_next(struct qy_sampler *sampler, const float *logits, float *gap)
{
    const struct qy_sampler_params *p = &sampler->params;
    struct top top = find_top(logits, sampler->n_vocab);
    if (top.has_nan || top.id < 0) {
        return -1;
    }
    if (gap != NULL) {
        *gap = top.first == top.second ? 0 : top.first - top.second;
    }
    if (!(p->temperature > 0) || isinf(top.first)) {
        return top.id;
    }
    return filter_and_draw(sampler, logits, &top);
}

double qy_log_prob(const float *logits, uint32_t n_vocab, int32_t id)
{
    if (id < 0 || (uint32_t)id >= n_vocab) {
        return NAN;
    }
    double largest = -INFINITY;
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (isnan(logits[i])) {
            return NAN;
        }
        largest = logits[i] > largest ? logits[i] : largest;
    }
    double sum = 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        sum += exp(logits[i] - largest);
    }
    return logits[id] - largest - log(sum);
}
