/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pushes of chunks (prefill): the queries of a chunk go to each memory server that has earlier blocks of its
 * sequence, and attend there to all rows of these; partials come back, and are merged here in the order of
 * the servers. What the device attends to meanwhile is tier_chunk.c's.
 *
 * A chunk is cut into *runs* of tokens, so that each question and its answer fit into a message and the
 * server is done with it soon. Two runs are under way, each with a question to every server: one is attended
 * to while the next is on its way. Memory is that of two runs and one chunk, whatever the context.
 *
 *   look     which blocks servers would attend to: those in the store, in units of what the kernel takes a
 *            part of, so that the others can be attended to in parts
 *   ask      the first two runs
 *   poll     between parts of the device's own work
 *   answer   what is left
 *
 * A question that is not answered as it should be ends the push: what came is thrown away, and the slice is
 * pulled in this layer, from other copies or when the server is back. A server that says that it never could
 * (E2BIG) is taken at its word, and chunks are pulled from then on.
 */
#include "offload/cache.h"

#include <errno.h>
#include <string.h>

/* Tokens of a unit: parts of the chunk kernel's rows begin at multiples of it (gpu.h). */
enum { UNIT_TOKENS = 64 };

static uint32_t n_heads(const struct qy_cache *cache)
{
    return cache->params.shape.n_heads;
}

/* ---- memory ----------------------------------------------------------------------------------- */

/* Tokens of a question with n_blocks blocks, by its bytes and its answer's. */
static uint32_t fitting_tokens(const struct qy_cache *cache, uint32_t n_blocks)
{
    const struct qy_cache_servers *servers = cache->params.servers;
    const size_t blocks = n_blocks * sizeof(uint32_t);
    const size_t q_bytes = qyi_token_floats(cache) * sizeof(float);
    const size_t ask = servers->call_bytes > blocks ? (servers->call_bytes - blocks) / q_bytes : 0;
    const size_t answer = servers->answer_bytes / (q_bytes + n_heads(cache) * sizeof(float));
    const size_t most = ask < answer ? ask : answer;

    return most < cache->params.max_step_tokens ? (uint32_t)most : cache->params.max_step_tokens;
}

/* With step.deterministic chunks are pulled: partials have other bits than one sum. */
int qyi_far_chunk_wanted(const struct qy_cache *cache)
{
    return qyi_home_far_is_remote(&cache->params) &&
           cache->params.settings.plan_mode != QY_PLAN_PULL && !cache->cuts_lists &&
           cache->params.max_step_tokens > 1 && fitting_tokens(cache, 1) > 0;
}

/* Of all servers: tokens that a run has partials of. */
static size_t run_partials(const struct qy_cache *cache)
{
    return (size_t)cache->params.servers->n * fitting_tokens(cache, 1);
}

uint64_t qyi_far_chunk_bytes(const struct qy_cache *cache)
{
    const struct qy_cache_params *p = &cache->params;
    const size_t partial = (qyi_token_floats(cache) + n_heads(cache)) * sizeof(float);

    if (!qyi_far_chunk_wanted(cache)) {
        return 0;
    }
    return (uint64_t)p->max_step_tokens *
               (partial + qyi_token_floats(cache) * sizeof(float) + sizeof(struct qy_copy_item)) +
           sizeof(struct qy_copy_item) +
           QYI_FAR_RUNS *
               (run_partials(cache) * partial + p->servers->n * sizeof(struct qyi_store_request)) +
           cache->max_blocks * (sizeof(uint32_t) + 1) + p->max_sequences;
}

static int open_run(struct qy_cache *cache, struct qyi_far_run *run)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    const size_t partials = run_partials(cache);

    run->requests = qy_alloc_zero(mem, cache->params.servers->n * sizeof(*run->requests));
    run->out = qy_alloc_zero(mem, partials * qyi_token_floats(cache) * sizeof(*run->out));
    run->lse = qy_alloc_zero(mem, partials * n_heads(cache) * sizeof(*run->lse));
    return !run->requests || !run->out || !run->lse;
}

int qyi_far_chunk_open(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    const size_t tokens = cache->params.max_step_tokens;
    struct qyi_far_chunk *c = &cache->far.chunk;
    int missing = 0;

    if (!qyi_far_chunk_wanted(cache)) {
        return 0;
    }
    c->n_places = cache->params.servers->n;
    c->most_tokens = fitting_tokens(cache, 1);
    c->mode = (enum qy_plan_mode)cache->params.settings.plan_mode;
    c->mode = c->mode == QY_PLAN_AUTO ? QY_PLAN_PULL : c->mode; /* until costs are known */
    c->q = qy_alloc_zero(mem, tokens * qyi_token_floats(cache) * sizeof(*c->q));
    c->out = qy_alloc_zero(mem, tokens * qyi_token_floats(cache) * sizeof(*c->out));
    c->lse = qy_alloc_zero(mem, tokens * n_heads(cache) * sizeof(*c->lse));
    c->place = qy_alloc_zero(mem, cache->max_blocks);
    c->slots = qy_alloc_zero(mem, cache->max_blocks * sizeof(*c->slots));
    c->done = qy_alloc_zero(mem, cache->params.max_sequences);
    c->copies = qy_alloc_zero(mem, (tokens + 1) * sizeof(*c->copies));
    for (int i = 0; i < QYI_FAR_RUNS; i++) {
        missing |= open_run(cache, &c->runs[i]);
    }
    return missing || !c->q || !c->out || !c->lse || !c->place || !c->slots || !c->done ||
           !c->copies;
}

