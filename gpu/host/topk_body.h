/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The k largest of n scores, or fewer when their mass suffices. Part of a kernel file: define the
 * words first (topk_plain.c says which).
 *
 *   a sample of the scores -> a bound below which the k largest hardly ever lie
 *   one pass over the scores: those not below the bound are kept, as keys
 *   fewer than k kept (the sample misled, or NaN is among the k best): all are kept
 *   the cut, by halving the range of keys; what lies outside it is dropped on the way
 *   one pass over the scores that writes the places
 *
 * A key is an unsigned integer of the order of its float, 0 for NaN. The result is exact and so
 * does not depend on the sample. Sums of masses are f64 in 16 lanes by place among the keys kept:
 * the same on every set.
 */
#ifndef QY_GPU_HOST_TOPK_BODY_H
#define QY_GPU_HOST_TOPK_BODY_H

#include <math.h>

enum {
    SAMPLE = 512,         /* scores looked at to guess the bound                         */
    SAMPLE_MIN_N = 2048,  /* below this all scores become keys                           */
    STEPS_PER_NARROW = 4, /* halvings before the keys outside the range are dropped      */
    NARROW_MIN = 64       /* fewer keys are not worth it                                 */
};

static const uint32_t KEY_LEAST = 0x007fffffU; /* of -inf; only NaN is below */

/* Keys above least are taken, and the first `ties` that equal it; all that equal it: ties UINT32_MAX.
 */
struct topk_cut {
    uint32_t least, ties;
};

/* Free of branches, so that compilers vectorise the loops over it. */
static inline uint32_t topk_key(uint32_t bits)
{
    const uint32_t whole = bits == 0x80000000U ? 0 : bits; /* -0 becomes 0 */
    const uint32_t negative = 0U - (whole >> 31);
    const uint32_t number = 0U - (uint32_t)((whole & 0x7fffffffU) <= 0x7f800000U);
    return (whole ^ (negative | 0x80000000U)) & number;
}

/* Keys between that of NaN and that of -inf give -inf. */
static inline float topk_score(uint32_t key)
{
    key = key > KEY_LEAST ? key : KEY_LEAST;
    const uint32_t bits = key >= 0x80000000U ? key & 0x7fffffffU : ~key;
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static uint32_t keys_not_below(const uint32_t *keys, uint32_t n, uint32_t least)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        count += keys[i] >= least;
    }
    return count;
}

static double keys_mass(const uint32_t *keys, uint32_t n, uint32_t least)
{
    const uint32_t whole = n / 16 * 16;
    uint32_t rest[16] = {0};
    double sums[16] = {0};
    memcpy(rest, keys + whole, (n - whole) * sizeof(*rest));
    words_masses(sums, keys, whole, least);
    words_masses(sums, rest, 16, least);
    for (uint32_t width = 8; width > 0; width /= 2) {
        for (uint32_t j = 0; j < width; j++) {
            sums[j] += sums[j + width];
        }
    }
    return sums[0];
}

/* Keeps, in place, the keys of lo .. hi. */
static uint32_t keys_narrow(uint32_t *keys, uint32_t n, uint32_t lo, uint32_t hi)
{
    uint32_t kept = 0;
    uint32_t i = 0;
    for (; i + WORD_N <= n; i += WORD_N) {
        const uint32_t mask = words_between(keys + i, lo, hi);
        words_keep(keys + kept, keys + i, mask);
        kept += (uint32_t)__builtin_popcount(mask);
    }
    for (; i < n; i++) {
        const uint32_t key = keys[i];
        keys[kept] = key;
        kept += (uint32_t)(key >= lo) & (uint32_t)(key <= hi);
    }
    return kept;
}

static void keys_range(const uint32_t *keys, uint32_t n, uint32_t *lo, uint32_t *hi)
{
    uint32_t least = UINT32_MAX;
    uint32_t most = 0;
    for (uint32_t i = 0; i < n; i++) {
        least = keys[i] < least ? keys[i] : least;
        most = keys[i] > most ? keys[i] : most;
    }
    *lo = least;
    *hi = most;
}

