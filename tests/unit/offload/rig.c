/* SPDX-License-Identifier: Apache-2.0 */
/* See rig.h: opening, and feeding steps. */
#include "tests/unit/offload/rig.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t or_default(uint32_t value, uint32_t initial)
{
    return value != 0 ? value : initial;
}

void rig_prepare(struct rig *rig, const struct rig_options *o)
{
    const struct qy_team_params team = {.n_threads = or_default(o->threads, 1)};
    const struct qy_device_params device = {.spec = o->device ? o->device : "host",
                                            .max_m = 1,
                                            .link = o->link,
                                            .deterministic = o->deterministic};
    struct qy_budget budget;

    memset(rig, 0, sizeof(*rig));
    rig->rt.mem = qy_allocator_system();
    qy_cpu_detect(&rig->rt.cpu);
    assert_int_equal(qy_cpu_choose(&rig->rt.cpu, o->cpu ? o->cpu : "auto", NULL), QY_OK);
    assert_int_equal(qy_team_open(&rig->rt.mem, &team, &rig->rt.team, NULL), QY_OK);
    assert_int_equal(qy_device_open(&rig->rt, &device, &rig->dev, NULL), QY_OK);
    for (int i = 0; i < RIG_D / 2; i++) {
        rig->inv_freq[i] = powf(10000.0F, -2.0F * (float)i / RIG_D);
    }
    assert_int_equal(qy_budget_parse(o->budget ? o->budget : "1.0", &budget, NULL), QY_OK);
    rig->params = (struct qy_cache_params){
        .rt = &rig->rt,
        .dev = rig->dev,
        .shape = {RIG_LAYERS, RIG_HEADS, RIG_KV_HEADS, RIG_D},
        .rope = {.dim = RIG_D, .pairs = o->pairs, .inv_freq = rig->inv_freq},
        .settings = {.block_tokens = or_default(o->block_tokens, 16),
                     .sinks = or_default(o->sinks, 4),
                     .window = or_default(o->window, 8),
                     .row_type = o->f16 ? QY_ROW_F16 : QY_ROW_F32,
                     .host_bytes = o->host_bytes,
                     .device_bytes = o->device_bytes,
                     .disk_bytes = o->disk_bytes,
                     .disk_path = "/var/tmp",
                     .disk_engine = o->disk_engine,
                     .plan_mode = (int)o->plan,
                     .overlap = 1,
                     .micro_batches = or_default(o->micro_batches, 1),
                     .copy_timeout_ms = or_default(o->copy_timeout_ms, 10000)},
        .policy = o->ops ? o->ops : qy_policy_find(o->policy ? o->policy : "dense"),
        .retrieval = o->retrieval,
        .codebook = o->codebook,
        .budget = budget,
        .max_sequences = or_default(o->max_sequences, 4),
        .max_tokens = or_default(o->max_tokens, 512),
        .max_step_tokens = or_default(o->max_step_tokens, 512),
        .servers = o->servers,
        .total_tokens = o->total_tokens};
    snprintf(rig->params.settings.home_codec, sizeof(rig->params.settings.home_codec), "%s",
             o->home_codec ? o->home_codec : "f16");
    rig->even = o->even;
    if (o->even) {
        rig->params.rope.dim = 0;
    }
}

