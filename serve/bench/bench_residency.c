/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry bench residency: how many of the rows that a step attends to were there before. One sequence
 * is decoded with the real model (-f FILE, its own continuation is fed), its selections are written
 * down, and then replayed through residency caches of several sizes and evictions. Nothing of this
 * depends on the device: the selections are those of any.
 */
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench.h"

/* Selections, as struct qy_selection_trace keeps them; grows while it is written. */
struct recorder {
    uint32_t n_layers, n_kv_heads, step;
    uint32_t *ids;
    uint64_t n_ids, room;
    uint64_t *begins; /* [n_steps * n_layers * n_kv_heads + 1] */
    uint64_t next;    /* begins below it are written            */
    int failed;       /* out of memory                          */
};

/* Writes begins up to that of list `list`: those in between are empty. */
static void begin_list(struct recorder *r, uint64_t list)
{
    for (; r->next <= list; r->next++) {
        r->begins[r->next] = r->n_ids;
    }
}

static void record(void *ctx, uint32_t sequence, uint32_t layer, uint32_t kv_head,
                   const uint32_t *ids, uint32_t n)
{
    struct recorder *r = ctx;
    (void)sequence; /* there is one */
    if (r->n_ids + n > r->room) {
        const uint64_t room = 2 * (r->n_ids + n) + 4096;
        uint32_t *grown = realloc(r->ids, room * sizeof *grown);
        if (grown == NULL) {
            r->failed = 1;
            return;
        }
        r->ids = grown;
        r->room = room;
    }
    begin_list(r, ((uint64_t)r->step * r->n_layers + layer) * r->n_kv_heads + kv_head);
    memcpy(r->ids + r->n_ids, ids, n * sizeof *ids);
    r->n_ids += n;
}

struct residency {
    struct qyi_engine engine;
    struct qy_sequence *seq;
    int32_t *text;
    size_t n_text;
    struct recorder recorder;
    struct qy_selection_trace trace;
    double mean_rows; /* of a layer that attends to lists, in one step */
};

static enum qy_status prefill(struct residency *b, struct qy_error *err)
{
    const struct qyi_args *args = b->engine.app->args;
    struct qyi_progress progress;
    size_t done = 0;
    enum qy_status st = qyi_read_ids(&b->engine, args->file, &b->text, &b->n_text, err);
    if (st == QY_OK && b->n_text < args->context) {
        st = qy_error_set(err, QY_ERR_CONFIG, "file '%s': has %zu tokens, --context asks for %llu",
                          args->file, b->n_text, (unsigned long long)args->context);
    }
    if (st == QY_OK) {
        st = qy_sequence_open(b->engine.cache, &b->seq, err);
    }
    if (st == QY_OK) {
        qyi_progress_start(&progress, "prefill", "tokens", args->context);
        st = qyi_engine_prefill(&b->engine, b->seq, b->text, args->context, 0, &progress, &done,
                                err);
        qyi_progress_end(&progress, done);
    }
    return st;
}

/* Decodes the text's continuation (from its beginning after its end). An interrupt ends it early. */
static enum qy_status decode(struct residency *b, struct qy_error *err)
{
    const struct qyi_args *args = b->engine.app->args;
    struct recorder *r = &b->recorder;
    const uint32_t row = 0;
    enum qy_status st = QY_OK;
    for (; st == QY_OK && r->step < args->steps && !qyi_interrupted(); r->step++) {
        const int32_t *next = &b->text[(args->context + r->step) % b->n_text];
        const struct qy_step_slice slice = {
            .seq = b->seq, .n_tokens = 1, .ids = next, .mode = QY_ATTEND_POLICY};
        /* not qyi_engine_forward: what it takes again would be counted twice */
        st = qy_model_forward(b->engine.model, b->engine.cache, &slice, 1, &row, 1,
                              b->engine.logits, err);
        if (st == QY_OK && r->failed) {
            st = qy_error_set(err, QY_ERR_NOMEM, "bench residency: out of memory for selections");
        }
    }
    return st;
}

