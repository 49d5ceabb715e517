/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A selection policy of your own, handed to the cache from outside the library.
 *
 * `pages` keeps the sum of the keys of every 16 tokens inside the cache's own blocks, scores a page
 * by the best product of a query head with that sum, and attends to the best pages. The index is a
 * pure function of the keys, so blocks can be shared and copied with it, and it needs no state.
 */
#include "offload/offload.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 16, BLOCK = 128, D = 64, HEADS = 4, KV_HEADS = 2, GROUP = 2, ALIGN = 64 };
enum { TOKENS = 4096, OUT = HEADS * D, ROW = (HEADS + 2 * KV_HEADS) * D };

/* ---- the policy ------------------------------------------------------------------------------ */

/* The sum of the page that holds token t. */
static float *page_sum(const struct qy_slab *index, uint32_t t)
{
    const uint32_t place = (t & ((1U << index->shift) - 1)) / PAGE;

    return (float *)(void *)(index->blocks[t >> index->shift] + index->offset) + (size_t)place * D;
}

static size_t pages_index_bytes(const struct qy_policy *policy)
{
    (void)policy;
    return sizeof(float) * D * (BLOCK / PAGE);
}

/* New tokens of one layer: their keys, in the order of the text. */
static enum qy_status pages_append(struct qy_policy *policy, const struct qy_append_view *views,
                                   uint32_t n, struct qy_arena *arena)
{
    (void)policy, (void)arena;
    for (const struct qy_append_view *v = views; v < views + n; v++) {
        for (uint32_t t = 0; t < v->n; t++) {
            float *sum = page_sum(&v->index, v->first + t);
            const float keep = (v->first + t) % PAGE == 0 ? 0.0F : 1.0F;

            for (int i = 0; i < D; i++) {
                sum[i] = keep * sum[i] + v->k[t * v->stride + (size_t)i];
            }
        }
    }
    return QY_OK;
}

static size_t pages_scratch(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n)
{
    (void)n_items; /* one item at a time: scores, chosen pages, and what top-k takes */
    return 2 * (max_n / PAGE * sizeof(float) + ALIGN) +
           qy_device_topk_scratch((const struct qy_device *)policy, 1, max_n / PAGE + 1);
}

static enum qy_status pages_select(struct qy_policy *policy, const struct qy_select_item *items,
                                   uint32_t n_items, struct qy_arena *arena)
{
    struct qy_device *dev = (struct qy_device *)policy; /* all the state this policy has */

    for (const struct qy_select_item *it = items; it < items + n_items; it++) {
        const uint32_t first = (it->lo + PAGE - 1) / PAGE; /* whole pages between lo and hi */
        const uint32_t n = it->hi / PAGE > first ? it->hi / PAGE - first : 0;
        const size_t mark = qy_arena_mark(arena);
        float *scores = qy_arena_take(arena, n * sizeof(*scores), ALIGN);
        uint32_t *chosen = qy_arena_take(arena, n * sizeof(*chosen), ALIGN);
        uint32_t n_chosen = 0;

        if (!scores || !chosen) {
            return QY_ERR_NOMEM;
        }
        for (uint32_t p = 0; p < n; p++) {
            const float *sum = page_sum(&it->index, (first + p) * PAGE);

            scores[p] = -INFINITY;
            for (uint32_t h = 0; h < it->group; h++) {
                float dot = 0.0F;

                for (int i = 0; i < D; i++) {
                    dot += it->q[h * D + (uint32_t)i] * sum[i];
                }
                scores[p] = fmaxf(scores[p], dot);
            }
        }
        const struct qy_topk_item best = {.scores = scores,
                                          .n = n,
                                          .k = it->k / PAGE,
                                          .id_base = first,
                                          .ids = chosen,
                                          .n_ids = &n_chosen};
        const enum qy_status st = qy_device_topk(dev, &best, 1, arena);

        *it->n_ids = n_chosen * PAGE;
        for (uint32_t i = 0; i < n_chosen * PAGE; i++) {
            it->ids[i] = chosen[i / PAGE] * PAGE + i % PAGE;
        }
        qy_arena_rewind(arena, mark);
        if (st != QY_OK) {
            return st;
        }
    }
    return QY_OK;
}

static enum qy_status pages_open(const struct qy_policy_params *params, struct qy_policy **policy,
                                 struct qy_error *err)
{
    *policy = (struct qy_policy *)params->dev;
    return params->head_dim == D && params->block_tokens == BLOCK
               ? QY_OK
               : qy_error_set(err, QY_ERR_INVALID, "policy 'pages': made for heads of %d", D);
}

