/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing of the far home: the refusals, the store, its tables and staging. See home_far.h. */
#include "offload/cache.h"

#include <stdio.h>

/* chosen: more only waits in the disk's queue; see QYI_DISK_DEPTH */
enum { MOST_READS = 4096, PART_READS = 256 };
static const size_t most_staging = (size_t)8 << 20; /* of rows, of a micro-batch */

static int reads_rows(const struct qy_cache *cache)
{
    const struct qy_cache_params *p = &cache->params;
    const struct qy_policy_ops *ops = p->policy;

    if (ops->caps.dense || ops->caps.select_nothing) {
        return 0;
    }
    return !ops->reads_rows || ops->reads_rows(p->retrieval, (uint32_t)p->settings.window);
}

/* What asks for a far home, and where its rows are then, for messages. */
struct words {
    const char *setting, *place, *off;
};

static struct words words_of(const struct qy_cache_params *p)
{
    static const struct words of_disk = {"cache.disk_bytes", "on a disk",
                                         "set cache.disk_bytes = 0"};
    static const struct words of_servers = {"net.memory", "on memory servers",
                                            "leave net.memory empty"};

    return qyi_home_far_is_remote(p) ? of_servers : of_disk;
}

enum qy_status qyi_home_far_check(const struct qy_cache *cache, struct qy_error *err)
{
    const struct qy_cache_params *p = &cache->params;
    const struct words w = words_of(p);
    const enum qy_status st = qyi_far_score_check(cache, err);

    if (st != QY_OK || (p->settings.disk_bytes == 0 && !qyi_home_far_is_remote(p))) {
        return st;
    }
    if (p->settings.disk_bytes > 0 && qyi_home_far_is_remote(p)) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "cache.disk_bytes: with memory servers (net.memory) blocks go there; "
                            "set one of both to nothing");
    }
    if (qy_device_caps(cache->dev)->unified) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "%s: this device shares the host's memory and reads all rows there; "
                            "rows %s are for a device with memory of its own (--device "
                            "host-discrete:SIZE); %s",
                            w.setting, w.place, w.off);
    }
    if (reads_rows(cache)) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "%s: policy '%.60s' reads keys or values to choose, as it is set up; "
                            "with rows %s accepted are policies that choose by their index alone "
                            "(dense, window, quest, a2ats+ without retrieval.rerank = exact and "
                            "retrieval.estimate); %s",
                            w.setting, p->policy->name, w.place, w.off);
    }
    if (p->settings.prefetch != QY_PREFETCH_OFF) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "step.prefetch: rows %s are not pulled ahead of their choice; set "
                            "step.prefetch = off, or %s",
                            w.place, w.off);
    }
    if (cache->audit.rate > 0.0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "retrieval.audit_rate: an audit reads all rows, and with %s some are "
                            "%s; set retrieval.audit_rate = 0, or %s",
                            w.setting, w.place, w.off);
    }
    return QY_OK;
}

/* chosen: three times what the network may be late, as a link may be away later; and 5 s at least, for at
 * the start processes begin, which a busy machine takes its time for. */
static uint64_t open_ns(const struct qy_cache_servers *servers)
{
    const uint64_t least = 5000000000u;

    return 3 * servers->timeout_ns > least ? 3 * servers->timeout_ns : least;
}

enum qy_status qyi_home_far_connect(struct qy_cache *cache, struct qy_error *err)
{
    const struct qy_cache_params *p = &cache->params;

    if (!qyi_home_far_is_remote(p)) {
        return QY_OK;
    }
    const struct qyi_servers_params params = {.rt = cache->rt,
                                              .node = p->servers->node,
                                              .peers = p->servers->peers,
                                              .n = p->servers->n,
                                              .copies = p->servers->copies,
                                              .depth = p->servers->depth,
                                              .call_bytes = p->servers->call_bytes,
                                              .answer_bytes = p->servers->answer_bytes,
                                              .layout = &cache->layout,
                                              .group = cache->group,
                                              .scale = p->scale,
                                              .max_sequences = p->max_sequences,
                                              .max_blocks = cache->max_blocks,
                                              .book = qyi_far_score_book(cache),
                                              .timeout_ns = open_ns(p->servers)};
    const enum qy_status st = qyi_servers_open(&params, &cache->far.store, err);