/* What was recorded, as a trace; and the mean of rows. */
static enum qy_status finish(struct residency *b, struct qy_error *err)
{
    const struct qyi_app *app = b->engine.app;
    struct recorder *r = &b->recorder;
    uint64_t n_sets = 0;
    begin_list(r, (uint64_t)r->step * r->n_layers * r->n_kv_heads);
    for (uint64_t i = 0; i < (uint64_t)r->step * r->n_layers; i++) {
        n_sets += r->begins[(i + 1) * r->n_kv_heads] > r->begins[i * r->n_kv_heads];
    }
    if (n_sets == 0) {
        return qyi_interrupted()
                   ? QY_OK
                   : qy_error_set(err, QY_ERR_CONFIG,
                                  "bench residency: policy '%s' attended to all rows of %llu; give "
                                  "a longer --context, another --policy, or --set "
                                  "retrieval.min_tokens=0",
                                  b->engine.policy->name, (unsigned long long)app->args->context);
    }
    b->mean_rows = (double)r->n_ids / (double)n_sets;
    b->trace = (struct qy_selection_trace){.n_steps = r->step,
                                           .n_layers = r->n_layers,
                                           .n_kv_heads = r->n_kv_heads,
                                           .max_tokens = b->engine.max_tokens,
                                           .sinks = (uint32_t)app->cache.sinks,
                                           .window = (uint32_t)app->cache.window,
                                           .n_tokens = (uint32_t)app->args->context + 1,
                                           .ids = r->ids,
                                           .begins = r->begins};
    return QY_OK;
}

static double share(uint64_t part, uint64_t whole)
{
    return whole > 0 ? (double)part / (double)whole : 0;
}

/* One line, and one object, of a replay. */
static void show(const struct residency *b, const char *eviction, double capacity, uint32_t slots,
                 const struct qy_replay_result *result, cJSON *results)
{
    const uint32_t n_counted = b->trace.n_steps - b->trace.n_steps / 4;
    const uint64_t bytes = (uint64_t)n_counted * b->trace.n_layers * slots;
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "eviction", eviction);
    cJSON_AddNumberToObject(item, "capacity", capacity);
    cJSON_AddNumberToObject(item, "slots", slots);
    cJSON_AddNumberToObject(item, "hit_rate", share(result->hits, result->rows));
    cJSON_AddNumberToObject(item, "chosen_hit_rate",
                            share(result->chosen_hits, result->chosen_rows));
    cJSON_AddNumberToObject(item, "find_ns", share(result->find_ns, result->rows));
    cJSON_AddNumberToObject(item, "take_ns", share(result->take_ns, result->taken));
    cJSON_AddNumberToObject(item, "begin_ns", share(result->begin_ns, bytes));
    cJSON_AddItemToArray(results, item);
    if (!b->engine.app->args->json) {
        printf("%-8s %8.1f %8u %8.3f %8.3f %8.2f %8.1f %8.3f\n", eviction, capacity, slots,
               share(result->hits, result->rows), share(result->chosen_hits, result->chosen_rows),
               share(result->find_ns, result->rows), share(result->take_ns, result->taken),
               share(result->begin_ns, bytes));
    }
}

/* The same replay several times: counts do not differ, times are the least. */
static enum qy_status replay_again(const struct residency *b, const struct qy_replay_params *params,
                                   struct qy_replay_result *best, struct qy_error *err)
{
    enum { RUNS = 5 };
    const struct qy_allocator *mem = &b->engine.app->rt.mem;
    enum qy_status st = qy_residency_replay(mem, &b->trace, params, best, err);
    for (int i = 1; st == QY_OK && i < RUNS; i++) {
        struct qy_replay_result again;
        st = qy_residency_replay(mem, &b->trace, params, &again, err);
        if (st == QY_OK) {
            best->begin_ns = again.begin_ns < best->begin_ns ? again.begin_ns : best->begin_ns;
            best->find_ns = again.find_ns < best->find_ns ? again.find_ns : best->find_ns;
            best->take_ns = again.take_ns < best->take_ns ? again.take_ns : best->take_ns;
        }
    }
    return st;
}

