/* SPDX-License-Identifier: Apache-2.0 */
/* See learnt.h. */
#include "retrieval/learnt.h"

#include <string.h>

enum { TEAM_TOKENS = 256 }; /* fewer rows are read by the caller alone */

struct read_job {
    const struct qyi_learnt_read *items;
    uint32_t n;
};

/* x [n] f32 from n elements of a row. */
static void widen(const uint8_t *from, enum qy_row_type type, uint32_t n, float *x)
{
    if (type == QY_ROW_F32) {
        memcpy(x, from, n * sizeof(*x));
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint16_t half;

        memcpy(&half, from + (size_t)i * sizeof(half), sizeof(half));
        x[i] = qy_f32_from_f16(half);
    }
}

static void read_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct read_job *job = arg;
    size_t begin;
    size_t end;

    qy_team_range(job->n, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const struct qyi_learnt_read *it = &job->items[i];
        const uint32_t d = it->rows.d;
        const size_t half = qy_row_bytes(it->rows.type, d) / 2;

        for (uint32_t t = 0; t < it->n; t++) {
            const uint8_t *row = qy_row_at(&it->rows, it->first + t);

            widen(row, it->rows.type, d, it->k + (size_t)t * d);
            if (it->v) {
                widen(row + half, it->rows.type, d, it->v + (size_t)t * d);
            }
        }
    }
}

void qyi_learnt_read(const struct qy_runtime *rt, const struct qyi_learnt_read *items, uint32_t n)
{
    struct read_job job = {items, n};
    size_t tokens = 0;

    for (uint32_t i = 0; i < n; i++) {
        tokens += items[i].n;
    }
    qy_team_run(tokens < TEAM_TOKENS ? NULL : rt->team, read_run, &job);
}

uint32_t qyi_learnt_first_slab(const struct qy_policy_params *params)
{
    const int64_t dense = qyi_policy_settings(params)->dense_layers;

    if (dense <= 0) {
        return 0;
    }
    return (dense < params->n_layers ? (uint32_t)dense : params->n_layers) * params->n_kv_heads;
}

enum qy_status qyi_learnt_check(const struct qy_policy_params *params, const char *name,
                                uint64_t bytes, struct qy_error *err)
{
    struct qy_memory_info memory;
    char need[32];
    char usable[32];

    if (params->argument && params->argument[0] != '\0') {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "policy '%s:%.60s': '%s' takes no argument; leave out what follows it",
                            name, params->argument, name);
    }
    qy_memory_read(&memory);
    if (bytes > memory.usable) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "policy '%s': its index of %u sequences of up to %u tokens needs %s; "
                            "%s of memory is usable; lower --ctx or the number of sequences",
                            name, params->max_sequences, params->max_tokens,
                            qy_format_size(bytes, need, sizeof(need)),
                            qy_format_size(memory.usable, usable, sizeof(usable)));
    }
    return QY_OK;
}

enum qy_status qyi_learnt_select(const struct qy_runtime *rt, const struct qy_policy *policy,
                                 qyi_learnt_select_fn select, const struct qy_select_item *items,
                                 uint32_t n_items, struct qy_arena *arena)
{
    const uint32_t step = qyi_learnt_items(rt, n_items);

    for (uint32_t first = 0; first < n_items; first += step) {
        const uint32_t n = n_items - first < step ? n_items - first : step;
        const size_t mark = qy_arena_mark(arena);
        const enum qy_status st = select(policy, items + first, n, arena);

        qy_arena_rewind(arena, mark);
        if (st != QY_OK) {
            return st;
        }
    }
    return QY_OK;
}
