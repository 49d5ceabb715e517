/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of a memory server: opening and closing; what a server tells anybody. See memory_probe.h. */
#include "offload/memory/memory_probe_internal.h"

#include <string.h>

/* ---- one question ----------------------------------------------------------------------------- */

enum qy_status qyi_probe_not_answered(const struct qy_peer *peer, const char *what,
                                      enum qy_status st, struct qy_error *err)
{
    return qy_error_set(err, st,
                        "memory server '%s': %s was not answered (%s); is it still there, and is "
                        "net.timeout_ms long enough for this network?",
                        qy_peer_name(peer), what, qy_status_name(st));
}

static enum qy_status ask(struct qy_node *node, struct qy_peer *peer, struct qy_request *request)
{
    struct qy_op op = {.status = QY_OK};

    request->counts = &op;
    const enum qy_status st = qy_request_post(peer, request);
    return st == QY_OK ? qy_op_wait(node, &op) : st;
}

enum qy_status qy_memory_ask_state(struct qy_node *node, struct qy_peer *peer,
                                   struct qy_memory_state *state, struct qy_error *err)
{
    struct qyi_remote_state told;
    struct qyi_remote_reply reply;
    uint64_t payload[sizeof(told) / sizeof(uint64_t)];
    struct qy_request request = {
        .op = QYI_REMOTE_STATE, .reply = payload, .reply_capacity = sizeof(payload)};
    const enum qy_status st = ask(node, peer, &request);

    if (st != QY_OK && st != QY_ERR_INVALID) {
        return qyi_probe_not_answered(peer, "a question about its state", st, err);
    }
    if (st != QY_OK ||
        qyi_remote_reply_parse(request.reply_head, request.reply_head_bytes, &reply) != QY_OK ||
        qyi_remote_state_parse(payload, request.reply_bytes, &told) != QY_OK) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "memory server '%s': answers with something else than its state; run "
                            "the same version of quarry on both sides",
                            qy_peer_name(peer));
    }
    *state = (struct qy_memory_state){.protocol = told.version,
                                      .draining = reply.draining != 0,
                                      .sessions = told.sessions,
                                      .bytes = told.bytes,
                                      .block_bytes = told.block_bytes,
                                      .total_blocks = reply.total_blocks,
                                      .free_blocks = reply.free_blocks,
                                      .took_ns = request.took_ns};
    return QY_OK;
}

/* ---- opening and closing ---------------------------------------------------------------------- */

static enum qy_status make_layout(const struct qy_kv_shape *shape, uint32_t block_tokens,
                                  struct qyi_layout *layout, struct qy_error *err)
{
    const struct qy_cache_settings settings = {.block_tokens = block_tokens,
                                               .row_type = QY_ROW_F16};

    return qyi_layout_make(shape, &settings, 0, layout, err);
}

uint64_t qy_memory_block_bytes(const struct qy_kv_shape *shape, uint32_t block_tokens)
{
    struct qyi_layout layout;

    return make_layout(shape, block_tokens, &layout, NULL) == QY_OK ? layout.block_bytes : 0;
}

static enum qy_status check(const struct qy_memory_probe *p, struct qy_error *err)
{
    const struct qy_memory_probe_params *q = &p->params;
    const uint32_t heads = p->layout.n_kv_heads;
    const uint32_t floats = p->group * p->layout.head_dim;

    if (q->depth == 0 || q->n_blocks < q->depth || q->n_blocks > UINT32_MAX / q->block_tokens) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "probe of %u blocks, %u questions at once: at least 1 at once, and no "
                            "fewer blocks than that, are accepted",
                            q->n_blocks, q->depth);
    }
    if (q->max_rows < heads || (q->max_rows + heads - 1) / heads > p->n_tokens ||
        q->max_rows > q->answer_bytes / p->layout.row_bytes ||
        qyi_remote_parts(heads, q->max_rows, floats).bytes > q->call_bytes) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "probe: questions about '%u' rows of %zu bytes; a row of each of the "
                            "%u KV heads at least, and at most %u tokens of each, are accepted, "
                            "within a question of %zu and an answer of %zu bytes",
                            q->max_rows, p->layout.row_bytes, heads, p->n_tokens, q->call_bytes,
                            q->answer_bytes);
    }
    if (!qy_device_caps(q->dev)->unified) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "probe: device '%s' does not read the host's memory; give a unified "
                            "one, as 'host'",
                            qy_device_caps(q->dev)->name);
    }
    return QY_OK;
}

