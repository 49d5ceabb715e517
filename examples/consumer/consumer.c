/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest program with a KV cache of Quarry's and a model of its own (here: random vectors).
 * It reads a prompt, then decodes one token twice, densely and with the top half of the tokens,
 * and prints how far apart the two answers are.
 *
 *   cc consumer.c $(pkg-config --cflags --libs quarry) -lm -o consumer
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/offload.h"

enum { LAYERS = 2, HEADS = 4, KV_HEADS = 2, DIM = 64, PROMPT = 300 };
enum { Q = HEADS * DIM, KV = KV_HEADS * DIM, STRIDE = Q + 2 * KV };

/* Random q, k and v of n tokens; the same for the same seed. */
static void make_qkv(float *x, int n, unsigned seed)
{
    for (int i = 0; i < n * STRIDE; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / (1 << 23) - 1.0f;
    }
}

/* One step that adds n tokens to a sequence: every layer attends to what it holds. */
static enum qy_status step(struct qy_cache *cache, struct qy_sequence *seq, int n, float *out,
                           struct qy_error *err)
{
    static const int32_t ids[PROMPT];
    static float x[PROMPT * STRIDE];
    const struct qy_step_slice slice = {.seq = seq, .n_tokens = (uint32_t)n, .ids = ids};
    enum qy_status st = qy_step_begin(cache, &slice, 1, err);
    for (uint32_t layer = 0; st == QY_OK && layer < LAYERS; layer++) {
        make_qkv(x, n, 7u + layer + (unsigned)n);
        const struct qy_qkv qkv = {
            .q = x, .k = x + Q, .v = x + Q + KV, .stride = STRIDE, .out = out};
        st = qy_step_attend(cache, layer, &qkv);
    }
    return st == QY_OK ? qy_step_end(cache) : st;
}

/* Opens a cache with the policy, reads the prompt, decodes one token; last is its attention. */
static enum qy_status run(const struct qy_runtime *rt, struct qy_device *dev, const char *policy,
                          float *last, double *attended, struct qy_error *err)
{
    static float out[PROMPT * Q];
    struct qy_cache_params params = {
        .rt = rt,
        .dev = dev,
        .shape = {LAYERS, HEADS, KV_HEADS, DIM},
        .settings = {.block_tokens = 128, .sinks = 8, .window = 64, .row_type = QY_ROW_F16},
        .max_sequences = 1,
        .max_tokens = PROMPT + 1,
        .max_step_tokens = PROMPT,
    };
    struct qy_cache *cache = NULL;
    struct qy_sequence *seq = NULL;
    enum qy_status st = qy_policy_choose(policy, &params.policy, err);
    if (st == QY_OK) {
        st = qy_budget_parse("0.5", &params.budget, err);
    }
    if (st == QY_OK) {
        st = qy_cache_open(&params, &cache, err);
    }
    if (st == QY_OK) {
        st = qy_sequence_open(cache, &seq, err);
    }
    if (st == QY_OK) {
        st = step(cache, seq, PROMPT, out, err);
    }
    if (st == QY_OK) {
        st = step(cache, seq, 1, last, err);
    }
    if (st == QY_OK) {
        struct qy_cache_stats stats;
        qy_cache_stats(cache, &stats);
        *attended = (double)stats.attended_rows / (double)stats.total_rows;
    }
    qy_sequence_close(seq);
    qy_cache_close(cache);
    return st;
}

int main(void)
{
    struct qy_runtime rt = {.mem = qy_allocator_system(), .log = qy_log_stderr(QY_LOG_WARN)};
    const struct qy_device_params params = {.spec = "host", .max_m = PROMPT};
    struct qy_error err = {0};
    struct qy_device *dev = NULL;
    float dense[Q], exact[Q];
    double all = 0, half = 0, difference = 0;

    qy_cpu_detect(&rt.cpu);
    enum qy_status st = qy_device_open(&rt, &params, &dev, &err);
    if (st == QY_OK) {
        st = run(&rt, dev, "dense", dense, &all, &err);
    }
    if (st == QY_OK) {
        st = run(&rt, dev, "exact", exact, &half, &err);
    }
    qy_device_close(dev);
    if (st != QY_OK) {
        fprintf(stderr, "consumer: %s: %s\n", qy_status_name(st), err.text);
        return 1;
    }
    for (int i = 0; i < Q; i++) {
        difference = fmax(difference, fabs((double)dense[i] - (double)exact[i]));
    }
    printf("quarry " QY_VERSION ": attended %.0f %% and %.0f %%; largest difference %.4f\n",
           100 * all, 100 * half, difference);
    return all == 1.0 && half < 0.8 && difference < 0.5 ? 0 : 1;
}
