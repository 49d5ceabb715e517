/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the tensors of a file to prepared weights. Every tensor's shape is checked against the
 * hyperparameters, and a tensor that the forward pass would not use is refused: a model that we
 * would run wrongly is worse than one that we do not run.
 */
#include "model/decoder.h"

#include <stdio.h>
#include <string.h>

/* The last N_QK_NORM only where the architecture norms the heads of q and k. */
enum { N_QK_NORM = 2 };
static const char *const layer_parts[] = {
    "attn_norm.weight", "ffn_norm.weight",    "attn_q.weight",     "attn_k.weight",
    "attn_v.weight",    "attn_q.bias",        "attn_k.bias",       "attn_v.bias",
    "ffn_gate.weight",  "ffn_up.weight",      "ffn_down.weight",   "attn_output.weight",
    "attn_output.bias", "attn_q_norm.weight", "attn_k_norm.weight"};

static int is_known(const struct qy_model *model, struct qy_text name)
{
    static const char *const top[] = {"token_embd.weight", "output_norm.weight", "output.weight",
                                      "rope_freqs.weight"};
    char text[80];
    if (name.bytes >= sizeof text) {
        return 0;
    }
    memcpy(text, name.data, name.bytes);
    text[name.bytes] = '\0';
    for (size_t i = 0; i < sizeof top / sizeof top[0]; i++) {
        if (strcmp(text, top[i]) == 0) {
            return 1;
        }
    }
    unsigned layer = 0;
    int used = 0;
    if (sscanf(text, "blk.%u.%n", &layer, &used) != 1 || used == 0 ||
        layer >= model->info.n_layers) {
        return 0;
    }
    const size_t n = sizeof layer_parts / sizeof layer_parts[0];
    for (size_t i = 0; i < (model->arch->qk_norm ? n : n - N_QK_NORM); i++) {
        if (strcmp(text + used, layer_parts[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Finds a tensor and checks its shape [n_in][n_out] (n_out 1: a vector). */
static enum qy_status find(const struct qy_model *model, const char *name, uint64_t n_in,
                           uint64_t n_out, const struct qy_gguf_tensor **out, struct qy_error *err)
{
    const struct qy_gguf_tensor *t = qy_gguf_find_tensor(model->gguf, name);
    if (t == NULL) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "tensor '%s': missing; a %s model has it; the file is incomplete", name,
                            model->arch->name);
    }
    if (t->dims[0] != n_in || t->dims[1] != n_out || t->dims[2] != 1 || t->dims[3] != 1) {
        return qy_error_set(
            err, QY_ERR_CORRUPT,
            "tensor '%s': shape [%llu, %llu]; [%llu, %llu] is needed; the file does "
            "not fit its own header",
            name, (unsigned long long)t->dims[0], (unsigned long long)t->dims[1],
            (unsigned long long)n_in, (unsigned long long)n_out);
    }
    *out = t;
    return QY_OK;
}

static enum qy_status find_matrix(const struct qy_model *model, const char *name, uint64_t n_in,
                                  uint64_t n_out, struct qy_matrix *out, struct qy_error *err)
{
    const struct qy_gguf_tensor *t = NULL;
    const enum qy_status st = find(model, name, n_in, n_out, &t, err);
    if (st == QY_OK) {
        *out = (struct qy_matrix){.name = name,
                                  .data = t->data,
                                  .type = t->type,
                                  .n_out = (uint32_t)n_out,
                                  .n_in = (uint32_t)n_in};
    }
    return st;
}

/* Copies a vector of the file as f32 to out. */
static enum qy_status read_vector(const struct qy_model *model, const char *name, uint32_t n,
                                  float *out, struct qy_error *err)
{
    const struct qy_gguf_tensor *t = NULL;
    const enum qy_status st = find(model, name, n, 1, &t, err);
    if (st == QY_OK) {
        qy_tensor_dequantize(t->type, t->data, n, out);
    }
    return st;
}

static float *take_vector(struct qy_model *model, size_t n)
{
    float *out = model->vectors + model->vectors_used;
    model->vectors_used += (n + 15) / 16 * 16;
    return out;
}

static enum qy_status load_vector(struct qy_model *model, const char *name, uint32_t n,
                                  const float **out, struct qy_error *err)
{
    float *vector = take_vector(model, n);
    *out = vector;
    return read_vector(model, name, n, vector, err);
}

static enum qy_status load_bias(struct qy_model *model, uint32_t layer, struct qyi_layer *l,
                                struct qy_error *err)
{
    const struct qy_model_info *info = &model->info;
    const uint32_t n_q = info->n_heads * info->head_dim, n_kv = info->n_kv_heads * info->head_dim;
    static const char *const names[] = {"attn_q", "attn_k", "attn_v"};
    const uint32_t sizes[] = {n_q, n_kv, n_kv};
    char name[64];
    snprintf(name, sizeof name, "blk.%u.attn_q.bias", layer);
    if (model->arch->qkv_bias || qy_gguf_find_tensor(model->gguf, name) != NULL) {
        float *bias = take_vector(model, (size_t)n_q + 2 * (size_t)n_kv);
        l->qkv_bias = bias;
        for (int i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "blk.%u.%s.bias", layer, names[i]);
            const enum qy_status st = read_vector(model, name, sizes[i], bias, err);
            if (st != QY_OK) {
                return st;
            }
            bias += sizes[i];
        }
    }
    snprintf(name, sizeof name, "blk.%u.attn_output.bias", layer);
    if (qy_gguf_find_tensor(model->gguf, name) != NULL) {
        return load_vector(model, name, info->n_embd, &l->out_bias, err);
    }
    return QY_OK;
}

static enum qy_status load_norms(struct qy_model *model, uint32_t layer, struct qyi_layer *l,
                                 struct qy_error *err)
{
    const struct qy_model_info *info = &model->info;
    const struct {
        const char *name;
        uint32_t n;
        const float **out;
    } norms[] = {
        {"attn_norm", info->n_embd, &l->attn_norm},
        {"ffn_norm", info->n_embd, &l->ffn_norm},
        {"attn_q_norm", info->head_dim, &l->q_norm},
        {"attn_k_norm", info->head_dim, &l->k_norm},
    };
    const size_t n = model->arch->qk_norm ? 4 : 2;
    for (size_t i = 0; i < n; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, norms[i].name);
        const enum qy_status st = load_vector(model, name, norms[i].n, norms[i].out, err);
        if (st != QY_OK) {
            return st;
        }
    }
    return QY_OK;
}

static enum qy_status load_layer(struct qy_model *model, uint32_t layer, struct qy_error *err)
{
    const struct qy_model_info *info = &model->info;
    struct qyi_layer *l = &model->layers[layer];
    const uint32_t n_q = info->n_heads * info->head_dim, n_kv = info->n_kv_heads * info->head_dim;
    const struct {
        const char *names[3];
        uint32_t n_in, n_out[3], n;
        struct qy_weight **weight;
    } products[] = {
        {{"attn_q", "attn_k", "attn_v"}, info->n_embd, {n_q, n_kv, n_kv}, 3, &l->qkv},
        {{"attn_output"}, n_q, {info->n_embd}, 1, &l->out},
        {{"ffn_gate", "ffn_up"}, info->n_embd, {info->n_ff, info->n_ff}, 2, &l->gate_up},
        {{"ffn_down"}, info->n_ff, {info->n_embd}, 1, &l->down},
    };
    for (size_t p = 0; p < sizeof products / sizeof products[0]; p++) {
        struct qy_matrix parts[3];
        char names[3][64]; /* lent to the parts until the weight is open */
        for (uint32_t i = 0; i < products[p].n; i++) {
            snprintf(names[i], sizeof names[i], "blk.%u.%s.weight", layer, products[p].names[i]);
            const enum qy_status st = find_matrix(model, names[i], products[p].n_in,
                                                  products[p].n_out[i], &parts[i], err);
            if (st != QY_OK) {
                return st;
            }
        }
        const enum qy_status st = qy_weight_open(model->params.dev, parts, products[p].n,
                                                 QY_WEIGHT_MULTIPLY, products[p].weight, err);
        if (st != QY_OK) {
            return qy_error_wrap(err, st, "layer %u %s", layer, products[p].names[0]);
        }
    }
    enum qy_status st = load_norms(model, layer, l, err);
    if (st == QY_OK) {
        st = load_bias(model, layer, l, err);
    }
    return st;
}

/* Embedding and output; one weight for both when the file has no 'output.weight'. */
static enum qy_status load_ends(struct qy_model *model, struct qy_error *err)
{
    struct qy_model_info *info = &model->info;
    const struct qy_gguf_tensor *embd = qy_gguf_find_tensor(model->gguf, "token_embd.weight");
    if (embd == NULL || embd->dims[1] == 0 || embd->dims[1] > INT32_MAX) {
        return qy_error_set(
            err, QY_ERR_CORRUPT,
            "tensor 'token_embd.weight': missing or of no size; the file is damaged");
    }
    info->n_vocab = (uint32_t)embd->dims[1];
    struct qy_matrix matrix;
    enum qy_status st =
        find_matrix(model, "token_embd.weight", info->n_embd, info->n_vocab, &matrix, err);
    if (st != QY_OK) {
        return st;
    }
    const int tied = qy_gguf_find_tensor(model->gguf, "output.weight") == NULL;
    st = qy_weight_open(model->params.dev, &matrix, 1,
                        QY_WEIGHT_ROWS | (tied ? (unsigned)QY_WEIGHT_MULTIPLY : 0), &model->embed,
                        err);
    if (st == QY_OK && tied) {
        model->output = model->embed;
    } else if (st == QY_OK) {
        st = find_matrix(model, "output.weight", info->n_embd, info->n_vocab, &matrix, err);
        if (st == QY_OK) {
            st = qy_weight_open(model->params.dev, &matrix, 1, QY_WEIGHT_MULTIPLY, &model->output,
                                err);
        }
    }
    if (st == QY_OK) {
        st = load_vector(model, "output_norm.weight", info->n_embd, &model->output_norm, err);
    }
    return st;
}

enum qy_status qyi_model_load_weights(struct qy_model *model, struct qy_error *err)
{
    struct qy_model_info *info = &model->info;
    const size_t n_tensors = qy_gguf_n_tensors(model->gguf);
    for (size_t i = 0; i < n_tensors; i++) {
        const struct qy_gguf_tensor *t = qy_gguf_tensor_at(model->gguf, i);
        if (!is_known(model, t->name)) {
            return qy_error_set(err, QY_ERR_UNSUPPORTED,
                                "tensor '%.*s': a plain %s model of %u layers has no such part; "
                                "supported are %s without experts, adapters or extra heads",
                                (int)(t->name.bytes < 64 ? t->name.bytes : 64), t->name.data,
                                model->arch->name, info->n_layers, qyi_architecture_names());
        }
        info->n_params += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    }

    const size_t pad = 16, per_layer = 3 * (size_t)info->n_embd + 2 * (size_t)info->head_dim +
                                       ((size_t)info->n_heads + 2 * (size_t)info->n_kv_heads) *
                                           info->head_dim +
                                       8 * pad;
    model->vectors_count = per_layer * info->n_layers + info->n_embd + pad;
    void *vectors = NULL;
    enum qy_status st =
        qy_device_alloc(model->params.dev, model->vectors_count * sizeof(float), &vectors, err);
    if (st != QY_OK) {
        return st;
    }
    model->vectors = vectors;
    model->layers =
        qy_alloc_zero(&model->params.rt->mem, (size_t)info->n_layers * sizeof *model->layers);
    if (model->layers == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "table of %u layers: out of memory", info->n_layers);
    }
    for (uint32_t l = 0; st == QY_OK && l < info->n_layers; l++) {
        st = load_layer(model, l, err);
    }
    return st == QY_OK ? load_ends(model, err) : st;
}

void qyi_model_free_weights(struct qy_model *model)
{
    struct qy_device *dev = model->params.dev;
    for (uint32_t l = 0; model->layers != NULL && l < model->info.n_layers; l++) {
        struct qyi_layer *layer = &model->layers[l];
        struct qy_weight *weights[] = {layer->qkv, layer->out, layer->gate_up, layer->down};
        for (size_t i = 0; i < sizeof weights / sizeof weights[0]; i++) {
            qy_weight_close(dev, weights[i]);
        }
    }
    if (model->output != model->embed) {
        qy_weight_close(dev, model->output);
    }
    qy_weight_close(dev, model->embed);
    qy_free(&model->params.rt->mem, model->layers);
    qy_device_free(dev, model->vectors);
}
