/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forward pass of the Llama family: one path for every architecture and every batch.
 *
 *   x = embed(ids)
 *   per layer:   q,k,v = norm(x) Wqkv (+ bias, head norms) -> offload: rotate, append, attend
 *                x += attention Wo;   x += swiglu(norm(x) Wgu) Wd
 *   logits = norm(x) Wout, only for the rows that were asked for
 *
 * A step of several micro-batches runs them in turn, layer by layer: while the rows that one needs are
 * on their way, another computes.
 *
 * Rows of all sequences are stacked: sequences of any length, prefill chunks and single tokens,
 * share each product.
 */
#include "model/decoder.h"

#include <string.h>

static const char *const stage_names[QY_MODEL_STAGE_COUNT] = {
    [QY_MODEL_EMBED] = "embed", [QY_MODEL_NORM] = "norm",    [QY_MODEL_QKV] = "qkv",
    [QY_MODEL_GUESS] = "guess", [QY_MODEL_KV] = "kv",        [QY_MODEL_PROJECT] = "project",
    [QY_MODEL_MLP] = "mlp",     [QY_MODEL_OUTPUT] = "output"};

const char *qy_model_stage_name(enum qy_model_stage stage)
{
    return stage < QY_MODEL_STAGE_COUNT ? stage_names[stage] : "";
}

/* Books the time since *since under stage and moves *since on. */
static void book(struct qy_model *model, enum qy_model_stage stage, uint64_t *since, uint32_t layer,
                 uint32_t m)
{
    static const char *const keys[] = {"layer", "rows", NULL};
    const double values[] = {layer, m};
    const uint64_t now = qy_clock_ns();
    model->stage_ns[stage] += now - *since;
    qy_trace_span(qy_trace_thread(model->params.rt->trace, 0), stage_names[stage], *since, now,
                  keys, values);
    *since = now;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static enum qy_status alloc_activations(struct qy_model *model, struct qy_error *err)
{
    const struct qy_model_info *info = &model->info;
    const size_t m = model->params.max_step_tokens;
    const size_t n_q = (size_t)info->n_heads * info->head_dim;
    const size_t n_qkv = n_q + 2 * (size_t)info->n_kv_heads * info->head_dim;
    const struct {
        float **out;
        size_t width;
    } parts[] = {{&model->x, info->n_embd},
                 {&model->h, info->n_embd},
                 {&model->qkv, n_qkv},
                 {&model->attn, n_q},
                 {&model->gate_up, larger(2 * (size_t)info->n_ff, n_qkv)}, /* or guessed queries */
                 {&model->act, larger(info->n_ff, info->n_embd)}};
    const size_t n_parts = sizeof parts / sizeof parts[0];
    size_t total = (m * sizeof(int32_t) + 63) / 64 * 64;
    for (size_t i = 0; i < n_parts; i++) {
        total += (m * parts[i].width * sizeof(float) + 63) / 64 * 64;
    }
    const enum qy_status st = qy_device_alloc(model->params.dev, total, &model->activations, err);
    if (st != QY_OK) {
        return qy_error_wrap(err, st, "activations of %zu tokens", m);
    }
    uint8_t *at = model->activations;
    for (size_t i = 0; i < n_parts; i++) {
        *parts[i].out = (float *)(void *)at;
        at += (m * parts[i].width * sizeof(float) + 63) / 64 * 64;
    }
    model->ids = (int32_t *)(void *)at;
    model->activation_bytes = total;
    return QY_OK;
}

enum qy_status qy_model_open(const struct qy_model_params *params, const struct qy_gguf *gguf,
                             struct qy_model **out, struct qy_error *err)
{
    if (params->max_step_tokens == 0 || params->max_logits == 0) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "model: max_step_tokens and max_logits must be above 0");
    }
    struct qy_model *model = qy_alloc_zero(&params->rt->mem, sizeof *model);
    if (model == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "model: out of memory");
    }
    model->params = *params;
    model->gguf = gguf;
    enum qy_status st = qyi_model_read_info(model, err);
    if (st == QY_OK) {
        st = qyi_model_load_weights(model, err);
    }
    if (st == QY_OK) {
        st = alloc_activations(model, err);
    }
    if (st != QY_OK) {
        qy_model_close(model);
        return st;
    }
    *out = model;
    return QY_OK;
}

void qy_model_close(struct qy_model *model)
{
    if (model == NULL) {
        return;
    }
    const struct qy_allocator *mem = &model->params.rt->mem;
    qy_device_free(model->params.dev, model->activations);
    qyi_model_free_weights(model);
    qy_free(mem, model->inv_freq);
    qy_free(mem, model);
}

const struct qy_model_info *qy_model_info(const struct qy_model *model)
{
    return &model->info;
}

