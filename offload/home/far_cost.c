/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rows on memory servers cost a plan (plan.h), measured at open: a block is put, and asked for.
 *
 *   row    ROWS of one row, and of ITEMS * n rows in one answer    the difference, per row more
 *   push   ATTEND of one item of a row, and of ITEMS of them       the difference, per item more
 *          ATTEND of ITEMS items of n rows                         the difference, per row more
 *
 * What a question costs beside is left out: pulls and pushes of a layer are on their way together, and
 * wait for their answers but once. Rows of a push are shared out to the servers, which work side by side;
 * rows of a pull all come in at one place. Each time is the least of RUNS.
 *
 * What chunks cost (plan_chunk.h) is measured with the same block: far_chunk_cost.c.
 *
 * chosen: one block at one server, whose rows lie in its caches: several would take longer to put than
 * what a plan gains by them. Servers differ as little as their hosts do.
 */
#include "offload/cache.h"

#include <string.h>

enum { RUNS = 5, ITEMS = 8, ALIGN = 64 };

struct trial {
    const struct qy_cache *cache;
    uint32_t layer, n; /* rows of an item */
    size_t row_bytes;
    uint8_t *block, *rows; /* rows [ITEMS * n] */
    uint32_t *ids, *slots; /* [n] */
    float *q, *out;        /* [group][d], [ITEMS][group][d + 1] */
};

static void trial_close(struct trial *t)
{
    const struct qy_allocator *mem = &t->cache->rt->mem;

    qy_free(mem, t->out);
    qy_free(mem, t->q);
    qy_free(mem, t->slots);
    qy_free(mem, t->ids);
    qy_free(mem, t->rows);
    qy_free(mem, t->block);
}

/* Rows of zeros, sealed. */
static int trial_open(const struct qy_cache *cache, struct trial *t)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    const struct qyi_layout *l = &cache->layout;
    const size_t floats = qyi_group_floats(cache);

    *t = (struct trial){.cache = cache, .layer = l->n_layers / 2};
    t->row_bytes = qyi_layout_home_row(l, t->layer);
    t->n = (uint32_t)(cache->far.store->rows_bytes / t->row_bytes);
    t->n = t->n < l->block_tokens ? t->n : l->block_tokens;
    t->n += t->n == 0; /* a store that hands out no rows */
    t->block = mem->alloc(mem->ctx, l->block_bytes, ALIGN);
    t->rows = qy_alloc_zero(mem, ITEMS * t->n * t->row_bytes);
    t->ids = qy_alloc_zero(mem, t->n * sizeof(*t->ids));
    t->slots = qy_alloc_zero(mem, t->n * sizeof(*t->slots));
    t->q = qy_alloc_zero(mem, floats * sizeof(*t->q));
    t->out = qy_alloc_zero(mem, ITEMS * (floats + cache->group) * sizeof(*t->out));
    if (!t->block || !t->rows || !t->ids || !t->slots || !t->q || !t->out) {
        return 0;
    }
    for (uint32_t i = 0; i < t->n; i++) {
        t->ids[i] = i;
    }
    memset(t->block, 0, l->block_bytes);
    qyi_block_footer(l, t->block)->n_slabs = l->n_slabs;
    for (size_t i = 0; i < l->n_sums; i++) {
        qyi_block_sums(l, t->block)[i] = qyi_block_sum(l, t->block, i);
    }
    return 1;
}

static struct qyi_store_request request(const struct trial *t, enum qyi_store_op op, uint32_t i,
                                        uint32_t n)
{
    const struct qy_cache *cache = t->cache;
    const size_t floats = qyi_group_floats(cache);
    float *out = t->out + i * (floats + cache->group);
    struct qyi_store_request r = {
        .op = op,
        .data = t->rows + (size_t)i * n * t->row_bytes,
        .bytes = n * t->row_bytes,
        .list = {.ids = t->ids, .n = n, .layer = t->layer, .head = i % cache->layout.n_kv_heads}};

    if (op == QYI_STORE_ATTEND) {
        r.data = out;
        r.bytes = (floats + cache->group) * sizeof(float);
        r.list.slots = t->slots;
        r.list.place = qyi_store_where(cache->far.store, 0);
        r.list.q = t->q;
        r.list.lse = out + floats;
    }
    return r;
}

static enum qy_status run(const struct qy_cache *cache, struct qyi_store_request *requests,
                          uint32_t n)
{
    struct qyi_store *store = cache->far.store;
    struct qyi_store_batch batch = {.requests = requests, .n = n};
    enum qy_status st = qyi_store_submit(store, &batch);

    if (st == QY_OK) {
        st = qyi_store_wait(store, &batch, cache->far.timeout_ns);
    }
    while (batch.n_left > 0 && qyi_store_reset(store, UINT64_MAX) != QY_OK) {
        /* the requests lie on a stack */
    }
    return st;
}