/* The cut above which the k largest of n keys lie, 1 <= k <= n; spoils the keys. */
static struct topk_cut cut_by_count(uint32_t *keys, uint32_t n, uint32_t k)
{
    uint32_t lo;
    uint32_t hi;
    keys_range(keys, n, &lo, &hi);
    for (uint32_t step = 1; lo < hi; step++) {
        const uint32_t middle = lo + (hi - lo) / 2 + 1;
        const uint32_t count = keys_not_below(keys, n, middle);
        if (count == k) {
            return (struct topk_cut){middle, UINT32_MAX};
        }
        lo = count > k ? middle : lo;
        hi = count > k ? hi : middle - 1;
        if (step % STEPS_PER_NARROW == 0 && n > NARROW_MIN) {
            k -= keys_not_below(keys, n, hi + 1); /* the key of inf is not the last number */
            n = keys_narrow(keys, n, lo, hi);
        }
    }
    const uint32_t above = keys_not_below(keys, n, lo + 1);
    const uint32_t equal = keys_not_below(keys, n, lo) - above;
    return (struct topk_cut){lo, k - above == equal ? UINT32_MAX : k - above};
}

/* The cut above which the largest keys lie that together have `mass`, at most k; spoils the keys. */
static struct topk_cut cut_by_mass(uint32_t *keys, uint32_t n, uint32_t k, double mass)
{
    uint32_t count = 0; /* of keys above hi, and their mass: no longer among keys */
    double sum = 0.0;
    uint32_t lo;
    uint32_t hi;
    keys_range(keys, n, &lo, &hi);
    if (n < k && keys_mass(keys, n, 0) < mass) {
        return (struct topk_cut){lo, UINT32_MAX};
    }
    for (uint32_t step = 1; lo < hi; step++) {
        const uint32_t middle = lo + (hi - lo) / 2 + 1;
        const int reached = count + keys_not_below(keys, n, middle) >= k ||
                            sum + keys_mass(keys, n, middle) >= mass;
        lo = reached ? middle : lo;
        hi = reached ? hi : middle - 1;
        if (step % STEPS_PER_NARROW == 0 && n > NARROW_MIN) {
            count += keys_not_below(keys, n, hi + 1);
            sum += keys_mass(keys, n, hi + 1);
            n = keys_narrow(keys, n, lo, hi);
        }
    }
    const uint32_t above = keys_not_below(keys, n, lo + 1);
    const uint32_t equal = keys_not_below(keys, n, lo) - above;
    const double each = lo > 0x80000000U ? (double)topk_score(lo) : 0.0;
    uint32_t ties = 0;
    count += above;
    sum += keys_mass(keys, n, lo + 1);
    while (ties < equal && count + ties < k && sum < mass) {
        sum += each;
        ties++;
    }
    return (struct topk_cut){lo, ties == equal ? UINT32_MAX : ties};
}

/* Scores not below bound, as bits in kept [n + QYI_TOPK_SPARE]. */
static uint32_t scores_keep(const float *scores, uint32_t n, float bound, uint32_t *kept)
{
    uint32_t count = 0;
    uint32_t i = 0;
    for (; i + WORD_N <= n; i += WORD_N) {
        const uint32_t mask = words_not_below(scores + i, bound);
        words_keep(kept + count, scores + i, mask);
        count += (uint32_t)__builtin_popcount(mask);
    }
    for (; i < n; i++) {
        memcpy(kept + count, scores + i, sizeof(*kept));
        count += scores[i] >= bound;
    }
    return count;
}

/* A score that about k of n are not below, a few more rather than fewer. 0: take all. */
static int scores_bound(const float *scores, uint32_t n, uint32_t k, float *bound)
{
    uint32_t keys[SAMPLE + QYI_TOPK_SPARE];
    const uint64_t step = ((uint64_t)n << 32) / SAMPLE;
    const double share = (double)k / n;
    /* three deviations of how many of the k best the sample holds, and a little for small k */
    const double rank = SAMPLE * share + 3.0 * sqrt(SAMPLE * share * (1.0 - share)) + 2.0;
    if (n < SAMPLE_MIN_N || k >= n || rank >= SAMPLE) {
        return 0;
    }
    for (uint32_t j = 0; j < SAMPLE; j++) {
        uint32_t bits;
        memcpy(&bits, scores + (j * step >> 32), sizeof(bits));
        keys[j] = topk_key(bits);
    }
    const uint32_t least = cut_by_count(keys, SAMPLE, (uint32_t)rank).least;
    *bound = topk_score(least);
    return least > 0;
}