void qyi_far_chunk_close(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    struct qyi_far_chunk *c = &cache->far.chunk;

    for (int i = 0; i < QYI_FAR_RUNS; i++) {
        qy_free(mem, c->runs[i].lse);
        qy_free(mem, c->runs[i].out);
        qy_free(mem, c->runs[i].requests);
    }
    qy_free(mem, c->copies);
    qy_free(mem, c->done);
    qy_free(mem, c->slots);
    qy_free(mem, c->place);
    qy_free(mem, c->lse);
    qy_free(mem, c->out);
    qy_free(mem, c->q);
}

/* ---- where blocks are ------------------------------------------------------------------------- */

/* 1 + the server that would attend to the block; 0: nobody would. */
static uint8_t place_of(const struct qy_sequence *seq, uint32_t b)
{
    const uint32_t server =
        seq->homes[b] ? UINT32_MAX : qyi_store_where(seq->cache->far.store, qyi_far_slot(seq, b));

    return server == UINT32_MAX ? 0 : (uint8_t)(1 + server);
}

/* Places of the slice's earlier blocks: of whole units, or none of the unit's. */
static void find_places(struct qyi_far_chunk *c, const struct qy_sequence *seq)
{
    const uint32_t tokens = seq->cache->layout.block_tokens;
    const uint32_t unit = tokens < UNIT_TOKENS ? UNIT_TOKENS / tokens : 1;

    memset(c->place, 0, seq->n_blocks);
    for (uint32_t first = 0; first + unit <= seq->device_from; first += unit) {
        uint32_t n = 0;

        while (n < unit && (c->place[first + n] = place_of(seq, first + n)) != 0) {
            n++;
        }
        if (n < unit) {
            memset(c->place + first, 0, unit);
        }
    }
}

/* Slots by place, each place's in the order of blocks; the blocks of the place that has most. */
static uint32_t sort_slots(struct qyi_far_chunk *c, const struct qy_sequence *seq)
{
    uint32_t counts[1 + QYI_SERVERS_MOST] = {0};
    uint32_t next[1 + QYI_SERVERS_MOST];
    uint32_t most = 0;
    uint32_t at = 0;

    for (uint32_t b = 0; b < seq->device_from; b++) {
        counts[c->place[b]]++;
    }
    for (uint32_t i = 0; i < c->n_places; i++) {
        c->first_slot[i] = at;
        next[1 + i] = at;
        at += counts[1 + i];
        most = counts[1 + i] > most ? counts[1 + i] : most;
    }
    c->first_slot[c->n_places] = at;
    for (uint32_t b = 0; b < seq->device_from; b++) {
        if (c->place[b] > 0) {
            c->slots[next[c->place[b]]++] = qyi_far_slot(seq, b);
        }
    }
    return most;
}

struct qyi_chunk_work qyi_far_chunk_look(struct qy_cache *cache, uint32_t layer, uint32_t slice)
{
    const struct qyi_slice *s = &cache->step.slices[slice];
    const struct qyi_layout *l = &cache->layout;
    struct qyi_far_chunk *c = &cache->far.chunk;

    find_places(c, s->seq);
    const uint32_t most = sort_slots(c, s->seq);
    const uint32_t far_rows = c->first_slot[c->n_places] << l->shift;
    struct qyi_chunk_work work = {.n_tokens = s->n_tokens,
                                  .n_heads = n_heads(cache),
                                  .own_rows = s->first + s->n_tokens - far_rows,
                                  .far_rows = far_rows,
                                  .most_rows = most << l->shift,
                                  .row_bytes =
                                      (uint32_t)(l->n_kv_heads * qyi_layout_home_row(l, layer))};

    if (far_rows == 0) {
        return work;
    }
    const uint64_t by_work =
        cache->far.store->chunk_work / (qyi_token_floats(cache) * (uint64_t)work.most_rows);
    c->run_tokens = fitting_tokens(cache, most);
    c->run_tokens = by_work < c->run_tokens ? (uint32_t)by_work : c->run_tokens;
    for (uint32_t i = 0; i < c->n_places; i++) {
        work.n_places += c->first_slot[i + 1] > c->first_slot[i];
    }
    if (c->run_tokens > 0) { /* runs of a length */
        work.n_runs = (s->n_tokens + c->run_tokens - 1) / c->run_tokens;
        c->run_tokens = (s->n_tokens + work.n_runs - 1) / work.n_runs;
    }
    return work;
}

