/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulls ahead change no bit: guesses that are right, wrong, half right or absent, on the least device
 * memory, in micro-batches, after cuts and in slots of closed sequences, and when their copies fail.
 */
#include "tests/unit/offload/rig.h"

#include <stdlib.h>
#include <string.h>

#include "offload/cache.h"

enum { LAYERS = 5, OUT = LAYERS * RIG_OUT, SEQS = 3, CONTEXT = 230, STEPS = 14 };
enum guess { NO_GUESS, RIGHT, WRONG, HALF, GUESSES };

static const struct rig_options base = {.policy = "exact",
                                        .budget = "0.1",
                                        .f16 = 1,
                                        .threads = 2,
                                        .max_step_tokens = 64,
                                        .plan = QY_PLAN_PULL};

struct ahead_options {
    const char *device;
    uint64_t device_bytes;
    uint32_t micro_batches;
    enum qy_prefetch prefetch;
    uint32_t rows;
    enum qy_eviction eviction;
};

static int try_open(struct rig *rig, const struct rig_options *options,
                    const struct ahead_options *a)
{
    struct rig_options o = *options;
    struct qy_error err = {0};

    o.device = a->device;
    o.micro_batches = a->micro_batches;
    o.copy_timeout_ms = 1000;
    rig_prepare(rig, &o);
    rig->params.shape.n_layers = LAYERS;
    rig->params.settings.device_bytes = a->device_bytes;
    rig->params.settings.prefetch = (int)a->prefetch;
    rig->params.settings.prefetch_rows = a->rows;
    rig->params.settings.eviction = (int)a->eviction;
    const int is_open = qy_cache_open(&rig->params, &rig->cache, &err) == QY_OK;

    if (!is_open) {
        assert_non_null(strstr(err.text, "cache.device_bytes"));
        rig->cache = NULL;
        rig_close(rig);
    }
    return is_open;
}

/* The least device memory that prefetching caches open with. */
static uint64_t least_bytes(const struct rig_options *options)
{
    uint64_t lo = 0;
    uint64_t hi = (uint64_t)64 << 20;

    while (hi - lo > 4096) {
        const uint64_t mid = lo + (hi - lo) / 2;
        const struct ahead_options a = {
            .device = "host-discrete:64M", .device_bytes = mid, .prefetch = QY_PREFETCH_PREVIOUS};
        struct rig rig;

        if (try_open(&rig, options, &a)) {
            hi = mid;
            rig_close(&rig);
        } else {
            lo = mid;
        }
    }
    return hi;
}

/* A run: sequences, which stream each is fed, and what the guesses are like. */
struct run {
    struct rig *rig;
    struct qy_sequence *seqs[SEQS];
    uint32_t streams[SEQS];
    enum guess guess;
    float *q; /* a guess */
};

static void read_row(const struct run *r, uint32_t seq, uint32_t layer, float *row)
{
    rig_qkv(r->streams[seq], layer, qy_sequence_tokens(r->seqs[seq]), row);
}

static enum qy_status guess_layer(struct run *r, uint32_t micro_batch, uint32_t layer)
{
    const struct qy_row_range rows = qy_step_rows(r->rig->cache, micro_batch);

    if (r->guess == NO_GUESS || !qy_step_wants_guess(r->rig->cache, micro_batch, layer)) {
        return QY_OK;
    }
    for (uint32_t i = 0; i < rows.n; i++) {
        const int right = r->guess == RIGHT || (r->guess == HALF && layer % 2 == 0);

        read_row(r, rows.first + i, right ? layer : layer + 100, r->q + i * RIG_STRIDE);
    }
    return qy_step_speculate(r->rig->cache, micro_batch, layer, r->q, RIG_STRIDE);
}

/* One token of each sequence, in micro-batches that take turns as those of a model. out [SEQS][OUT],
 * by layer. The status of what fails. */
