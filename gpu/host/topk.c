/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The k largest of n scores, or fewer when their mass suffices, in O(n): radix selection of the
 * least score that is taken, then one pass that writes the ids.
 *
 * A float becomes an unsigned key of the same order (NaN is 0). Three rounds of 11, 11 and 10 bits
 * each make a histogram (with the mass of every bin where mass counts), walk it from the top and
 * stop in the bin where k or the mass is reached; the next round looks at that bin's keys only.
 */
#include <string.h>

#include "gpu/host/host.h"
#include "gpu/host/rows.h"

enum { ROUNDS = 3, BINS = 2048, TEAM_SCORES = 4 * 1024 };

static const uint32_t round_shift[ROUNDS] = {21, 10, 0};
static const uint32_t round_mask[ROUNDS] = {0x7ff, 0x7ff, 0x3ff};

/* One thread's scratch. Two histograms take turns, since adding to one bin twice in a row waits for
 * the first addition to reach memory. */
struct space {
    double mass[2][BINS];
    uint32_t count[2][BINS];
    uint32_t *keys; /* [max_n] */
    uint32_t *work; /* [max_n] keys of the bin looked into, then the ids */
};

/* What has been taken for sure, and what is still wanted. */
struct cut {
    uint32_t k;
    double mass;     /* 0: only k counts */
    uint32_t count;  /* keys above the bin looked into */
    double sum;      /* resident mass and that of those keys */
    uint32_t prefix; /* the bin: high bits of its keys */
};

/* All keys above least are taken, and the first `ties` of the n_equal that equal it. */
struct verdict {
    uint32_t least, ties, n_equal;
};

/* Free of branches, so that compilers vectorise the loop over it. */
static uint32_t key_of(float score)
{
    const float x = score + 0.0F; /* -0 becomes 0 */
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    const uint32_t negative = 0U - (bits >> 31);
    const uint32_t number = 0U - (uint32_t)((bits & 0x7fffffffU) <= 0x7f800000U);
    return (bits ^ (negative | 0x80000000U)) & number;
}

/* Probability behind a key; negative scores and NaN weigh nothing. */
static double mass_of(uint32_t key)
{
    float x;

    if (key <= 0x80000000U) {
        return 0.0;
    }
    key &= 0x7fffffffU;
    memcpy(&x, &key, sizeof(x));
    return (double)x;
}

/* Walks the bins from the top to the one where the cut lies. Returns 0 when all fit. */
static int walk(const struct space *space, struct cut *cut, uint32_t n_bins, uint32_t *bin)
{
    for (uint32_t b = n_bins; b-- > 0;) {
        const uint32_t count = space->count[0][b] + space->count[1][b];
        double mass = 0.0;
        if (count == 0) {
            continue;
        }
        if (cut->mass > 0.0) {
            mass = space->mass[0][b] + space->mass[1][b];
        }
        if (cut->count + count >= cut->k || (cut->mass > 0.0 && cut->sum + mass >= cut->mass)) {
            *bin = b;
            return 1;
        }
        cut->count += count;
        cut->sum += mass;
    }
    return 0;
}

static void count_keys(struct space *space, const uint32_t *keys, uint32_t n, int round)
{
    const uint32_t shift = round_shift[round];
    const uint32_t mask = round_mask[round];

    memset(space->count, 0, sizeof(space->count));
    for (uint32_t i = 0; i + 1 < n; i += 2) {
        space->count[0][keys[i] >> shift & mask]++;
        space->count[1][keys[i + 1] >> shift & mask]++;
    }
    if (n % 2 == 1) {
        space->count[0][keys[n - 1] >> shift & mask]++;
    }
}

static void sum_masses(struct space *space, const uint32_t *keys, uint32_t n, int round)
{
    const uint32_t shift = round_shift[round];
    const uint32_t mask = round_mask[round];

    memset(space->mass, 0, sizeof(space->mass));
    for (uint32_t i = 0; i < n; i++) {
        space->mass[i & 1][keys[i] >> shift & mask] += mass_of(keys[i]);
    }
}

/* Copies to `to` the keys whose bin of this round is `bin`; to may be keys. */
static uint32_t narrow(const uint32_t *keys, uint32_t n, int round, uint32_t bin, uint32_t *to)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < n; i++) {
        const uint32_t key = keys[i];
        to[kept] = key;
        kept += (key >> round_shift[round] & round_mask[round]) == bin;
    }
    return kept;
}

/* How many of the keys that equal the cut are taken. */
static uint32_t take_ties(const struct cut *cut, uint32_t n_equal)
{
    uint32_t taken = 0;
    double sum = cut->sum;

    while (taken < n_equal && cut->count + taken < cut->k &&
           (cut->mass <= 0.0 || sum < cut->mass)) {
        sum += mass_of(cut->prefix);
        taken++;
    }
    return taken;
}