static const struct qy_policy_ops pages = {.abi_size = sizeof(struct qy_policy_ops),
                                           .name = "pages",
                                           .summary = "pages of 16 tokens by the sum of their keys",
                                           .caps = {.index_shareable = 1},
                                           .open = pages_open,
                                           .scratch = pages_scratch,
                                           .index_bytes = pages_index_bytes,
                                           .append = pages_append,
                                           .select = pages_select};

/* ---- a program that uses it -------------------------------------------------------------------- */

static void must(enum qy_status status, const struct qy_error *err)
{
    if (status != QY_OK) {
        fprintf(stderr, "%s: %s\n", qy_status_name(status), err->text);
        exit(1);
    }
}

/* Neighbouring keys point the same way, as in real text; the query asks for one stretch of them. */
static void project(uint32_t position, float *row)
{
    for (uint32_t i = 0; i < ROW; i++) {
        const uint32_t topic = (i + 1) * 2654435761U ^ (position / 64 * 40503U);
        const uint32_t noise = (i + 1) * 2246822519U ^ (position * 3266489917U);

        row[i] = 2.0F * ((float)((topic * 1664525U + 1U) >> 8) * 0x1p-23F - 1.0F) +
                 0.5F * ((float)((noise * 22695477U + 1U) >> 8) * 0x1p-23F - 1.0F);
    }
}

static void step(struct qy_cache *cache, struct qy_sequence *seq, uint32_t topic,
                 enum qy_attend_mode mode, float *out)
{
    static const int32_t id;
    const struct qy_step_slice slice = {.seq = seq, .n_tokens = 1, .ids = &id, .mode = mode};
    struct qy_error err = {.text = ""};
    float row[ROW];
    float asked[ROW];

    project(qy_sequence_tokens(seq), row);
    project(topic, asked);
    for (int h = 0; h < HEADS; h++) { /* a query that looks like the keys of the topic */
        memcpy(row + h * D, asked + OUT + h / GROUP * D, D * sizeof(float));
    }
    const struct qy_qkv qkv = {
        .q = row, .k = row + OUT, .v = row + OUT + KV_HEADS * D, .stride = ROW, .out = out};
    must(qy_step_begin(cache, &slice, 1, &err), &err);
    must(qy_step_attend(cache, 0, &qkv), &err);
    must(qy_step_end(cache), &err);
}

int main(void)
{
    const struct qy_team_params team = {.n_threads = 1, .spin_us = 0};
    const struct qy_device_params device = {.spec = "host", .max_m = 1};
    struct qy_error err = {.text = ""};
    struct qy_runtime rt = {.mem = qy_allocator_system()};
    struct qy_device *dev;
    struct qy_cache *cache;
    struct qy_sequence *seq;
    float chosen[OUT];
    float dense[OUT];
    double error = 0.0;
    double size = 0.0;

    qy_cpu_detect(&rt.cpu);
    must(qy_team_open(&rt.mem, &team, &rt.team, &err), &err);
    must(qy_device_open(&rt, &device, &dev, &err), &err);
    struct qy_cache_params params = {
        .rt = &rt,
        .dev = dev,
        .shape = {1, HEADS, KV_HEADS, D},
        .settings = {.block_tokens = BLOCK, .sinks = 8, .window = 64, .row_type = QY_ROW_F16},
        .policy = &pages, /* the only line that names it */
        .max_sequences = 1,
        .max_tokens = TOKENS + 2,
        .max_step_tokens = 1};
    must(qy_budget_parse("0.03", &params.budget, &err), &err);
    must(qy_cache_open(&params, &cache, &err), &err);
    must(qy_sequence_open(cache, &seq, &err), &err);
    while (qy_sequence_tokens(seq) < TOKENS) {
        step(cache, seq, 0, QY_ATTEND_DENSE, dense);
    }
    for (uint32_t at = 200; at < TOKENS - 200; at += 400) { /* ask for topics all over the text */
        step(cache, seq, at, QY_ATTEND_POLICY, chosen);
        must(qy_sequence_truncate(seq, TOKENS), &err);
        step(cache, seq, at, QY_ATTEND_DENSE, dense);
        must(qy_sequence_truncate(seq, TOKENS), &err);
        for (int i = 0; i < OUT; i++) {
            error += pow((double)chosen[i] - (double)dense[i], 2.0);
            size += pow((double)dense[i], 2.0);
        }
    }
    struct qy_cache_stats stats;
    qy_cache_stats(cache, &stats);
    printf("attended %.1f %% of the rows; difference from dense, as a share of its norm: %.3f\n",
           100.0 * (double)stats.attended_rows / (double)stats.total_rows, sqrt(error / size));
    qy_sequence_close(seq);
    qy_cache_close(cache);
    qy_device_close(dev);
    qy_team_close(rt.team);
    return error < 0.01 * size ? 0 : 1;
}