static enum qy_status step(struct run *r, float *out)
{
    static float qkv[SEQS * RIG_STRIDE];
    struct qy_cache *cache = r->rig->cache;
    struct qy_step_slice slices[SEQS];
    int32_t ids[SEQS];
    enum qy_status st;

    for (uint32_t i = 0; i < SEQS; i++) {
        ids[i] = rig_token(r->streams[i], qy_sequence_tokens(r->seqs[i]));
        slices[i] = (struct qy_step_slice){.seq = r->seqs[i], .n_tokens = 1, .ids = &ids[i]};
    }
    st = qy_step_begin(cache, slices, SEQS, NULL);
    for (uint32_t l = 0; l <= LAYERS; l++) {
        const uint32_t before = l > 0 ? l - 1 : 0;
        const struct qy_qkv now = {.q = qkv,
                                   .k = qkv + RIG_K_AT,
                                   .v = qkv + RIG_V_AT,
                                   .stride = RIG_STRIDE,
                                   .out = out + (size_t)before * SEQS * RIG_OUT};

        for (uint32_t i = 0; st == QY_OK && i < qy_step_micro_batches(cache); i++) {
            const struct qy_row_range rows = qy_step_rows(cache, i);

            if (l > 0) {
                st = qy_step_attend_finish(cache, i, l - 1, &now);
            }
            for (uint32_t s = rows.first; l < LAYERS && s < rows.first + rows.n; s++) {
                read_row(r, s, l, qkv + s * RIG_STRIDE);
            }
            if (st == QY_OK && l < LAYERS) {
                st = qy_step_attend_start(cache, i, l, &now);
            }
            if (st == QY_OK && l < LAYERS) {
                st = guess_layer(r, i, l + 1);
            }
        }
    }
    if (st != QY_OK) {
        qy_step_abort(cache);
        return st;
    }
    return qy_step_end(cache);
}

static void prefill(struct run *r, uint32_t seq, uint32_t n)
{
    enum { CHUNK = 40 };
    static float qkv[CHUNK * RIG_STRIDE];
    static float out[CHUNK * RIG_OUT];

    while (n > 0) {
        const uint32_t now = n < CHUNK ? n : CHUNK;
        const uint32_t at = qy_sequence_tokens(r->seqs[seq]);
        const struct qy_qkv args = {
            .q = qkv, .k = qkv + RIG_K_AT, .v = qkv + RIG_V_AT, .stride = RIG_STRIDE, .out = out};
        int32_t ids[CHUNK];
        const struct qy_step_slice slice = {.seq = r->seqs[seq], .n_tokens = now, .ids = ids};

        for (uint32_t t = 0; t < now; t++) {
            ids[t] = rig_token(r->streams[seq], at + t);
        }
        assert_int_equal(qy_step_begin(r->rig->cache, &slice, 1, NULL), QY_OK);
        for (uint32_t l = 0; l < LAYERS; l++) {
            for (uint32_t t = 0; t < now; t++) {
                rig_qkv(r->streams[seq], l, at + t, qkv + t * RIG_STRIDE);
            }
            assert_int_equal(qy_step_attend(r->rig->cache, l, &args), QY_OK);
            assert_false(qy_step_wants_guess(r->rig->cache, 0, l + 1)); /* not beside prefill */
        }
        assert_int_equal(qy_step_end(r->rig->cache), QY_OK);
        n -= now;
    }
}

static void open_run(struct run *r, struct rig *rig, enum guess guess)
{
    static float q[SEQS * RIG_STRIDE];

    *r = (struct run){.rig = rig, .guess = guess, .q = q};
    for (uint32_t i = 0; i < SEQS; i++) {
        r->seqs[i] = rig_sequence(rig);
        r->streams[i] = i + 1;
        prefill(r, i, CONTEXT - 9 * i);
    }
}