static enum qy_status replay(const struct residency *b, cJSON *results, struct qy_error *err)
{
    static const char *const names[] = {
        [QY_EVICT_LRU] = "lru", [QY_EVICT_LFU] = "lfu", [QY_EVICT_CLOCK] = "clock"};
    static const double capacities[] = {1, 1.5, 2, 3, 4};
    enum qy_status st = QY_OK;
    if (!b->engine.app->args->json) {
        printf("%s, context %llu, %u steps: %.0f rows of a layer and step\n",
               b->engine.policy->name, (unsigned long long)b->engine.app->args->context,
               b->trace.n_steps, b->mean_rows);
        printf("%-8s %8s %8s %8s %8s %8s %8s %8s\n", "", "capacity", "slots", "hits", "chosen",
               "find ns", "take ns", "begin ns");
    }
    for (int e = QY_EVICT_LRU; e <= QY_EVICT_CLOCK; e++) {
        for (size_t c = 0; st == QY_OK && c < sizeof capacities / sizeof capacities[0]; c++) {
            const struct qy_replay_params params = {
                .eviction = (enum qy_eviction)e,
                .slots = (uint32_t)(capacities[c] * b->mean_rows + 0.999),
                .warm_up = b->trace.n_steps / 4};
            struct qy_replay_result result;
            st = replay_again(b, &params, &result, err);
            if (st == QY_OK) {
                show(b, names[e], capacities[c], params.slots, &result, results);
            }
        }
    }
    return st;
}

static enum qy_status report(const struct residency *b, struct qy_error *err)
{
    const struct qyi_args *args = b->engine.app->args;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "policy", b->engine.policy->name);
    cJSON_AddStringToObject(object, "budget", b->engine.budget_text);
    cJSON_AddNumberToObject(object, "context", (double)args->context);
    cJSON_AddNumberToObject(object, "steps", (double)b->trace.n_steps);
    cJSON_AddNumberToObject(object, "rows", b->mean_rows);
    const enum qy_status st = replay(b, cJSON_AddArrayToObject(object, "results"), err);
    if (st == QY_OK && args->json) {
        qyi_print_json(object);
    } else {
        cJSON_Delete(object);
    }
    return st;
}

static enum qy_status run(struct residency *b, struct qy_error *err)
{
    struct qyi_app *app = b->engine.app;
    const struct qyi_engine_params params = {.max_sequences = 1,
                                             .max_tokens =
                                                 (uint32_t)(app->args->context + app->args->steps),
                                             .max_step_tokens = (uint32_t)app->program.chunk,
                                             .max_logits = 1,
                                             .on_selection = record,
                                             .selection_ctx = &b->recorder};
    struct recorder *r = &b->recorder;
    enum qy_status st = qyi_engine_open_model(&b->engine, &params, err);
    if (st == QY_OK) {
        const struct qy_kv_shape shape = qy_model_kv_shape(b->engine.model);
        r->n_layers = shape.n_layers;
        r->n_kv_heads = shape.n_kv_heads;
        r->begins = calloc(app->args->steps * r->n_layers * r->n_kv_heads + 1, sizeof *r->begins);
        st = r->begins != NULL ? prefill(b, err)
                               : qy_error_set(err, QY_ERR_NOMEM, "bench residency: out of memory");
    }
    if (st == QY_OK) {
        st = decode(b, err);
    }
    if (st == QY_OK) {
        st = finish(b, err);
    }
    if (st == QY_OK && b->trace.n_steps > 0) {
        st = report(b, err);
    }
    return st;
}

enum qy_status qyi_bench_residency(struct qyi_app *app, struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    if (args->file == NULL || args->batch != 1 || args->context < 1 || args->context > (1u << 26) ||
        args->steps < 4 || args->steps > 100000) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "bench residency: needs -f FILE; --context 1 to 67108864, --steps 4 to "
                            "100000 and one sequence are accepted");
    }
    struct residency b = {0};
    enum qy_status st = qyi_engine_open_file(app, &b.engine, err);
    if (st != QY_OK) {
        return st;
    }
    st = run(&b, err);
    qy_sequence_close(b.seq);
    qy_free(&app->rt.mem, b.text);
    qyi_engine_close(&b.engine);
    free(b.recorder.begins);
    free(b.recorder.ids);
    return st;
}