static int reserve_slots(struct qy_memory_probe *p)
{
    int missing = 0;

    p->slots = qy_alloc_zero(&p->mem, p->params.depth * sizeof(*p->slots));
    for (uint32_t i = 0; p->slots != NULL && i < p->params.depth; i++) {
        struct qyi_probe_slot *slot = &p->slots[i];

        slot->ids = qy_alloc_zero(&p->mem, p->params.max_rows * sizeof(*slot->ids));
        slot->payload = qy_alloc_zero(&p->mem, p->payload_bytes);
        slot->reply = qy_alloc_zero(&p->mem, p->reply_bytes);
        missing |= slot->ids == NULL || slot->payload == NULL || slot->reply == NULL;
    }
    return missing || p->slots == NULL;
}

static enum qy_status reserve(struct qy_memory_probe *p, struct qy_error *err)
{
    const struct qyi_layout *l = &p->layout;
    const uint32_t floats = p->group * l->head_dim;
    const uint32_t n = p->params.n_blocks;
    const size_t answer = qyi_probe_answer_bytes(p, QY_PROBE_ATTEND, 0);
    const size_t rows = p->params.max_rows * l->row_bytes;
    const uint32_t most = (p->params.max_rows + l->n_kv_heads - 1) / l->n_kv_heads;
    const size_t scratch =
        qy_device_attend_scratch(p->params.dev, l->n_kv_heads, most, p->group, l->head_dim);

    p->payload_bytes = qyi_remote_parts(l->n_kv_heads, p->params.max_rows, floats).bytes;
    p->reply_bytes = l->block_bytes > rows ? l->block_bytes : rows;
    p->reply_bytes = p->reply_bytes > answer ? p->reply_bytes : answer;
    p->memory = qy_alloc_zero(&p->mem, n * l->block_bytes);
    p->blocks = qy_alloc_zero(&p->mem, n * sizeof(*p->blocks));
    p->generations = qy_alloc_zero(&p->mem, n * sizeof(*p->generations));
    p->q = qy_alloc_zero(&p->mem, (size_t)l->n_kv_heads * floats * sizeof(*p->q));
    p->expected = qy_alloc_zero(&p->mem, p->reply_bytes);
    p->items = qy_alloc_zero(&p->mem, l->n_kv_heads * sizeof(*p->items));
    void *base = qy_alloc_zero(&p->mem, scratch);
    qy_arena_init(&p->arena, base, base != NULL ? scratch : 0);
    if (reserve_slots(p) || p->memory == NULL || p->blocks == NULL || p->generations == NULL ||
        p->q == NULL || p->expected == NULL || p->items == NULL || base == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "probe: out of memory for %u blocks of %zu bytes and %u questions", n,
                            l->block_bytes, p->params.depth);
    }
    for (uint32_t i = 0; i < n; i++) {
        p->blocks[i] = p->memory + i * l->block_bytes;
    }
    return QY_OK;
}

static enum qy_status open_session(struct qy_memory_probe *p, struct qy_error *err)
{
    _Alignas(64) uint8_t payload[sizeof(struct qyi_remote_open)];
    struct qy_request request = {.op = QYI_REMOTE_OPEN,
                                 .payload = payload,
                                 .payload_bytes = sizeof(payload),
                                 .timeout_ns = p->params.timeout_ns};