/* Steps, a cut, a sequence closed and its slot used by another. out [2 * STEPS][SEQS * OUT] */
static void run_all(struct rig *rig, enum guess guess, float *out)
{
    struct run r;

    open_run(&r, rig, guess);
    for (int i = 0; i < 2 * STEPS; i++) {
        if (i == STEPS) {
            assert_int_equal(qy_sequence_truncate(r.seqs[0], 200), QY_OK);
            r.streams[0] = 7;
            qy_sequence_close(r.seqs[1]);
            r.seqs[1] = rig_sequence(rig);
            r.streams[1] = 8;
            prefill(&r, 1, 180);
            qy_sequence_close(r.seqs[2]);
            r.seqs[2] = rig_sequence(rig);
            assert_int_equal(qy_sequence_copy(r.seqs[2], r.seqs[0]), QY_OK);
        }
        assert_int_equal(step(&r, out + (size_t)i * SEQS * OUT), QY_OK);
    }
    for (int i = 0; i < SEQS; i++) {
        assert_int_equal(qy_sequence_verify(r.seqs[i], NULL), QY_OK);
    }
}

enum { MOST = 2 * STEPS * SEQS * OUT };

/* Runs first, first + stride, ...: they differ in guess, sizes and micro-batches; who chose matters little. */
static void expect_same(const struct rig_options *options, uint64_t least, int first, int stride)
{
    float *want = malloc(2 * MOST * sizeof(float));
    float *have = want + MOST;
    const struct ahead_options unified = {.device = "host"};
    struct rig rig;

    assert_non_null(want);
    assert_true(try_open(&rig, options, &unified));
    run_all(&rig, NO_GUESS, want);
    rig_close(&rig);
    for (int i = first; i < 2 * GUESSES + 1; i += stride) {
        const struct ahead_options a = {.device = "host-discrete:64M",
                                        .device_bytes = i < GUESSES ? least : least + least / 4,
                                        .micro_batches = (uint32_t)i % 3 + 1,
                                        .prefetch = i < 2 * GUESSES ? QY_PREFETCH_SPECULATE
                                                                    : QY_PREFETCH_PREVIOUS,
                                        .rows = i == GUESSES + 1 ? 3 : 0,
                                        .eviction = (enum qy_eviction)(i % 3)};
        struct qy_cache_stats stats;

        assert_true(try_open(&rig, options, &a));
        run_all(&rig, (enum guess)(i % GUESSES), have);
        qy_cache_stats(rig.cache, &stats);
        assert_true(qyi_residency_sound(rig.cache->tier.residency));
        assert_true(stats.rows_prefetched_used <= stats.rows_prefetched);
        assert_true(stats.rows_guessed_right <= stats.rows_guessed);
        assert_int_equal(stats.rows_asked, stats.rows_found + stats.rows_pulled);
        assert_true(stats.device_reserved_bytes <= a.device_bytes);
        if (i < 2 * GUESSES && i % GUESSES != NO_GUESS) {
            assert_true(stats.rows_prefetched > 0 && stats.stage_ns[QY_STAGE_AHEAD] > 0);
        } else if (i < 2 * GUESSES) {
            assert_int_equal(stats.rows_prefetched, 0);
        }
        rig_close(&rig);
        if (memcmp(want, have, MOST * sizeof(float)) != 0) {
            fail_msg("%s, run %d: not the bits of the unified device", options->policy, i);
        }
    }
    free(want);
}

static void ahead_gives_the_same_bits_for_every_policy(void **state)
{
    static const char *const policies[] = {"exact", "quest", "pq", "clusters"};
    (void)state;

    for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
        struct rig_options o = base;

        o.policy = policies[i];
        expect_same(&o, least_bytes(&o), (int)i % 2, i == 0 ? 1 : 2);
    }
}

/* How many rows a cache pulls when it is asked, and how many ahead. */
static struct qy_cache_stats count_rows(enum guess guess, enum qy_prefetch prefetch, uint32_t rows)
{
    struct qy_cache_stats stats;
    struct rig rig;
    struct run r;
    float *out = malloc((size_t)SEQS * OUT * sizeof(float));
    const struct ahead_options a = {.device = "host-discrete:64M",
                                    .device_bytes = 2 * least_bytes(&base),
                                    .prefetch = prefetch,
                                    .rows = rows};