struct qy_kv_shape qy_model_kv_shape(const struct qy_model *model)
{
    return (struct qy_kv_shape){.n_layers = model->info.n_layers,
                                .n_heads = model->info.n_heads,
                                .n_kv_heads = model->info.n_kv_heads,
                                .head_dim = model->info.head_dim};
}

struct qy_rope qy_model_rope(const struct qy_model *model)
{
    return model->rope;
}

float qy_model_scale(const struct qy_model *model)
{
    return model->scale;
}

uint64_t qy_model_weight_bytes(const struct qy_model *model)
{
    uint64_t bytes = model->vectors_count * sizeof(float);
    for (uint32_t l = 0; l < model->info.n_layers; l++) {
        const struct qyi_layer *layer = &model->layers[l];
        bytes += qy_weight_bytes(layer->qkv) + qy_weight_bytes(layer->out) +
                 qy_weight_bytes(layer->gate_up) + qy_weight_bytes(layer->down);
    }
    bytes += qy_weight_bytes(model->embed);
    return model->output != model->embed ? bytes + qy_weight_bytes(model->output) : bytes;
}

uint64_t qy_model_activation_bytes(const struct qy_model *model)
{
    return model->activation_bytes;
}

void qy_model_times(const struct qy_model *model, uint64_t stage_ns[QY_MODEL_STAGE_COUNT])
{
    memcpy(stage_ns, model->stage_ns, sizeof model->stage_ns);
}

void qy_model_times_reset(struct qy_model *model)
{
    memset(model->stage_ns, 0, sizeof model->stage_ns);
}

/* Where the rows of the whole step have their q, k, v and outputs. */
static struct qy_qkv step_qkv(const struct qy_model *model)
{
    const struct qy_model_info *info = &model->info;
    const size_t n_q = (size_t)info->n_heads * info->head_dim;
    const size_t n_kv = (size_t)info->n_kv_heads * info->head_dim;

    return (struct qy_qkv){.q = model->qkv,
                           .k = model->qkv + n_q,
                           .v = model->qkv + n_q + n_kv,
                           .stride = n_q + 2 * n_kv,
                           .out = model->attn};
}

/* A forward pass: what its parts share. */
struct pass {
    struct qy_model *model;
    struct qy_cache *cache;
    uint64_t since; /* of the stage that runs */
};

/* q, k, v [n][stride] of layer l from n normed rows. */
static enum qy_status project(struct qy_model *model, uint32_t l, const float *normed, uint32_t n,
                              const struct qy_qkv *qkv)
{
    const struct qy_model_info *info = &model->info;
    const struct qyi_layer *layer = &model->layers[l];
    struct qy_device *dev = model->params.dev;

    enum qy_status st = qy_weight_multiply(dev, layer->qkv, normed, n, qkv->q);
    if (st == QY_OK && layer->qkv_bias != NULL) {
        st = qy_device_bias(dev, qkv->q, n, (uint32_t)qkv->stride, layer->qkv_bias);
    }
    if (st == QY_OK && layer->q_norm != NULL) {
        st = qy_device_head_norm(dev, qkv->q, n, qkv->stride, info->n_heads, info->head_dim,
                                 layer->q_norm, info->norm_eps);
    }
    if (st == QY_OK && layer->k_norm != NULL) {
        st = qy_device_head_norm(dev, qkv->k, n, qkv->stride, info->n_kv_heads, info->head_dim,
                                 layer->k_norm, info->norm_eps);
    }
    return st;
}

/* q, k, v of a micro-batch's normed rows in h; then attention starts. */
static enum qy_status start_attention(struct pass *p, uint32_t micro_batch, uint32_t l)
{
    struct qy_model *model = p->model;
    const struct qy_row_range rows = qy_step_rows(p->cache, micro_batch);
    const struct qy_qkv qkv = step_qkv(model);
    const size_t at = rows.first * qkv.stride;
    const struct qy_qkv own = {.q = qkv.q + at, .k = qkv.k + at, .stride = qkv.stride};

    enum qy_status st =
        project(model, l, model->h + (size_t)rows.first * model->info.n_embd, rows.n, &own);
    book(model, QY_MODEL_QKV, &p->since, l, rows.n);
    if (st == QY_OK) {
        st = qy_step_attend_start(p->cache, micro_batch, l, &qkv);
    }
    book(model, QY_MODEL_KV, &p->since, l, rows.n);
    return st;
}

/* Guesses layer l's queries from the rows as they enter layer l - 1, where the cache can use them: two
 * layers' residuals are much alike (InfiniGen, arXiv:2406.19707, section 4.3). The product's k and v are
 * not needed; q, k and v are one weight. Scratch is what only the feed-forward part uses. */
