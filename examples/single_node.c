/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A KV cache under a model of your own, in one process, through offload/offload.h alone.
 *
 * The "model" here is a stand-in: it makes up q, k and v. Everything else is what a real one does:
 * read two texts in chunks (prefill), then add one token to both in each step (decode), attending
 * to 5 % of the context instead of all of it. At the end the last step is repeated over the whole
 * context, to see what the selection cost.
 */
#include "offload/offload.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 2, HEADS = 4, KV_HEADS = 2, D = 64, TEXTS = 2, CHUNK = 128, PROMPT = 1024 };
enum { OUT = HEADS * D, ROW = (HEADS + 2 * KV_HEADS) * D, STEPS = 32 };

static float qkv[CHUNK * ROW]; /* q, k, v of each token of a step, one after the other */
static float out[CHUNK * OUT]; /* attention's answer                                   */

/* Stops the program with the library's own words: they say what to do. */
static void must(enum qy_status status, const struct qy_error *err)
{
    if (status != QY_OK) {
        fprintf(stderr, "%s: %s\n", qy_status_name(status), err->text);
        exit(1);
    }
}

/* Where a model multiplies its activations with Wq, Wk and Wv: numbers that depend on the place. */
static void project(uint32_t layer, uint32_t first, uint32_t n)
{
    uint32_t random = (layer + 1) * 2654435761U ^ first;

    for (uint32_t i = 0; i < n * ROW; i++) {
        random = random * 1664525U + 1013904223U;
        qkv[i] = 3.0F * ((float)(random >> 8) * 0x1p-23F - 1.0F);
    }
}

/* One step: every slice adds its tokens to its sequence. */
static void step(struct qy_cache *cache, const struct qy_step_slice *slices, uint32_t n_slices)
{
    const struct qy_qkv args = {
        .q = qkv, .k = qkv + OUT, .v = qkv + OUT + KV_HEADS * D, .stride = ROW, .out = out};
    const uint32_t first = qy_sequence_tokens(slices[0].seq);
    struct qy_error err = {.text = ""};
    uint32_t m = 0;

    for (uint32_t i = 0; i < n_slices; i++) {
        m += slices[i].n_tokens;
    }
    /* QY_AGAIN here would mean: no block is free, nothing has changed, close a sequence first. */
    must(qy_step_begin(cache, slices, n_slices, &err), &err);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        project(layer, first, m);
        must(qy_step_attend(cache, layer, &args), &err); /* rotates, appends, selects, attends */
        /* here a model multiplies `out` with Wo, adds, and runs its feed-forward part */
    }
    must(qy_step_end(cache), &err);
}

/* 1. A device, on two threads. */
static struct qy_device *open_device(struct qy_runtime *rt)
{
    const struct qy_team_params team = {.n_threads = 2, .spin_us = 50};
    const struct qy_device_params params = {.spec = "host", .max_m = 1};
    struct qy_error err = {.text = ""};
    struct qy_device *dev;

    rt->mem = qy_allocator_system();
    qy_cpu_detect(&rt->cpu);
    must(qy_team_open(&rt->mem, &team, &rt->team, &err), &err);
    must(qy_device_open(rt, &params, &dev, &err), &err);
    return dev;
}

/* 2. The cache. All its memory is reserved now, or refused with the numbers. */
static struct qy_cache *open_cache(const struct qy_runtime *rt, struct qy_device *dev,
                                   const float *inv_freq)
{
    struct qy_cache_params params = {
        .rt = rt,
        .dev = dev,
        .shape = {LAYERS, HEADS, KV_HEADS, D},
        .rope = {.dim = D, .pairs = QY_ROPE_ADJACENT, .inv_freq = inv_freq},
        .settings = {.block_tokens = 128, .sinks = 8, .window = 64, .row_type = QY_ROW_F16},
        .max_sequences = TEXTS,
        .max_tokens = PROMPT + STEPS,
        .max_step_tokens = CHUNK};
    struct qy_error err = {.text = ""};
    struct qy_cache *cache;

    must(qy_policy_choose("exact", &params.policy, &err), &err);
    must(qy_budget_parse("0.05", &params.budget, &err), &err);
    must(qy_cache_open(&params, &cache, &err), &err);
    return cache;
}

/* 5. The last token again, over everything: how far is the selection from the truth? */
static double compare_with_dense(struct qy_cache *cache, struct qy_step_slice *slices)
{
    struct qy_error err = {.text = "cannot forget the last token"};
    float chosen[OUT];
    double error = 0.0;
    double size = 0.0;

    memcpy(chosen, out, sizeof(chosen));
    for (int i = 0; i < TEXTS; i++) {
        must(qy_sequence_truncate(slices[i].seq, PROMPT + STEPS - 1), &err);
        slices[i].mode = QY_ATTEND_DENSE;
    }
    step(cache, slices, TEXTS);
    for (int i = 0; i < OUT; i++) {
        error += pow((double)chosen[i] - (double)out[i], 2.0);
        size += pow((double)out[i], 2.0);
    }
    return sqrt(error / size);
}

int main(void)
{
    static const int32_t ids[CHUNK]; /* token ids: they only name the blocks */
    struct qy_error err = {.text = ""};
    struct qy_step_slice slices[TEXTS];
    struct qy_cache_stats stats;
    struct qy_runtime rt = {0};
    float inv_freq[D / 2]; /* how fast each pair of a head turns (RoPE) */

    for (int i = 0; i < D / 2; i++) {
        inv_freq[i] = powf(10000.0F, -2.0F * (float)i / D);
    }
    struct qy_device *dev = open_device(&rt);
    struct qy_cache *cache = open_cache(&rt, dev, inv_freq);

    /* 3. Two contexts, read in chunks: prefill is always dense. */
    for (int i = 0; i < TEXTS; i++) {
        slices[i] = (struct qy_step_slice){.ids = ids, .mode = QY_ATTEND_DENSE, .n_tokens = CHUNK};
        must(qy_sequence_open(cache, &slices[i].seq, &err), &err);
        while (qy_sequence_tokens(slices[i].seq) < PROMPT) {
            step(cache, &slices[i], 1);
        }
    }
    /* 4. Decode: both in one step, a part of the rows attended. */
    for (int i = 0; i < TEXTS; i++) {
        slices[i].n_tokens = 1;
        slices[i].mode = QY_ATTEND_POLICY;
    }
    for (int i = 0; i < STEPS; i++) {
        step(cache, slices, TEXTS);
    }
    qy_cache_stats(cache, &stats);
    printf("%d tokens of KV in %.1f MiB; attended %.1f %% of the rows, read %.1f %% of the bytes\n",
           TEXTS * (PROMPT + STEPS), (double)stats.host_bytes / (1 << 20),
           100.0 * (double)stats.attended_rows / (double)stats.total_rows,
           100.0 * (double)stats.read_bytes / (double)stats.dense_read_bytes);

    const double difference = compare_with_dense(cache, slices);
    printf("difference from dense, as a share of its norm: %.3f\n", difference);
    for (int i = 0; i < TEXTS; i++) {
        must(qy_sequence_verify(slices[i].seq, &err), &err); /* every sealed block is what it was */
        qy_sequence_close(slices[i].seq);
    }
    qy_cache_close(cache);
    qy_device_close(dev);
    qy_team_close(rt.team);
    return difference < 1.0 ? 0 : 1;
}