    assert_non_null(out);
    assert_true(try_open(&rig, &base, &a));
    open_run(&r, &rig, guess);
    qy_cache_stats_reset(rig.cache);
    for (int i = 0; i < STEPS; i++) {
        assert_int_equal(step(&r, out), QY_OK);
    }
    qy_cache_stats(rig.cache, &stats);
    rig_close(&rig);
    free(out);
    return stats;
}

/* A guess that is right brings what all layers but the first would have pulled; a wrong one costs bytes;
 * what a last step chose is still there, but for rows of blocks that have gone home since. */
static void ahead_is_counted(void **state)
{
    const struct qy_cache_stats off = count_rows(NO_GUESS, QY_PREFETCH_OFF, 0);
    const struct qy_cache_stats right = count_rows(RIGHT, QY_PREFETCH_SPECULATE, 0);
    const struct qy_cache_stats wrong = count_rows(WRONG, QY_PREFETCH_SPECULATE, 0);
    const struct qy_cache_stats few = count_rows(RIGHT, QY_PREFETCH_SPECULATE, 2);
    const struct qy_cache_stats previous = count_rows(NO_GUESS, QY_PREFETCH_PREVIOUS, 0);
    (void)state;

    assert_int_equal(off.rows_prefetched, 0);
    assert_int_equal(off.rows_guessed, 0);
    assert_true(right.rows_guessed > 0);
    assert_true(right.rows_guessed_right >= right.rows_guessed * 95 / 100);
    assert_true(right.rows_prefetched_used >= right.rows_prefetched * 9 / 10);
    assert_true(right.rows_pulled < off.rows_pulled / 2);
    assert_true(wrong.rows_guessed_right < wrong.rows_guessed / 2);
    assert_true(wrong.to_device_bytes > off.to_device_bytes);
    assert_true(few.rows_prefetched <= (uint64_t)2 * STEPS * SEQS * RIG_KV_HEADS * (LAYERS - 1));
    assert_true(few.rows_prefetched > 0 && few.rows_prefetched < right.rows_prefetched);
    assert_true(previous.rows_guessed > 0);
    assert_true(previous.rows_prefetched < off.rows_pulled / 10);
}

/* What was pushed in the last step is not on the device: here the last step's choice is worth pulling. */
static void ahead_of_the_last_step_brings_what_was_pushed(void **state)
{
    struct rig_options o = base;
    struct qy_cache_stats stats;
    struct rig rig;
    struct run r;
    float out[SEQS * OUT];
    const struct ahead_options a = {
        .device = "host-discrete:64M", .prefetch = QY_PREFETCH_PREVIOUS, .micro_batches = 2};
    (void)state;

    o.plan = QY_PLAN_PUSH;
    assert_true(try_open(&rig, &o, &a));
    open_run(&r, &rig, NO_GUESS);
    for (int i = 0; i < STEPS; i++) {
        assert_int_equal(step(&r, out), QY_OK);
    }
    qy_cache_stats(rig.cache, &stats);
    assert_true(stats.rows_prefetched > 0 && stats.rows_pushed > 0);
    assert_true(qyi_residency_sound(rig.cache->tier.residency));
    rig_close(&rig);
}