void rig_open(struct rig *rig, const struct rig_options *options)
{
    struct qy_error err = {0};

    rig_prepare(rig, options);
    if (qy_cache_open(&rig->params, &rig->cache, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
}

void rig_close(struct rig *rig)
{
    qy_cache_close(rig->cache);
    qy_device_close(rig->dev);
    qy_team_close(rig->rt.team);
}

struct qy_sequence *rig_sequence(struct rig *rig)
{
    struct qy_sequence *seq = NULL;

    assert_int_equal(qy_sequence_open(rig->cache, &seq, NULL), QY_OK);
    return seq;
}

static uint32_t mixed(uint32_t x)
{
    x = (x ^ (x >> 16)) * 0x7feb352dU;
    x = (x ^ (x >> 15)) * 0x846ca68bU;
    return x ^ (x >> 16);
}

int32_t rig_token(uint32_t stream, uint32_t token)
{
    return (int32_t)(mixed(stream * 7919 + token) & 0x7fff);
}

void rig_qkv(uint32_t stream, uint32_t layer, uint32_t token, float *row)
{
    uint32_t state = mixed((stream * RIG_LAYERS + layer) * 65536 + token + 1);

    for (int i = 0; i < RIG_STRIDE; i++) {
        state = state * 1664525U + 1013904223U;
        row[i] = (float)(state >> 8) * 0x1p-23F - 1.0F;
        row[i] *= i < RIG_OUT ? 2.5F : 1.5F; /* sharp enough that tokens differ in weight */
    }
}

/* Keys and values become one of 16 levels, of which each group of 32 has the first and the last. */
static void make_even(float *row)
{
    for (int i = RIG_K_AT; i < RIG_STRIDE; i++) {
        const float level = i % 32 < 2 ? (float)(i % 32) * 15.0F : rintf((row[i] + 1.5F) * 5.0F);

        row[i] = level * 0.25F - 2.0F;
    }
}

/* One layer of all feeds: gathers q, k, v, attends, spreads the outputs. */
static void step_layer(struct rig *rig, const struct rig_feed *feeds, uint32_t n_feeds,
                       uint32_t layer)
{
    uint32_t m = 0;

    for (uint32_t i = 0; i < n_feeds; i++) {
        m += feeds[i].n;
    }
    float *qkv = malloc((size_t)m * RIG_STRIDE * sizeof(float));
    float *out = malloc((size_t)m * RIG_OUT * sizeof(float));
    assert_true(qkv && out);
    uint32_t row = 0;
    for (uint32_t i = 0; i < n_feeds; i++) {
        for (uint32_t t = 0; t < feeds[i].n; t++, row++) {
            rig_qkv(feeds[i].stream, layer, qy_sequence_tokens(feeds[i].seq) + t,
                    qkv + (size_t)row * RIG_STRIDE);
            if (rig->even) {
                make_even(qkv + (size_t)row * RIG_STRIDE);
            }
        }
    }
    const struct qy_qkv args = {
        .q = qkv, .k = qkv + RIG_K_AT, .v = qkv + RIG_V_AT, .stride = RIG_STRIDE, .out = out};
    assert_int_equal(qy_step_attend(rig->cache, layer, &args), QY_OK);
    row = 0;
    for (uint32_t i = 0; i < n_feeds; row += feeds[i].n, i++) {
        const size_t n = (size_t)feeds[i].n * RIG_OUT;

        if (feeds[i].out) {
            memcpy(feeds[i].out + layer * n, out + (size_t)row * RIG_OUT, n * sizeof(float));
        }
    }
    free(out);
    free(qkv);
}

enum qy_status rig_step(struct rig *rig, const struct rig_feed *feeds, uint32_t n_feeds)
{
    struct qy_step_slice slices[8];
    int32_t *ids[8];

    assert_true(n_feeds <= 8);
    for (uint32_t i = 0; i < n_feeds; i++) {
        ids[i] = malloc(feeds[i].n * sizeof(int32_t));
        assert_non_null(ids[i]);
        for (uint32_t t = 0; t < feeds[i].n; t++) {
            ids[i][t] = rig_token(feeds[i].stream, qy_sequence_tokens(feeds[i].seq) + t);
        }
        slices[i] = (struct qy_step_slice){
            .seq = feeds[i].seq, .n_tokens = feeds[i].n, .ids = ids[i], .mode = feeds[i].mode};
    }
    const enum qy_status st = qy_step_begin(rig->cache, slices, n_feeds, NULL);
    for (uint32_t i = 0; i < n_feeds; i++) {
        free(ids[i]);
    }
    if (st != QY_OK) {
        return st;
    }
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
        step_layer(rig, feeds, n_feeds, RIG_LAYERS - 1 - layer); /* any order is accepted */
    }
    assert_int_equal(qy_step_end(rig->cache), QY_OK);
    return QY_OK;
}

void rig_prefill(struct rig *rig, struct qy_sequence *seq, uint32_t stream, uint32_t n,
                 uint32_t chunk, float *out)
{
    for (uint32_t done = 0; done < n;) {
        const uint32_t now = n - done < chunk ? n - done : chunk;
        float *both = malloc((size_t)RIG_LAYERS * now * RIG_OUT * sizeof(float));
        const struct rig_feed feed = {
            .seq = seq, .stream = stream, .n = now, .mode = QY_ATTEND_DENSE, .out = both};

        assert_non_null(both);
        assert_int_equal(rig_step(rig, &feed, 1), QY_OK);
        if (out) {
            memcpy(out + (size_t)done * RIG_OUT, both + (size_t)(RIG_LAYERS - 1) * now * RIG_OUT,
                   (size_t)now * RIG_OUT * sizeof(float));
        }
        free(both);
        done += now;
    }
}
