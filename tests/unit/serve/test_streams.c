/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies that fail or stall under the whole stack: one clear error for the sequences concerned; the
 * others go on; done again, the answer is that of an undisturbed run, bit for bit.
 */
#include "tests/unit/serve/bed.h"

#include <stdlib.h>
#include <string.h>

#include "offload/cache.h"

enum { SEQUENCES = 4, STEPS = 24, N_PREFILL = 180 };

#define BATCH(policy)                                                                              \
    "--policy", policy, "--budget", "24", "--set", "step.micro_batches=2", "--set",                \
        "cache.copy_timeout_ms=1000"
#define DISCRETE(plan) "--device", "host-discrete:8M", "--set", "plan.mode=" plan

static const uint32_t streams[SEQUENCES] = {1, 2, 3, 4};

static void fill(struct bed *bed)
{
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        bed_prefill(bed, bed->seqs[i], streams[i], N_PREFILL + 10 * i);
    }
}

/* Logits of all steps, undisturbed: [STEPS][SEQUENCES][n_vocab]. */
static float *undisturbed(const char *const *more)
{
    struct bed bed;
    struct qy_error err = {0};

    bed_open(&bed, SEQUENCES, more);
    fill(&bed);
    const size_t n = (size_t)SEQUENCES * bed.n_vocab;
    float *want = malloc(STEPS * n * sizeof(float));
    assert_non_null(want);
    for (size_t i = 0; i < STEPS; i++) {
        if (bed_step(&bed, bed.seqs, SEQUENCES, streams, &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
        memcpy(want + i * n, bed.engine.logits, n * sizeof(float));
    }
    bed_close(&bed);
    return want;
}

/* A step of those of the batch that failed is `failed`; their logits are those wanted. */
static void step_some(struct bed *bed, int failed, const int *marks, const float *want)
{
    struct qy_sequence *seqs[SEQUENCES];
    uint32_t of[SEQUENCES];
    uint32_t places[SEQUENCES];
    struct qy_error err = {0};
    uint32_t n = 0;

    for (uint32_t i = 0; i < SEQUENCES; i++) {
        if (marks[i] == failed) {
            seqs[n] = bed->seqs[i];
            of[n] = streams[i];
            places[n++] = i;
        }
    }
    if (n > 0 && bed_step(bed, seqs, n, of, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    for (uint32_t i = 0; i < n; i++) {
        assert_memory_equal(want + (size_t)places[i] * bed->n_vocab,
                            bed->engine.logits + (size_t)i * bed->n_vocab,
                            bed->n_vocab * sizeof(float));
    }
}

/* After a step that failed: who is concerned, in marks [SEQUENCES]; the error says the same. */
static void read_failure(const struct bed *bed, enum qy_status st, enum qy_stream_fault fault,
                         const struct qy_error *err, int *marks)
{
    const char *what = fault == QY_STREAM_FAULT_STALL
                           ? "did not arrive within cache.copy_timeout_ms '1000'"
                           : "failed";
    int n = 0;

    assert_int_equal(st, fault == QY_STREAM_FAULT_STALL ? QY_ERR_TIMEOUT : QY_ERR_DEVICE);
    if (!strstr(err->text, what) || !strstr(err->text, "tokens: layer ") ||
        strchr(err->text, '\n')) {
        fail_msg("%s", err->text);
    }
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        marks[i] = qy_sequence_failed(bed->seqs[i]);
        n += marks[i];
    }
    assert_true(n == SEQUENCES / 2); /* one micro-batch of two */
    assert_non_null(strstr(err->text, marks[0] ? "sequences 0, 1" : "sequences 2, 3"));
}

static void expect_recovery(const char *const *unified, const char *const *discrete)
{
    struct bed bed;
    int n_failed = 0;
    float *want = undisturbed(unified);

    bed_open(&bed, SEQUENCES, discrete);
    fill(&bed);
    const size_t n = (size_t)SEQUENCES * bed.n_vocab;
    const struct qyi_tier *tier = &bed.engine.cache->tier;
    for (uint32_t i = 0; i < STEPS; i++) {
        const enum qy_stream_fault fault = i == 15 ? QY_STREAM_FAULT_STALL : QY_STREAM_FAULT_ERROR;
        struct qy_error err = {0};
        int marks[SEQUENCES] = {0};

        if (i % 5 == 0) { /* of either micro-batch */
            assert_int_equal(qy_stream_inject(tier->in, fault, 2 + i / 5 % 2), QY_OK);
        }
        const enum qy_status st = bed_step(&bed, bed.seqs, SEQUENCES, streams, &err);
        if (st != QY_OK) {
            n_failed++;
            read_failure(&bed, st, fault, &err, marks);
            step_some(&bed, 0, marks, want + i * n);
            step_some(&bed, 1, marks, want + i * n);
        } else {
            assert_memory_equal(want + i * n, bed.engine.logits, n * sizeof(float));
        }
        assert_int_equal(qy_stream_inject(tier->in, QY_STREAM_FAULT_NONE, 0), QY_OK);
    }
    assert_true(n_failed >= 4);
    bed_close(&bed);
    free(want);
}

static void a_pull_that_fails_concerns_its_micro_batch_only(void **state)
{
    static const char *const unified[] = {BATCH("exact"), NULL};
    static const char *const discrete[] = {BATCH("exact"), DISCRETE("pull"), "--set",
                                           "cache.device_bytes=3600K", NULL};
    (void)state;

    expect_recovery(unified, discrete);
}

static void a_partial_that_fails_concerns_its_micro_batch_only(void **state)
{
    static const char *const unified[] = {BATCH("exact"), NULL};
    static const char *const discrete[] = {BATCH("exact"), DISCRETE("push"), "--set",
                                           "cache.device_bytes=3600K", NULL};
    (void)state;

    expect_recovery(unified, discrete);
}

/* A chunk of prefill whose blocks do not come back: the error says so, and what was read stays. */
static void a_prefill_that_fails_goes_on_where_it_was(void **state)
{
    static const char *const more[] = {BATCH("exact"), DISCRETE("pull"), "--set",
                                       "cache.device_bytes=3600K", NULL};
    struct qy_error err = {0};
    struct bed bed;
    int32_t ids[300];
    size_t done = 0;
    (void)state;

    bed_open(&bed, SEQUENCES, more);
    for (uint32_t i = 0; i < 300; i++) {
        ids[i] = bed_token(&bed, 1, i);
    }
    assert_int_equal(qyi_engine_prefill(&bed.engine, bed.seqs[0], ids, 128, 0, NULL, &done, &err),
                     QY_OK);
    assert_int_equal(qy_stream_inject(bed.engine.cache->tier.in, QY_STREAM_FAULT_ERROR, 3), QY_OK);
    assert_int_equal(
        qyi_engine_prefill(&bed.engine, bed.seqs[0], ids + 128, 172, 0, NULL, &done, &err),
        QY_ERR_DEVICE);
    assert_non_null(strstr(err.text, "forward pass of 64 tokens: layer 1: "));
    assert_non_null(strstr(err.text, "sequence 0 failed"));
    assert_int_equal(done, 64);
    assert_int_equal(qy_sequence_tokens(bed.seqs[0]), 192);
    assert_int_equal(
        qyi_engine_prefill(&bed.engine, bed.seqs[0], ids + 192, 108, 0, NULL, &done, &err), QY_OK);
    assert_int_equal(qy_sequence_verify(bed.seqs[0], &err), QY_OK);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pull_that_fails_concerns_its_micro_batch_only),
        cmocka_unit_test(a_partial_that_fails_concerns_its_micro_batch_only),
        cmocka_unit_test(a_prefill_that_fails_goes_on_where_it_was),
    };
    return cmocka_run_group_tests_name("serve.streams", tests, NULL, NULL);
}
