/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decode steps on a discrete device, between two markers that strace sees: 100 steps of four
 * sequences in two micro-batches, by the model and by the cache alone. tests/fault/syscalls.py reads
 * what was called.
 *
 * usage: steps_to_trace cache|model pull|push
 *
 * The markers are lseek(-1, ...) with offsets 1001 and 1002: a call that nothing else makes.
 */
#include "tests/unit/serve/bed.h"

#include <string.h>
#include <unistd.h>

#include "tests/unit/offload/rig.h"

enum { SEQUENCES = 4, WARM = 40, STEPS = 100, BEGIN = 1001, END = 1002 };

static void mark(off_t which)
{
    (void)!lseek(-1, which, SEEK_SET);
}

static void by_model(const char *plan)
{
    char mode[32];
    const char *const more[] = {"--policy", "exact",
                                "--budget", "24",
                                "--device", "host-discrete:8M",
                                "--set",    mode,
                                "--set",    "cache.device_bytes=3600K",
                                "--set",    "step.micro_batches=2",
                                NULL};
    static const uint32_t streams[SEQUENCES] = {1, 2, 3, 4};
    struct qy_error err = {0};
    struct bed bed;

    (void)snprintf(mode, sizeof(mode), "plan.mode=%s", plan);
    bed_open(&bed, SEQUENCES, more);
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        bed_prefill(&bed, bed.seqs[i], streams[i], 100 + 20 * i);
    }
    for (int i = 0; i < WARM + STEPS; i++) {
        if (i == WARM) {
            mark(BEGIN);
        }
        if (bed_step(&bed, bed.seqs, SEQUENCES, streams, &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
    }
    mark(END);
    bed_close(&bed);
}

static void step(struct rig *rig, struct qy_sequence *const *seqs)
{
    static float qkv[SEQUENCES * RIG_STRIDE];
    static float out[SEQUENCES * RIG_OUT];
    const struct qy_qkv args = {
        .q = qkv, .k = qkv + RIG_K_AT, .v = qkv + RIG_V_AT, .stride = RIG_STRIDE, .out = out};
    struct qy_step_slice slices[SEQUENCES];
    int32_t ids[SEQUENCES];

    for (uint32_t i = 0; i < SEQUENCES; i++) {
        ids[i] = rig_token(i, qy_sequence_tokens(seqs[i]));
        slices[i] = (struct qy_step_slice){.seq = seqs[i], .n_tokens = 1, .ids = &ids[i]};
    }
    assert_int_equal(qy_step_begin(rig->cache, slices, SEQUENCES, NULL), QY_OK);
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
        for (uint32_t i = 0; i < SEQUENCES; i++) {
            rig_qkv(i, layer, qy_sequence_tokens(seqs[i]), qkv + i * RIG_STRIDE);
        }
        assert_int_equal(qy_step_attend(rig->cache, layer, &args), QY_OK);
    }
    assert_int_equal(qy_step_end(rig->cache), QY_OK);
}

static void by_cache(const char *plan)
{
    const struct rig_options o = {.policy = "exact",
                                  .budget = "0.1",
                                  .f16 = 1,
                                  .threads = 2,
                                  .max_step_tokens = 64,
                                  .device = "host-discrete:3400K",
                                  .plan = strcmp(plan, "push") == 0 ? QY_PLAN_PUSH : QY_PLAN_PULL,
                                  .micro_batches = 2};
    struct qy_sequence *seqs[SEQUENCES];
    struct rig rig;

    rig_open(&rig, &o);
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        seqs[i] = rig_sequence(&rig);
        rig_prefill(&rig, seqs[i], i, 100 + 30 * i, 64, NULL);
    }
    for (int i = 0; i < WARM + STEPS; i++) {
        if (i == WARM) {
            mark(BEGIN);
        }
        step(&rig, seqs);
    }
    mark(END);
    rig_close(&rig);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        return 2;
    }
    strcmp(argv[1], "model") == 0 ? by_model(argv[2]) : by_cache(argv[2]);
    return 0;
}