/* What is attended anyway has the mass that the candidates do not have. */
static double resident_mass(const struct qy_topk_item *item)
{
    return item->candidate_mass == NULL ? 0.0 : 1.0 - (double)*item->candidate_mass;
}

static struct verdict select_cut(const struct qy_topk_item *item, struct space *space)
{
    struct cut cut = {.k = item->k, .mass = (double)item->mass, .sum = resident_mass(item)};
    const uint32_t *keys = space->keys;
    uint32_t n = item->n;

    for (uint32_t i = 0; i < n; i++) {
        space->keys[i] = key_of(item->scores[i]);
    }
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t bin = 0;
        count_keys(space, keys, n, round);
        if (cut.mass > 0.0) {
            sum_masses(space, keys, n, round);
        }
        if (!walk(space, &cut, round_mask[round] + 1, &bin)) {
            /* All fit; after round 0, because rounding of the sums hid the cut. */
            return (struct verdict){cut.prefix, n, n};
        }
        cut.prefix |= bin << round_shift[round];
        n = narrow(keys, n, round, bin, space->work);
        keys = space->work;
    }
    return (struct verdict){cut.prefix, take_ties(&cut, n), n};
}

static uint32_t write_all(const struct qy_topk_item *item)
{
    for (uint32_t i = 0; i < item->n; i++) {
        item->ids[i] = item->id_base + i;
    }
    return item->n;
}

/* The ids go through work: a loop without branches writes one place past the last. */
static uint32_t write_cut(const struct qy_topk_item *item, const struct verdict *v,
                          struct space *space)
{
    uint32_t *ids = space->work;
    uint32_t ties = v->ties;
    uint32_t n = 0;

    if (ties == v->n_equal) {
        for (uint32_t i = 0; i < item->n; i++) {
            ids[n] = item->id_base + i;
            n += space->keys[i] >= v->least;
        }
    } else {
        for (uint32_t i = 0; i < item->n; i++) {
            const uint32_t tie = (space->keys[i] == v->least) & (ties > 0);
            ids[n] = item->id_base + i;
            n += (space->keys[i] > v->least) | tie;
            ties -= tie;
        }
    }
    memcpy(item->ids, ids, n * sizeof(*ids));
    return n;
}

static void topk(const struct qy_topk_item *item, struct space *space)
{
    const int by_mass = item->mass > 0.0F;

    if (item->k == 0 || item->n == 0 || (by_mass && resident_mass(item) >= (double)item->mass)) {
        *item->n_ids = 0;
    } else if (item->k >= item->n && !by_mass) {
        *item->n_ids = write_all(item);
    } else {
        const struct verdict v = select_cut(item, space);
        *item->n_ids = write_cut(item, &v, space);
    }
    for (uint32_t i = 0; item->map != NULL && i < *item->n_ids; i++) {
        item->ids[i] = item->map[item->ids[i] - item->id_base];
    }
}

struct topk_job {
    const struct qy_topk_item *items;
    uint8_t *spaces; /* [threads][space_bytes] */
    size_t space_bytes;
    uint32_t max_n;
    struct qyi_units units;
};

static void topk_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct topk_job *job = arg;
    struct space *space = (struct space *)(void *)(job->spaces + thread * job->space_bytes);
    uint32_t begin;
    uint32_t end;

    space->keys = (uint32_t *)(void *)(space + 1);
    space->work = space->keys + job->max_n;
    while (qyi_units_take(&job->units, n_threads, &begin, &end)) {
        for (uint32_t i = begin; i < end; i++) {
            topk(&job->items[i], space);
        }
    }
}

static size_t space_bytes(uint32_t max_n)
{
    return (sizeof(struct space) + (size_t)2 * max_n * sizeof(uint32_t) + 63) / 64 * 64;
}

enum qy_status qy_device_topk(struct qy_device *dev, const struct qy_topk_item *items,
                              uint32_t n_items, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct topk_job job = {.items = items, .units = {n_items, 0}};
    size_t scores = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        scores += items[i].n;
        job.max_n = items[i].n > job.max_n ? items[i].n : job.max_n;
    }
    job.space_bytes = space_bytes(job.max_n);
    job.spaces = qy_arena_take(arena, qy_team_size(dev->rt->team) * job.space_bytes, 64);
    if (job.spaces == NULL) {
        return QY_ERR_NOMEM;
    }
    qy_team_run(scores < TEAM_SCORES ? NULL : dev->rt->team, topk_run, &job);
    qy_arena_rewind(arena, mark);
    return QY_OK;
}

size_t qy_device_topk_scratch(const struct qy_device *dev, uint32_t n_items, uint32_t max_n)
{
    (void)n_items;
    return qy_team_size(dev->rt->team) * space_bytes(max_n) + 64;
}