static enum qy_status guess_queries(struct pass *p, uint32_t micro_batch, uint32_t l)
{
    struct qy_model *model = p->model;
    const struct qy_model_info *info = &model->info;
    const struct qy_row_range rows = qy_step_rows(p->cache, micro_batch);
    struct qy_qkv guess = step_qkv(model);

    if (l >= info->n_layers || !qy_step_wants_guess(p->cache, micro_batch, l)) {
        return QY_OK;
    }
    guess.k = model->gate_up + (guess.k - guess.q);
    guess.q = model->gate_up;
    enum qy_status st =
        qy_device_norm(model->params.dev, model->x + (size_t)rows.first * info->n_embd, rows.n,
                       info->n_embd, model->layers[l].attn_norm, info->norm_eps, model->act);
    if (st == QY_OK) {
        st = project(model, l, model->act, rows.n, &guess);
    }
    book(model, QY_MODEL_GUESS, &p->since, l, rows.n);
    if (st == QY_OK) {
        st = qy_step_speculate(p->cache, micro_batch, l, guess.q, guess.stride);
    }
    book(model, QY_MODEL_KV, &p->since, l, rows.n);
    return st;
}

static enum qy_status finish_attention(struct pass *p, uint32_t micro_batch, uint32_t l)
{
    const struct qy_qkv qkv = step_qkv(p->model);
    const enum qy_status st = qy_step_attend_finish(p->cache, micro_batch, l, &qkv);

    book(p->model, QY_MODEL_KV, &p->since, l, qy_step_rows(p->cache, micro_batch).n);
    return st;
}

/* What follows attention in a layer, for some rows: projection, feed-forward, the next layer's norm
 * into h. */
static enum qy_status feed_forward(struct pass *p, struct qy_row_range rows, uint32_t l)
{
    struct qy_model *model = p->model;
    const struct qy_model_info *info = &model->info;
    const struct qyi_layer *layer = &model->layers[l];
    const float *norm =
        l + 1 == info->n_layers ? model->output_norm : model->layers[l + 1].attn_norm;
    struct qy_device *dev = model->params.dev;
    const uint32_t m = rows.n;
    const size_t first = rows.first;
    float *x = model->x + first * info->n_embd, *h = model->h + first * info->n_embd;
    float *gate_up = model->gate_up + first * 2 * info->n_ff;
    float *act = model->act + first * info->n_ff;
    const float *attn = model->attn + first * info->n_heads * info->head_dim;

    enum qy_status st = qy_weight_multiply(dev, layer->out, attn, m, h);
    if (st == QY_OK && layer->out_bias != NULL) {
        st = qy_device_bias(dev, h, m, info->n_embd, layer->out_bias);
    }
    book(model, QY_MODEL_PROJECT, &p->since, l, m);
    if (st == QY_OK) {
        st = qy_device_add_norm(dev, x, h, m, info->n_embd, layer->ffn_norm, info->norm_eps, h);
    }
    book(model, QY_MODEL_NORM, &p->since, l, m);
    if (st == QY_OK) {
        st = qy_weight_multiply(dev, layer->gate_up, h, m, gate_up);
    }
    if (st == QY_OK) {
        st = qy_device_swiglu(dev, gate_up, m, info->n_ff, act);
    }
    if (st == QY_OK) {
        st = qy_weight_multiply(dev, layer->down, act, m, h);
    }
    book(model, QY_MODEL_MLP, &p->since, l, m);
    if (st == QY_OK) {
        st = qy_device_add_norm(dev, x, h, m, info->n_embd, norm, info->norm_eps, h);
    }
    book(model, QY_MODEL_NORM, &p->since, l, m);
    return st;
}

/* Moves the rows that give logits to the front of x and attn: the last layer needs no others. */
static void keep_rows(struct qy_model *model, const uint32_t *rows, uint32_t n)
{
    const size_t n_x = model->info.n_embd;
    const size_t n_q = (size_t)model->info.n_heads * model->info.head_dim;
    for (uint32_t i = 0; i < n; i++) {
        memmove(model->x + i * n_x, model->x + rows[i] * n_x, n_x * sizeof(float));
        memmove(model->attn + i * n_q, model->attn + rows[i] * n_q, n_q * sizeof(float));
    }
}

/* All layers over the m rows in x. Returns with h = the normed rows that give logits. Micro-batches
 * take turns: each finishes a layer only when the others have started theirs. */