enum qy_status qyi_far_cost_run(const struct qy_cache *cache, struct qyi_store_request *requests,
                                uint32_t n, int times, double *ns)
{
    enum qy_status st = QY_OK;

    for (int i = 0; st == QY_OK && i < times; i++) {
        const uint64_t begin = qy_clock_ns();
        st = run(cache, requests, n);
        const double took = (double)(qy_clock_ns() - begin);
        if (ns != NULL && (i == 0 || took < *ns)) {
            *ns = took;
        }
    }
    return st;
}

/* n_items lists of n rows. */
static enum qy_status time_lists(const struct trial *t, enum qyi_store_op op, uint32_t n_items,
                                 uint32_t n, double *ns)
{
    struct qyi_store_request requests[ITEMS];

    for (uint32_t k = 0; k < n_items; k++) {
        requests[k] = request(t, op, k, n);
    }
    return qyi_far_cost_run(t->cache, requests, n_items, RUNS, ns);
}

/* More things took longer: how much, each. */
static double each(double few, double many, uint32_t more)
{
    return many > few && more > 0 ? (many - few) / more : 0.0;
}

static enum qy_status measure(const struct trial *t, struct qyi_plan_costs *costs)
{
    double row = 0.0, rows = 0.0, item = 0.0, items = 0.0, full = 0.0;
    enum qy_status st = time_lists(t, QYI_STORE_ROWS, 1, 1, &row);

    if (st == QY_OK) {
        st = time_lists(t, QYI_STORE_ROWS, ITEMS, t->n, &rows);
    }
    if (st == QY_OK) {
        st = time_lists(t, QYI_STORE_ATTEND, 1, 1, &item);
    }
    if (st == QY_OK) {
        st = time_lists(t, QYI_STORE_ATTEND, ITEMS, 1, &items);
    }
    if (st == QY_OK) {
        st = time_lists(t, QYI_STORE_ATTEND, ITEMS, t->n, &full);
    }
    if (st == QY_OK) {
        costs->link_row_ns += each(row, rows, ITEMS * t->n - 1);
        costs->push_ns = each(item, items, ITEMS - 1);
        costs->push_row_ns = each(items, full, ITEMS * (t->n - 1)) / t->cache->far.store->n_places;
    }
    return st;
}

/* With a block of zeros in slot 0, which is given back. */
static enum qy_status measure_all(struct qy_cache *cache, const struct trial *t, int lists,
                                  int chunks)
{
    struct qyi_push *push = &cache->tier.push;
    struct qyi_plan_costs costs =
        push->params.costs; /* rows that came still cross the device's link */
    struct qyi_store_request put = {
        .op = QYI_STORE_WRITE,
        .data = t->block,
        .bytes = cache->layout.block_bytes,
        .name = {.serial = cache->far.serials + 1, .generation = ++cache->far.n_named}};
    enum qy_status st = run(cache, &put, 1);

    if (st != QY_OK) {
        return st;
    }
    if (lists) {
        st = measure(t, &costs);
    }
    if (st == QY_OK && lists) {
        costs.shared_threads = 0;
        push->far = push->params;
        push->far.costs = costs;
    }
    if (st == QY_OK && chunks) {
        st = qyi_far_chunk_measure(cache);
    }
    qyi_store_release(cache->far.store, 0);
    qyi_store_poll(cache->far.store);
    return st;
}

enum qy_status qyi_far_cost_measure(struct qy_cache *cache, struct qy_error *err)
{
    const int measures = cache->params.settings.plan_mode == QY_PLAN_AUTO;
    const int lists = measures && cache->tier.push.chosen && cache->far.in_lists;
    const int chunks = measures && cache->far.chunk.n_places > 0;
    struct trial t;

    if (!lists && !chunks) {
        return QY_OK;
    }
    if (!trial_open(cache, &t)) {
        trial_close(&t);
        return qy_error_set(err, QY_ERR_NOMEM,
                            "cache: out of memory for the trial of memory servers");
    }
    const enum qy_status st = measure_all(cache, &t, lists, chunks);
    *qyi_store_stats(cache->far.store) = (struct qyi_store_stats){0};
    trial_close(&t);
    if (st != QY_OK) {
        qy_log_write(&cache->rt->log, QY_LOG_WARN, "offload",
                     "memory servers: the trial of what rows there cost failed (%s): where it "
                     "says nothing rows are pulled; plan.mode = push pushes them",
                     qy_status_name(st));
    }
    return QY_OK;
}