    if (st == QY_OK) {
        cache->far.serials = qy_node_now(p->servers->node);
        cache->far.in_lists = cache->far.store->rows_bytes >= cache->layout.row_bytes;
    }
    return st;
}

/* Blocks that one step may fill. */
static uint32_t step_blocks(const struct qy_cache *cache)
{
    const struct qy_cache_params *p = &cache->params;

    return p->max_sequences + p->max_step_tokens / cache->layout.block_tokens + 1;
}

uint64_t qyi_home_far_usual(const struct qy_cache *cache)
{
    return qyi_home_far_least(cache) + (uint64_t)2 * step_blocks(cache);
}

uint64_t qyi_home_far_blocks(const struct qy_cache *cache)
{
    return qyi_home_far_is_remote(&cache->params)
               ? qyi_servers_room(cache->far.store)
               : cache->params.settings.disk_bytes / cache->layout.block_bytes;
}

static size_t pages(size_t bytes)
{
    return (bytes + QYI_DISK_PAGE - 1) / QYI_DISK_PAGE * QYI_DISK_PAGE;
}

/* Staging of a stage: a segment's parts of one layer, each with pages that it shares with others. */
static size_t part_bytes(const struct qy_cache *cache)
{
    const struct qyi_layout *l = &cache->layout;
    const size_t part = pages((size_t)l->n_kv_heads * l->slab_bytes) + QYI_DISK_PAGE;
    const size_t index = pages((size_t)l->n_kv_heads * l->index_slab_bytes) + QYI_DISK_PAGE;
    const size_t blocks =
        l->block_tokens < QYI_SEGMENT_TOKENS ? QYI_SEGMENT_TOKENS / l->block_tokens : 1;

    return blocks * part + index;
}

/* Staging of rows: of all rows or slabs that a micro-batch can ask for, or a part of that at a time. */
static size_t rows_bytes(const struct qy_cache *cache)
{
    const struct qyi_layout *l = &cache->layout;
    const size_t span = pages(l->slab_bytes) + QYI_DISK_PAGE;
    const size_t lists =
        cache->ids_capacity < cache->max_blocks ? cache->ids_capacity : cache->max_blocks;
    const size_t list = cache->far.in_lists
                            ? cache->ids_capacity * l->row_bytes + QYI_SERVERS_GRANULE
                            : lists * span;
    const size_t all = pages(qyi_cache_items(cache) * list);

    return all > most_staging ? pages(most_staging > span ? most_staging : span) : all + span;
}

/* Of an item's table of where its rows are in the staging. */
static size_t table_blocks(const struct qy_cache *cache)
{
    return cache->far.in_lists ? 1 : cache->max_blocks;
}

static size_t footer_bytes(const struct qyi_layout *l)
{
    return sizeof(struct qyi_footer) + l->n_sums * sizeof(uint64_t);
}

static size_t reads_bytes(void)
{
    return sizeof(struct qyi_store_request) + sizeof(struct qy_sequence *) + sizeof(uint32_t);
}

uint64_t qyi_home_far_bytes(const struct qy_cache *cache, uint64_t n_slots, uint64_t n_ids)
{
    const struct qyi_layout *l = &cache->layout;
    const size_t items = qyi_cache_items(cache);

    if (n_slots == 0) {
        return 0;
    }
    const uint64_t moves = qyi_home_far_is_remote(&cache->params)
                               ? qyi_servers_move_bytes(cache->params.servers->n, l->block_bytes)
                               : 0;
    return n_slots * (sizeof(uint32_t) + footer_bytes(l) +
                      l->block_bytes / QYI_DISK_PAGE * sizeof(uint64_t)) +
           n_ids * (2 * sizeof(uint32_t) + sizeof(uint64_t)) +
           QY_MICRO_BATCHES * (rows_bytes(cache) + MOST_READS * reads_bytes()) +
           QYI_FAR_PARTS * (part_bytes(cache) + PART_READS * reads_bytes()) +
           items * (sizeof(uint32_t) + table_blocks(cache) * sizeof(uint8_t *) +
                    sizeof(struct qy_gather_item)) +
           (uint64_t)3 * cache->ids_capacity * sizeof(uint32_t) + qyi_far_push_bytes(cache) +
           qyi_far_chunk_bytes(cache) + qyi_far_score_bytes(cache) + moves;
}