/* ---- asked and answered ----------------------------------------------------------------------- */

/* The next tokens, if there are some; a run that cannot start ends the push. */
static void start(struct qy_cache *cache, struct qyi_far_run *run)
{
    struct qyi_far_chunk *c = &cache->far.chunk;
    const uint32_t left = c->n_tokens - c->next;
    const size_t floats = qyi_token_floats(cache);
    uint32_t n = 0;

    run->n = 0;
    if (c->failed || left == 0) {
        return;
    }
    run->first = c->next;
    run->n = left < c->run_tokens ? left : c->run_tokens;
    for (uint32_t i = 0; i < c->n_places; i++) {
        const uint32_t begin = c->first_slot[i];
        const size_t tokens = (size_t)n * run->n; /* of the servers before */

        if (c->first_slot[i + 1] == begin) {
            continue;
        }
        run->requests[n++] =
            (struct qyi_store_request){.op = QYI_STORE_CHUNK,
                                       .slot = c->slots[begin],
                                       .data = run->out + tokens * floats,
                                       .bytes = run->n * (floats + n_heads(cache)) * sizeof(float),
                                       .list = {.slots = c->slots + begin,
                                                .n = c->first_slot[i + 1] - begin,
                                                .layer = c->layer,
                                                .place = i,
                                                .q = c->q + run->first * floats,
                                                .lse = run->lse + tokens * n_heads(cache),
                                                .n_q = run->n}};
    }
    run->batch = (struct qyi_store_batch){.requests = run->requests, .n = n};
    if (qyi_store_submit(cache->far.store, &run->batch) != QY_OK) {
        run->batch.n_left = 0;
        run->n = 0;
        c->failed = 1;
        return;
    }
    c->next += run->n;
}

/* The answers of a run that is done. */
static void take(struct qy_cache *cache, struct qyi_far_run *run)
{
    struct qyi_far_chunk *c = &cache->far.chunk;

    for (uint32_t i = 0; i < run->batch.n; i++) {
        if (run->requests[i].error == E2BIG) {
            c->mode = QY_PLAN_PULL;
        }
        c->failed |= run->requests[i].error != 0;
    }
    if (!c->failed) {
        c->failed =
            qy_device_merge(cache->dev, run->out, run->lse, run->batch.n, run->n * n_heads(cache),
                            cache->layout.head_dim, c->out + run->first * qyi_token_floats(cache),
                            c->lse + (size_t)run->first * n_heads(cache)) != QY_OK;
    }
}

/* The run that was started first is done: the next tokens take its place. */
static void go_on(struct qy_cache *cache)
{
    struct qyi_far_chunk *c = &cache->far.chunk;
    struct qyi_far_run *run = &c->runs[c->oldest];

    take(cache, run);
    start(cache, run);
    c->oldest = (c->oldest + 1) % QYI_FAR_RUNS;
}

void qyi_far_chunk_ask(struct qy_cache *cache, uint32_t layer, uint32_t n_tokens)
{
    struct qyi_far_chunk *c = &cache->far.chunk;

    c->layer = layer;
    c->n_tokens = n_tokens;
    c->next = 0;
    c->oldest = 0;
    c->failed = 0;
    for (int i = 0; i < QYI_FAR_RUNS; i++) {
        start(cache, &c->runs[i]);
    }
}

void qyi_far_chunk_poll(struct qy_cache *cache)
{
    struct qyi_far_chunk *c = &cache->far.chunk;

    if (c->n_places == 0 || c->runs[c->oldest].n == 0) {
        return;
    }
    qyi_store_poll(cache->far.store);
    while (c->runs[c->oldest].n > 0 && c->runs[c->oldest].batch.n_left == 0) {
        go_on(cache);
    }
}

enum qy_status qyi_far_chunk_answer(struct qy_cache *cache, int *good)
{
    struct qyi_far_chunk *c = &cache->far.chunk;

    while (c->runs[c->oldest].n > 0) {
        const struct qyi_far_run *run = &c->runs[c->oldest];

        if (qyi_store_wait(cache->far.store, &run->batch, cache->far.timeout_ns) ==
            QY_ERR_TIMEOUT) {
            return QY_ERR_TIMEOUT;
        }
        go_on(cache);
    }
    *good = !c->failed;
    return QY_OK;
}

int qyi_far_chunk_drop(struct qy_cache *cache)
{
    struct qyi_far_chunk *c = &cache->far.chunk;
    int pending = 0;

    for (int i = 0; i < QYI_FAR_RUNS; i++) {
        pending |= c->runs[i].batch.n_left > 0;
        c->runs[i].n = 0;
    }
    return pending;
}