/* The keys among which the k largest are; returns how many. */
static uint32_t keys_of_best(const struct qy_topk_item *item, uint32_t *keys)
{
    uint32_t n = 0;
    float bound;
    if (scores_bound(item->scores, item->n, item->k, &bound)) {
        n = scores_keep(item->scores, item->n, bound, keys);
    }
    if (n < item->k) {
        n = item->n;
        memcpy(keys, item->scores, n * sizeof(*keys));
    }
    for (uint32_t i = 0; i < n; i++) {
        keys[i] = topk_key(keys[i]);
    }
    return n;
}

/* Place i where the cut takes it; *ties counts down. */
static inline uint32_t place_taken(const float *scores, uint32_t i, uint32_t least, uint32_t *ties)
{
    uint32_t bits;
    memcpy(&bits, scores + i, sizeof(bits));
    const uint32_t key = topk_key(bits);
    const uint32_t tie = (uint32_t)(key == least) & (uint32_t)(*ties > 0);
    *ties -= tie;
    return (uint32_t)(key > least) | tie;
}

/* Places that the cut takes, ascending. */
static uint32_t places_of_cut(const float *scores, uint32_t n, struct topk_cut cut,
                              uint32_t *places)
{
    const float least = topk_score(cut.least);
    const uint32_t whole = cut.least > 0 ? n / WORD_N * WORD_N : 0; /* 0: NaN is among the best */
    uint32_t count = 0;
    for (uint32_t i = 0; i < whole; i += WORD_N) {
        uint32_t mask = words_above(scores + i, least);
        if (cut.ties > 0) {
            uint32_t equal = words_not_below(scores + i, least) & ~mask;
            while ((uint32_t)__builtin_popcount(equal) > cut.ties) {
                equal &= ~(1U << (31 - __builtin_clz(equal))); /* the last place goes first */
            }
            cut.ties -= (uint32_t)__builtin_popcount(equal);
            mask |= equal;
        }
        words_places(places + count, i, mask);
        count += (uint32_t)__builtin_popcount(mask);
    }
    for (uint32_t i = whole; i < n; i++) {
        places[count] = i;
        count += place_taken(scores, i, cut.least, &cut.ties);
    }
    return count;
}

/* As places_of_cut, when all that equal the cut are taken: most often. */
static uint32_t places_not_below(const float *scores, uint32_t n, float least, uint32_t *places)
{
    uint32_t count = 0;
    uint32_t i = 0;
    for (; i + WORD_N <= n; i += WORD_N) {
        const uint32_t mask = words_not_below(scores + i, least);
        words_places(places + count, i, mask);
        count += (uint32_t)__builtin_popcount(mask);
    }
    for (; i < n; i++) {
        places[count] = i;
        count += scores[i] >= least;
    }
    return count;
}

/* As qyi_topk_kernels.topk. chosen: without candidate_mass nothing but the candidates has mass. */
static void topk_item(const struct qy_topk_item *item, uint32_t *scratch)
{
    const double resident =
        item->candidate_mass == NULL ? 0.0 : 1.0 - (double)*item->candidate_mass;
    const double mass = (double)item->mass;
    uint32_t n;
    if (item->k == 0 || item->n == 0 || (mass > 0.0 && resident >= mass)) {
        *item->n_ids = 0;
        return;
    }
    if (item->k >= item->n && !(mass > 0.0)) {
        n = item->n;
        for (uint32_t i = 0; i < n; i++) {
            scratch[i] = i;
        }
    } else {
        const uint32_t n_keys = keys_of_best(item, scratch);
        const struct topk_cut cut = mass > 0.0
                                        ? cut_by_mass(scratch, n_keys, item->k, mass - resident)
                                        : cut_by_count(scratch, n_keys, item->k);
        if (cut.ties == UINT32_MAX && cut.least > 0) {
            n = places_not_below(item->scores, item->n, topk_score(cut.least), scratch);
        } else {
            n = places_of_cut(item->scores, item->n, cut, scratch);
        }
    }
    *item->n_ids = n;
    for (uint32_t i = 0; i < n; i++) {
        item->ids[i] = item->map == NULL ? item->id_base + scratch[i] : item->map[scratch[i]];
    }
}

#endif