static int open_reads(const struct qy_allocator *mem, uint32_t capacity, size_t bytes,
                      struct qyi_far_reads *r)
{
    r->capacity = capacity;
    r->bytes = bytes;
    r->requests = qy_alloc_zero(mem, capacity * sizeof(*r->requests));
    r->seqs = qy_alloc_zero(mem, capacity * sizeof(*r->seqs));
    r->blocks = qy_alloc_zero(mem, capacity * sizeof(*r->blocks));
    r->staging = mem->alloc(mem->ctx, bytes, QYI_DISK_PAGE);
    return !r->requests || !r->seqs || !r->blocks || !r->staging;
}

static void close_reads(const struct qy_allocator *mem, struct qyi_far_reads *r)
{
    qy_free(mem, r->staging);
    qy_free(mem, r->blocks);
    qy_free(mem, r->seqs);
    qy_free(mem, r->requests);
}

static int open_lists(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    const size_t items = qyi_cache_items(cache);
    const size_t ids = cache->home.n_ids;
    struct qyi_home_far *d = &cache->far;
    int missing = 0;

    d->free_slots = qy_alloc_zero(mem, d->n_slots * sizeof(*d->free_slots));
    d->slots = qy_alloc_zero(mem, ids * sizeof(*d->slots));
    d->last_use = qy_alloc_zero(mem, ids * sizeof(*d->last_use));
    d->footers = qy_alloc_zero(mem, d->n_slots * d->footer_bytes);
    const int sums = !qyi_home_far_is_remote(&cache->params); /* servers check what they answer */
    if (sums) {
        d->sums = qy_alloc_zero(mem, (size_t)d->n_slots * d->slot_pages * sizeof(*d->sums));
    }
    d->n_ram = qy_alloc_zero(mem, items * sizeof(*d->n_ram));
    d->tables = qy_alloc_zero(mem, items * table_blocks(cache) * sizeof(*d->tables));
    d->gathers = qy_alloc_zero(mem, items * sizeof(*d->gathers));
    d->scratch = qy_alloc_zero(mem, (size_t)2 * cache->ids_capacity * sizeof(*d->scratch));
    d->in_order = qy_alloc_zero(mem, cache->ids_capacity * sizeof(*d->in_order));
    for (uint32_t i = 0; d->in_order && i < cache->ids_capacity; i++) {
        d->in_order[i] = i;
    }
    for (int i = 0; i < QY_MICRO_BATCHES; i++) {
        missing |= open_reads(mem, MOST_READS, rows_bytes(cache), &d->rows[i].reads);
    }
    for (int i = 0; i < QYI_FAR_PARTS; i++) {
        missing |= open_reads(mem, PART_READS, part_bytes(cache), &d->parts[i]);
    }
    missing |= qyi_far_push_open(cache) | qyi_far_chunk_open(cache) | qyi_far_score_open(cache);
    return missing || !d->free_slots || !d->slots || !d->last_use || !d->footers ||
           (sums && !d->sums) || !d->n_ram || !d->tables || !d->gathers || !d->scratch ||
           !d->in_order;
}

static enum qy_status open_disk(struct qy_cache *cache, uint32_t n_slots, struct qy_error *err)
{
    const struct qy_cache_settings *s = &cache->params.settings;
    const struct qyi_disk_params params = {.rt = cache->rt,
                                           .folder = s->disk_path,
                                           .bytes = (uint64_t)n_slots * cache->layout.block_bytes,
                                           .slot_bytes = cache->layout.block_bytes,
                                           .engine = (enum qyi_disk_choice)s->disk_engine};

    return qyi_disk_open(&params, &cache->far.store, err);
}