/* Copies fail or stall, guesses among them: the step says so, and done again it gives the bits. */
static void ahead_that_fails_fails_one_step_only(void **state)
{
    static const enum qy_stream_fault faults[2] = {QY_STREAM_FAULT_ERROR, QY_STREAM_FAULT_STALL};
    const struct ahead_options unified = {.device = "host"};
    const struct ahead_options a = {.device = "host-discrete:64M",
                                    .device_bytes = least_bytes(&base),
                                    .micro_batches = 2,
                                    .prefetch = QY_PREFETCH_SPECULATE};
    float *want = malloc((size_t)SEQS * OUT * sizeof(float));
    float *have = malloc((size_t)SEQS * OUT * sizeof(float));
    struct rig good;
    struct rig bad;
    struct run runs[2];
    int failed = 0;
    (void)state;

    assert_true(want && have);
    assert_true(try_open(&good, &base, &unified));
    assert_true(try_open(&bad, &base, &a));
    open_run(&runs[0], &good, NO_GUESS);
    open_run(&runs[1], &bad, HALF);
    for (uint32_t i = 0; i < 24; i++) {
        assert_int_equal(step(&runs[0], want), QY_OK);
        if (i % 2 == 1) {
            assert_int_equal(qy_stream_inject(bad.cache->tier.in, faults[i / 2 % 8 == 7], i / 2),
                             QY_OK);
        }
        enum qy_status st = step(&runs[1], have);
        if (st != QY_OK) {
            assert_true(st == QY_ERR_DEVICE || st == QY_ERR_TIMEOUT);
            failed++;
            st = step(&runs[1], have);
        }
        assert_int_equal(st, QY_OK);
        assert_memory_equal(want, have, (size_t)SEQS * OUT * sizeof(float));
        assert_true(qyi_residency_sound(bad.cache->tier.residency));
    }
    assert_true(failed >= 10);
    rig_close(&bad);
    rig_close(&good);
    free(want);
    free(have);
}

/* A guess that nobody asked for is refused, and one that is not used harms nothing. */
static void ahead_is_refused_where_it_is_not_wanted(void **state)
{
    struct rig rig;
    struct run r;
    int32_t ids[SEQS] = {1, 2, 3};
    struct qy_step_slice slices[SEQS];
    float qkv[SEQS * RIG_STRIDE];
    float out[SEQS * OUT];
    const struct ahead_options a = {.device = "host-discrete:64M",
                                    .prefetch = QY_PREFETCH_SPECULATE};
    (void)state;

    assert_true(try_open(&rig, &base, &a));
    open_run(&r, &rig, RIGHT);
    assert_false(qy_step_wants_guess(rig.cache, 0, 1));
    assert_int_equal(qy_step_speculate(rig.cache, 0, 1, r.q, RIG_STRIDE), QY_ERR_INVALID);
    for (uint32_t i = 0; i < SEQS; i++) {
        slices[i] = (struct qy_step_slice){.seq = r.seqs[i], .n_tokens = 1, .ids = &ids[i]};
    }
    assert_int_equal(qy_step_begin(rig.cache, slices, SEQS, NULL), QY_OK);
    assert_true(qy_step_wants_guess(rig.cache, 0, 1));
    assert_false(qy_step_wants_guess(rig.cache, 1, 1)); /* one micro-batch */
    assert_false(qy_step_wants_guess(rig.cache, 0, LAYERS));
    for (uint32_t i = 0; i < SEQS; i++) {
        read_row(&r, i, 1, qkv + i * RIG_STRIDE);
    }
    assert_int_equal(qy_step_speculate(rig.cache, 0, 1, qkv, RIG_OUT - 1), QY_ERR_INVALID);
    assert_int_equal(qy_step_speculate(rig.cache, 0, 1, qkv, RIG_STRIDE), QY_OK);
    assert_false(qy_step_wants_guess(rig.cache, 0, 1)); /* it has one */
    qy_step_abort(rig.cache);
    qy_cache_set_overlap(rig.cache, 0); /* to measure movement alone */
    assert_int_equal(qy_step_begin(rig.cache, slices, SEQS, NULL), QY_OK);
    assert_false(qy_step_wants_guess(rig.cache, 0, 1));
    qy_step_abort(rig.cache);
    qy_cache_set_overlap(rig.cache, 1);
    assert_int_equal(step(&r, out), QY_OK);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ahead_gives_the_same_bits_for_every_policy),
        cmocka_unit_test(ahead_is_counted),
        cmocka_unit_test(ahead_of_the_last_step_brings_what_was_pushed),
        cmocka_unit_test(ahead_that_fails_fails_one_step_only),
        cmocka_unit_test(ahead_is_refused_where_it_is_not_wanted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
