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

/* One thread's scratch. */
struct space {
    double mass[BINS];
    uint32_t count[BINS];
    uint32_t keys[]; /* [max_n] keys of the bin looked into */
};

/* What has been taken for sure, and what is still wanted. */
struct cut {
    uint32_t k;
    double mass;     /* 0: only k counts */
    uint32_t count;  /* keys above the bin looked into */
    double sum;      /* resident mass and that of those keys */
    uint32_t prefix; /* the bin: high bits of its keys */
};

static uint32_t key_of(float score)
{
    const float x = score + 0.0F; /* -0 becomes 0 */
    uint32_t bits;

    if (x != x) {
        return 0;
    }
    memcpy(&bits, &x, sizeof(bits));
    return bits & 0x80000000U ? ~bits : bits | 0x80000000U;
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
    return x;
}

/* Walks the bins from the top to the one where the cut lies. Returns 0 when all fit. */
static int walk(const struct space *space, struct cut *cut, uint32_t n_bins, uint32_t *bin)
{
    for (uint32_t b = n_bins; b-- > 0;) {
        if (space->count[b] == 0) {
            continue;
        }
        if (cut->count + space->count[b] >= cut->k ||
            (cut->mass > 0.0 && cut->sum + space->mass[b] >= cut->mass)) {
            *bin = b;
            return 1;
        }
        cut->count += space->count[b];
        cut->sum += cut->mass > 0.0 ? space->mass[b] : 0.0;
    }
    return 0;
}

static void histogram(struct space *space, const uint32_t *keys, uint32_t n, int round,
                      int with_mass)
{
    const uint32_t shift = round_shift[round];
    const uint32_t mask = round_mask[round];

    memset(space->count, 0, sizeof(space->count));
    if (with_mass) {
        memset(space->mass, 0, sizeof(space->mass));
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t b = keys[i] >> shift & mask;
        space->count[b]++;
        if (with_mass) {
            space->mass[b] += mass_of(keys[i]);
        }
    }
}

/* Keeps the keys whose bin of this round is `bin`. */
static uint32_t narrow(uint32_t *keys, uint32_t n, int round, uint32_t bin)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < n; i++) {
        const uint32_t key = keys[i];
        keys[kept] = key;
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

/* Finds the cut: all keys above *least are taken, and *ties of those that equal it. */
static void select_cut(const struct qy_topk_item *item, struct space *space, uint32_t *least,
                       uint32_t *ties)
{
    struct cut cut = {.k = item->k, .mass = item->mass, .sum = item->resident_mass};
    uint32_t n = item->n;

    for (uint32_t i = 0; i < n; i++) {
        space->keys[i] = key_of(item->scores[i]);
    }
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t bin = 0;
        histogram(space, space->keys, n, round, cut.mass > 0.0);
        if (!walk(space, &cut, round_mask[round] + 1, &bin)) {
            /* Rounding of the sums hid the cut one round ago: all of that bin is taken. */
            *least = cut.prefix;
            *ties = n;
            return;
        }
        cut.prefix |= bin << round_shift[round];
        n = narrow(space->keys, n, round, bin);
    }
    *least = cut.prefix;
    *ties = take_ties(&cut, n);
}

static uint32_t write_all(const struct qy_topk_item *item)
{
    for (uint32_t i = 0; i < item->n; i++) {
        item->ids[i] = item->id_base + i;
    }
    return item->n;
}

static uint32_t write_cut(const struct qy_topk_item *item, uint32_t least, uint32_t ties)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < item->n; i++) {
        const uint32_t key = key_of(item->scores[i]);
        const uint32_t tie = key == least && ties > 0;
        if (key > least || tie) {
            item->ids[n++] = item->id_base + i;
            ties -= tie;
        }
    }
    return n;
}

static void topk(const struct qy_topk_item *item, struct space *space)
{
    const int by_mass = item->mass > 0.0F;
    uint32_t least = 0;
    uint32_t ties = 0;

    if (item->k == 0 || item->n == 0 || (by_mass && item->resident_mass >= item->mass)) {
        *item->n_ids = 0;
    } else if (item->k >= item->n && !by_mass) {
        *item->n_ids = write_all(item);
    } else {
        select_cut(item, space, &least, &ties);
        *item->n_ids = write_cut(item, least, ties);
    }
}

struct topk_job {
    const struct qy_topk_item *items;
    uint8_t *spaces; /* [threads][space_bytes] */
    size_t space_bytes;
    struct qyi_units units;
};

static void topk_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct topk_job *job = arg;
    struct space *space = (struct space *)(void *)(job->spaces + thread * job->space_bytes);
    uint32_t begin;
    uint32_t end;

    while (qyi_units_take(&job->units, n_threads, &begin, &end)) {
        for (uint32_t i = begin; i < end; i++) {
            topk(&job->items[i], space);
        }
    }
}

static size_t space_bytes(uint32_t max_n)
{
    return (sizeof(struct space) + max_n * sizeof(uint32_t) + 63) / 64 * 64;
}

enum qy_status qy_device_topk(struct qy_device *dev, const struct qy_topk_item *items,
                              uint32_t n_items, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct topk_job job = {.items = items, .units = {n_items, 0}};
    size_t scores = 0;
    uint32_t max_n = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        scores += items[i].n;
        max_n = items[i].n > max_n ? items[i].n : max_n;
    }
    job.space_bytes = space_bytes(max_n);
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