/* Host memory holds all blocks that may be asked for. */
static void not_needed(struct qy_cache *cache)
{
    if (qyi_home_far_is_remote(&cache->params)) {
        qy_log_write(&cache->rt->log, QY_LOG_INFO, "offload",
                     "memory servers: host memory holds all that may be asked for: they are not "
                     "used; a smaller cache.host_bytes uses them");
        qyi_store_close(cache->far.store);
        cache->far.store = NULL;
    } else if (cache->params.settings.disk_bytes > 0) {
        qy_log_write(&cache->rt->log, QY_LOG_INFO, "offload",
                     "disk: host memory holds all that may be asked for: no file is opened");
    }
}

enum qy_status qyi_home_far_open(struct qy_cache *cache, uint32_t n_slots, struct qy_error *err)
{
    const struct qyi_layout *l = &cache->layout;
    const int remote = qyi_home_far_is_remote(&cache->params);
    struct qyi_home_far *d = &cache->far;
    const uint32_t frames = qy_pool_total(cache->home.pool);
    const uint32_t step = step_blocks(cache);

    if (n_slots == 0) {
        not_needed(cache);
        return QY_OK;
    }
    d->n_slots = n_slots;
    d->slot_pages = (uint32_t)(l->block_bytes / QYI_DISK_PAGE);
    d->footer_bytes = footer_bytes(l);
    d->timeout_ns = (uint64_t)cache->params.settings.copy_timeout_ms * 1000000;
    d->low_water = step < frames / 4 ? step : frames / 4;
    d->low_water += d->low_water == 0;
    if (remote) {
        /* chosen: a read asks each server that has a copy in turn, a timeout each; the last one is waited
         * for until it counts as gone, after three more; and a timeout to spare */
        const uint64_t least =
            (4 + (uint64_t)cache->params.servers->copies) * cache->params.servers->timeout_ns;

        d->timeout_ns = d->timeout_ns > least ? d->timeout_ns : least;
        d->low_water = frames; /* blocks leave as soon as they may: their home is there */
    }
    if (open_lists(cache)) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "cache: out of memory for the tables of %u blocks %s", n_slots,
                            words_of(&cache->params).place);
    }
    for (uint32_t i = 0; i < n_slots; i++) {
        d->free_slots[d->n_free++] = n_slots - 1 - i;
    }
    if (!remote) {
        return open_disk(cache, n_slots, err);
    }
    const enum qy_status st = qyi_servers_reserve(d->store, n_slots, err);
    return st == QY_OK ? qyi_far_cost_measure(cache, err) : st;
}

void qyi_home_far_close(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    struct qyi_home_far *d = &cache->far;

    qyi_store_close(d->store);
    qyi_far_push_close(cache);
    qyi_far_chunk_close(cache);
    qyi_far_score_close(cache);
    for (int i = 0; i < QYI_FAR_PARTS; i++) {
        close_reads(mem, &d->parts[i]);
    }
    for (int i = 0; i < QY_MICRO_BATCHES; i++) {
        close_reads(mem, &d->rows[i].reads);
    }
    qy_free(mem, d->in_order);
    qy_free(mem, d->scratch);
    qy_free(mem, d->gathers);
    qy_free(mem, d->tables);
    qy_free(mem, d->n_ram);
    qy_free(mem, d->sums);
    qy_free(mem, d->footers);
    qy_free(mem, d->last_use);
    qy_free(mem, d->slots);
    qy_free(mem, d->free_slots);
}

struct qyi_footer *qyi_home_far_footer(const struct qy_sequence *seq, uint32_t b)
{
    const struct qyi_home_far *d = &seq->cache->far;
    const uint32_t slot = d->slots[seq->blocks[b]] - 1;

    return (struct qyi_footer *)(void *)(d->footers + slot * d->footer_bytes);
}

enum qy_status qyi_home_far_failed(struct qy_cache *cache, enum qy_status status,
                                   const struct qy_sequence *seq, uint32_t block, const char *why)
{
    snprintf(cache->far.fault, sizeof(cache->far.fault), "%s: sequence %u block %u: %s",
             cache->far.store->word, seq->slot, block, why);
    return status;
}

const char *qy_cache_fault(const struct qy_cache *cache)
{
    return cache->far.fault;
}