    qyi_remote_open_pack(&p->layout, p->group, 1, p->params.n_blocks, payload);
    const enum qy_status st = ask(p->params.node, p->params.peer, &request);
    if (st != QY_OK) {
        return qyi_probe_not_answered(p->params.peer, "the question for a session", st, err);
    }
    if (request.code != QYI_REMOTE_DONE) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "memory server '%s': takes no blocks of %zu bytes from here: %s; use a "
                            "server that is free, or give it more bytes",
                            qy_peer_name(p->params.peer), p->layout.block_bytes,
                            qyi_remote_code_name(request.code));
    }
    p->is_open = 1;
    return QY_OK;
}

static enum qy_status fill(struct qy_memory_probe *p, struct qy_error *err)
{
    struct qy_probe_batch batch = {
        .kind = QY_PROBE_PUT, .n = p->params.n_blocks, .depth = p->params.depth};

    qyi_probe_make(p);
    return qy_memory_probe_run(p, &batch, err);
}

enum qy_status qy_memory_probe_open(const struct qy_memory_probe_params *params,
                                    struct qy_memory_probe **probe, struct qy_error *err)
{
    struct qyi_layout layout;
    enum qy_status st = make_layout(&params->shape, params->block_tokens, &layout, err);

    if (st != QY_OK) {
        return st;
    }
    struct qy_memory_probe *p = qy_alloc_zero(&params->rt->mem, sizeof(*p));
    if (p == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "probe: out of memory at open");
    }
    p->params = *params;
    p->mem = params->rt->mem;
    p->layout = layout;
    p->group = params->shape.n_heads / params->shape.n_kv_heads;
    p->n_tokens = params->n_blocks * params->block_tokens;
    p->random = params->seed;
    p->serial = qy_clock_ns(); /* above that of an earlier probe of this process */
    st = check(p, err);
    if (st == QY_OK) {
        st = reserve(p, err);
    }
    if (st == QY_OK) {
        st = qy_peer_wait(params->peer, params->timeout_ns, err);
    }
    if (st == QY_OK) {
        st = open_session(p, err);
    }
    if (st == QY_OK) {
        st = fill(p, err);
    }
    if (st != QY_OK) {
        qy_memory_probe_close(p);
        return st;
    }
    *probe = p;
    return QY_OK;
}

/* Best effort: the server forgets the session anyway, when its grace time is over. */
static void give_back(struct qy_memory_probe *p)
{
    const struct qyi_remote_count count = {.n = 1};
    const struct qyi_remote_drop drop = {
        .serial = p->serial, .generation = p->made, .first = 0, .n = UINT32_MAX};
    uint64_t payload[sizeof(drop) / sizeof(uint64_t)];
    struct qy_request request = {.op = QYI_REMOTE_DROP,
                                 .head_bytes = sizeof(count),
                                 .payload = payload,
                                 .payload_bytes = sizeof(payload),
                                 .timeout_ns = p->params.timeout_ns};

    memcpy(request.head, &count, sizeof(count));
    memcpy(payload, &drop, sizeof(drop));
    const enum qy_status st = ask(p->params.node, p->params.peer, &request);
    if (st != QY_OK || request.code != QYI_REMOTE_DONE) {
        qy_log_write(&p->params.rt->log, QY_LOG_INFO, "probe",
                     "memory server '%s' did not take back its blocks: it frees them later",
                     qy_peer_name(p->params.peer));
    }
}

void qy_memory_probe_close(struct qy_memory_probe *p)
{
    if (p == NULL) {
        return;
    }
    if (p->is_open) {
        give_back(p);
    }
    for (uint32_t i = 0; p->slots != NULL && i < p->params.depth; i++) {
        qy_free(&p->mem, p->slots[i].reply);
        qy_free(&p->mem, p->slots[i].payload);
        qy_free(&p->mem, p->slots[i].ids);
    }
    qy_free(&p->mem, p->slots);
    qy_free(&p->mem, p->arena.base);
    qy_free(&p->mem, p->items);
    qy_free(&p->mem, p->expected);
    qy_free(&p->mem, p->q);
    qy_free(&p->mem, p->generations);
    qy_free(&p->mem, p->blocks);
    qy_free(&p->mem, p->memory);
    qy_free(&p->mem, p);
}
