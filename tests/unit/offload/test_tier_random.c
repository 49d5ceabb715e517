/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random steps on a discrete device, its copies late by random times, beside the same steps on a
 * unified one: the bits are the same whatever was chosen, evicted, cut, copied or closed, and in
 * whatever order copies ended. In debug builds stamps say that no row was used before it came.
 */
#include "tests/unit/offload/tier_rig.h"

#include <stdlib.h>
#include <string.h>

#include "offload/cache.h"

enum { STEPS = 200, SEQUENCES = 4, MOST_TOKENS = 220, MOST_CHUNK = 24 };

struct world {
    struct rig rigs[2]; /* unified, discrete */
    struct qy_sequence *seqs[2][SEQUENCES];
    uint32_t streams[SEQUENCES];
    uint32_t state;
    float *out[2]; /* [RIG_LAYERS][tokens][RIG_OUT] of each feed, one after the other */
};

static uint32_t draw(struct world *w, uint32_t below)
{
    w->state = w->state * 1664525U + 1013904223U;
    return (w->state >> 8) % below;
}

/* Prefix, cut, copied, or closed: between steps. */
static void disturb(struct world *w)
{
    const uint32_t s = draw(w, SEQUENCES);
    const uint32_t n = qy_sequence_tokens(w->seqs[0][s]);
    const uint32_t what = draw(w, 12);
    const uint32_t from = draw(w, SEQUENCES);
    const uint32_t cut = n > 0 ? draw(w, n + 1) : 0;

    for (int i = 0; i < 2; i++) {
        struct qy_sequence **seqs = w->seqs[i];

        if (what == 0) {
            assert_int_equal(qy_sequence_truncate(seqs[s], cut), QY_OK);
        } else if (what == 1 || (what == 2 && from != s)) {
            qy_sequence_close(seqs[s]);
            seqs[s] = rig_sequence(&w->rigs[i]);
        }
        if (what == 2 && from != s) {
            assert_int_equal(qy_sequence_copy(seqs[s], seqs[from]), QY_OK);
        }
    }
    if (what <= 2) {
        w->streams[s] = draw(w, 1000);
    }
}

/* A step of some sequences, of one token each or more; returns the floats written to both. */
static size_t step_both(struct world *w)
{
    struct rig_feed feeds[2][SEQUENCES];
    uint32_t n = 0;
    size_t at = 0;

    for (uint32_t s = 0; s < SEQUENCES; s++) {
        const uint32_t have = qy_sequence_tokens(w->seqs[0][s]);
        const uint32_t tokens = draw(w, 4) == 0 || have < 30 ? 1 + draw(w, MOST_CHUNK) : 1;
        const enum qy_attend_mode mode = draw(w, 8) == 0 ? QY_ATTEND_DENSE : QY_ATTEND_POLICY;

        if (draw(w, 4) == 0 || have + tokens > MOST_TOKENS) {
            continue;
        }
        for (int i = 0; i < 2; i++) {
            feeds[i][n] = (struct rig_feed){.seq = w->seqs[i][s],
                                            .stream = w->streams[s],
                                            .n = tokens,
                                            .mode = mode,
                                            .out = w->out[i] + at};
        }
        at += (size_t)RIG_LAYERS * tokens * RIG_OUT;
        n++;
    }
    for (int i = 0; i < 2 && n > 0; i++) {
        assert_int_equal(rig_step(&w->rigs[i], feeds[i], n), QY_OK);
    }
    return at;
}

static void finish(struct world *w)
{
    const struct qy_cache *cache = w->rigs[1].cache;
    struct qy_cache_stats stats;

    qy_cache_stats(cache, &stats);
    assert_true(stats.rows_asked > stats.rows_found && stats.rows_found > 0);
    assert_int_equal(stats.rows_asked, stats.rows_found + stats.rows_pulled + stats.rows_pushed);
    for (uint32_t s = 0; s < SEQUENCES; s++) {
        struct qy_error err = {0};

        assert_int_equal(qyi_tier_settle(w->seqs[1][s], 1), QY_OK);
        if (qy_sequence_verify(w->seqs[1][s], &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
        qy_sequence_close(w->seqs[1][s]);
    }
    assert_int_equal(cache->tier.n_free, cache->tier.plan.n_blocks); /* nothing leaked */
    for (uint32_t set = 0; cache->tier.residency && set < cache->tier.plan.n_sets; set++) {
        assert_int_equal(qyi_residency_used(cache->tier.residency, set), 0);
    }
}

static void random_walk(const struct rig_options *options, uint32_t seed)
{
    struct rig_options o = *options;
    struct world w = {.state = seed};

    o.max_tokens = MOST_TOKENS;
    o.max_step_tokens = SEQUENCES * MOST_CHUNK;
    o.deterministic = 1;
    rig_open(&w.rigs[0], &o);
    o.device = "host-discrete:64M";
    o.device_bytes = tier_least_bytes(&o);
    rig_open(&w.rigs[1], &o);
    struct qyi_tier *tier = &w.rigs[1].cache->tier;
    assert_int_equal(qy_stream_inject(tier->in, QY_STREAM_FAULT_DELAY, seed), QY_OK);
    assert_int_equal(qy_stream_inject(tier->out, QY_STREAM_FAULT_DELAY, seed + 7), QY_OK);
    for (int i = 0; i < 2; i++) {
        w.out[i] = malloc((size_t)SEQUENCES * MOST_CHUNK * RIG_LAYERS * RIG_OUT * sizeof(float));
        assert_non_null(w.out[i]);
        for (uint32_t s = 0; s < SEQUENCES; s++) {
            w.seqs[i][s] = rig_sequence(&w.rigs[i]);
            w.streams[s] = s;
        }
    }
    for (int i = 0; i < STEPS; i++) {
        const size_t n = step_both(&w);

        if (memcmp(w.out[0], w.out[1], n * sizeof(float)) != 0) {
            fail_msg("%s, seed %u: step %d differs from the unified device", o.policy, seed, i);
        }
        assert_true(!tier->residency || qyi_residency_sound(tier->residency));
        disturb(&w);
    }
    finish(&w);
    for (int i = 0; i < 2; i++) {
        rig_close(&w.rigs[i]);
        free(w.out[i]);
    }
}

static void random_steps_pulled_give_the_same_bits(void **state)
{
    struct rig_options o = tier_base;
    (void)state;

    o.micro_batches = 2;
    random_walk(&o, 1);
    o.policy = "quest";
    o.micro_batches = 3;
    random_walk(&o, 2);
}

static void random_steps_pushed_give_the_same_bits(void **state)
{
    struct rig_options o = tier_base;
    (void)state;

    o.plan = QY_PLAN_PUSH;
    o.micro_batches = 2;
    random_walk(&o, 3);
    o.plan = QY_PLAN_AUTO;
    o.micro_batches = 1;
    random_walk(&o, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_steps_pulled_give_the_same_bits),
        cmocka_unit_test(random_steps_pushed_give_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