static enum qy_status run_layers(struct pass *p, uint32_t m, const uint32_t *logit_rows,
                                 uint32_t n_logits)
{
    struct qy_model *model = p->model;
    const struct qy_model_info *info = &model->info;
    const uint32_t n_micro = qy_step_micro_batches(p->cache);
    enum qy_status st = qy_device_norm(model->params.dev, model->x, m, info->n_embd,
                                       model->layers[0].attn_norm, info->norm_eps, model->h);

    book(model, QY_MODEL_NORM, &p->since, 0, m);
    for (uint32_t l = 0; l < info->n_layers; l++) {
        for (uint32_t i = 0; st == QY_OK && i < n_micro; i++) {
            if (l > 0) {
                st = finish_attention(p, i, l - 1);
            }
            if (st == QY_OK && l > 0) {
                st = feed_forward(p, qy_step_rows(p->cache, i), l - 1);
            }
            if (st == QY_OK) {
                st = start_attention(p, i, l);
            }
            if (st == QY_OK) {
                st = guess_queries(p, i, l + 1);
            }
        }
    }
    for (uint32_t i = 0; st == QY_OK && i < n_micro; i++) {
        st = finish_attention(p, i, info->n_layers - 1);
    }
    if (st != QY_OK || n_logits == 0) {
        return st;
    }
    keep_rows(model, logit_rows, n_logits);
    return feed_forward(p, (struct qy_row_range){0, n_logits}, info->n_layers - 1);
}

/* Gathers the slices' ids and checks the call. */
static enum qy_status gather(struct qy_model *model, const struct qy_step_slice *slices,
                             uint32_t n_slices, const uint32_t *logit_rows, uint32_t n_logits,
                             uint32_t *m, struct qy_error *err)
{
    uint32_t n = 0;
    for (uint32_t s = 0; s < n_slices; s++) {
        if (slices[s].n_tokens > model->params.max_step_tokens - n) {
            return qy_error_set(err, QY_ERR_INVALID, "forward: more than %u tokens in one step",
                                model->params.max_step_tokens);
        }
        for (uint32_t i = 0; i < slices[s].n_tokens; i++) {
            if (slices[s].ids[i] < 0 || (uint32_t)slices[s].ids[i] >= model->info.n_vocab) {
                return qy_error_set(err, QY_ERR_INVALID, "token id %d: the model has ids 0 to %u",
                                    slices[s].ids[i], model->info.n_vocab - 1);
            }
            model->ids[n++] = slices[s].ids[i];
        }
    }
    if (n == 0 || n_logits > model->params.max_logits) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "forward: %u tokens, %u rows of logits; at least 1 and at most %u are "
                            "accepted",
                            n, n_logits, model->params.max_logits);
    }
    for (uint32_t i = 0; i < n_logits; i++) {
        if (logit_rows[i] >= n || (i > 0 && logit_rows[i] <= logit_rows[i - 1])) {
            return qy_error_set(err, QY_ERR_INVALID,
                                "forward: logit rows must ascend and be below %u", n);
        }
    }
    *m = n;
    return QY_OK;
}

enum qy_status qy_model_forward(struct qy_model *model, struct qy_cache *cache,
                                const struct qy_step_slice *slices, uint32_t n_slices,
                                const uint32_t *logit_rows, uint32_t n_logits, float *logits,
                                struct qy_error *err)
{
    uint32_t m = 0;
    enum qy_status st = gather(model, slices, n_slices, logit_rows, n_logits, &m, err);
    if (st != QY_OK) {
        return st;
    }
    struct pass pass = {.model = model, .cache = cache, .since = qy_clock_ns()};
    st = qy_step_begin(cache, slices, n_slices, err);
    if (st != QY_OK) {
        return st;
    }
    book(model, QY_MODEL_KV, &pass.since, 0, m);

    struct qy_device *dev = model->params.dev;
    st = qy_weight_rows(dev, model->embed, model->ids, m, model->x);
    book(model, QY_MODEL_EMBED, &pass.since, 0, m);
    if (st == QY_OK) {
        st = run_layers(&pass, m, logit_rows, n_logits);
    }
    if (st == QY_OK && n_logits > 0) {
        st = qy_weight_multiply(dev, model->output, model->h, n_logits, logits);
        book(model, QY_MODEL_OUTPUT, &pass.since, 0, n_logits);
    }
    if (st != QY_OK) {
        char why[QY_FAILURE_BYTES];
        qy_step_abort(cache);
        if (qy_cache_fault(cache)[0] != '\0') {
            return qy_error_set(err, st, "forward pass of %u tokens: %s", m, qy_cache_fault(cache));
        }
        if (qy_step_failure(cache, why, sizeof why)[0] != '\0') {
            return qy_error_set(err, st, "forward pass of %u tokens: %s", m, why);
        }
        return qy_error_set(err, st, "forward pass of %u tokens: %s%s", m, qy_status_name(st),
                            st == QY_ERR_CORRUPT
                                ? ": a value is not finite; the weights are damaged "
                                  "or do not fit f16 rows (cache.row_type = f32)"
                                : "");
    }
    st = qy_step_end(cache);
    book(model, QY_MODEL_KV, &pass.since, 0, m);
    return st;
}
