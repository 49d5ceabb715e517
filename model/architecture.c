/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which architectures there are, and the hyperparameters of a file: read, checked against each
 * other, refused with what is accepted.
 */
#include "model/decoder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct qyi_architecture architectures[] = {
    {.name = "llama", .pairs = QY_ROPE_ADJACENT, .qkv_bias = 0, .qk_norm = 0},
    {.name = "qwen2", .pairs = QY_ROPE_HALVES, .qkv_bias = 1, .qk_norm = 0},
    {.name = "qwen3", .pairs = QY_ROPE_HALVES, .qkv_bias = 0, .qk_norm = 1},
};

const struct qyi_architecture *qyi_architecture_find(struct qy_text name)
{
    for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++) {
        const char *known = architectures[i].name;
        if (strlen(known) == name.bytes && memcmp(known, name.data, name.bytes) == 0) {
            return &architectures[i];
        }
    }
    return NULL;
}

const char *qyi_architecture_names(void)
{
    return "llama, qwen2, qwen3";
}

/* A whole number under "<arch>.<name>" within [min, max]; missing: fallback, or an error when that
 * is UINT64_MAX. */
static enum qy_status read_count(const struct qy_model *model, const char *name, uint64_t fallback,
                                 uint64_t min, uint64_t max, uint32_t *out, struct qy_error *err)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", model->arch->name, name);
    uint64_t value = fallback;
    const int found = qy_gguf_get_u64(model->gguf, key, &value);
    if (found == -2 || (found == -1 && fallback == UINT64_MAX)) {
        return qy_error_set(
            err, QY_ERR_CORRUPT,
            "model key '%s': %s; a whole number is needed; the file is damaged or not "
            "a %s model",
            key, found == -1 ? "missing" : "not a whole number", model->arch->name);
    }
    if (value < min || value > max) {
        return qy_error_set(
            err, QY_ERR_UNSUPPORTED, "model key '%s': %llu refused; %llu to %llu is accepted", key,
            (unsigned long long)value, (unsigned long long)min, (unsigned long long)max);
    }
    *out = (uint32_t)value;
    return QY_OK;
}

static enum qy_status read_real(const struct qy_model *model, const char *name, double fallback,
                                float *out, struct qy_error *err)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", model->arch->name, name);
    double value = fallback;
    if (qy_gguf_get_f64(model->gguf, key, &value) == -2 || !(value >= 0.0 && value <= 1e12)) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "model key '%s': not a number from 0 to 1e12; the file is damaged",
                            key);
    }
    *out = (float)value;
    return QY_OK;
}

/* Features of other models that would change the result if they were passed over. */
static enum qy_status refuse_unsupported(const struct qy_model *model, struct qy_error *err)
{
    static const char *const keys[] = {"expert_count",
                                       "attention.sliding_window",
                                       "logit_scale",
                                       "residual_scale",
                                       "embedding_scale",
                                       "attn_logit_softcapping",
                                       "final_logit_softcapping",
                                       "attention.max_alibi_bias",
                                       "attention.clamp_kqv",
                                       "attention.causal"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char key[96];
        snprintf(key, sizeof key, "%s.%s", model->arch->name, keys[i]);
        double real = 0.0;
        uint64_t whole = 0;
        const int causal = strcmp(keys[i], "attention.causal") == 0;
        const int as_whole = qy_gguf_get_u64(model->gguf, key, &whole);
        const int as_real = as_whole == 0 ? -1 : qy_gguf_get_f64(model->gguf, key, &real);
        const double value = as_whole == 0 ? (double)whole : real;
        if ((as_whole == 0 || as_real == 0) && value != (causal ? 1.0 : 0.0)) {
            return qy_error_set(
                err, QY_ERR_UNSUPPORTED,
                "model key '%s': %g; models that use it are not supported; supported "
                "are plain %s models",
                key, value, qyi_architecture_names());
        }
    }
    return QY_OK;
}

/* Angles per position of each pair: base^(-2i/dim), divided by the file's factors (Llama-3
 * scaling, tensor rope_freqs.weight) or by a linear factor. */
static enum qy_status read_rope(struct qy_model *model, struct qy_error *err)
{
    const char *arch = model->arch->name;
    uint32_t dim = 0;
    enum qy_status st = read_count(model, "rope.dimension_count", model->info.head_dim, 2,
                                   model->info.head_dim, &dim, err);
    if (st == QY_OK) {
        st = read_real(model, "rope.freq_base", 10000.0, &model->info.rope_base, err);
    }
    if (st != QY_OK) {
        return st;
    }
    if (dim % 2 != 0 || model->info.rope_base <= 0.0f) {
        return qy_error_set(
            err, QY_ERR_CORRUPT,
            "model rotation: dimension %u, base %g; an even dimension and a base above "
            "0 are accepted",
            dim, (double)model->info.rope_base);
    }

    double linear = 1.0;
    char key[96];
    struct qy_text kind;
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    if (qy_gguf_get_text(model->gguf, key, &kind) == 0 &&
        !(kind.bytes == 4 && memcmp(kind.data, "none", 4) == 0)) {
        if (!(kind.bytes == 6 && memcmp(kind.data, "linear", 6) == 0)) {
            return qy_error_set(
                err, QY_ERR_UNSUPPORTED,
                "model key '%s': '%.*s' is not supported; none, linear and factors in "
                "the tensor 'rope_freqs.weight' are",
                key, (int)(kind.bytes < 32 ? kind.bytes : 32), kind.data);
        }
        snprintf(key, sizeof key, "%s.rope.scaling.factor", arch);
        if (qy_gguf_get_f64(model->gguf, key, &linear) != 0 || !(linear > 0.0 && linear <= 1e6)) {
            return qy_error_set(err, QY_ERR_CORRUPT,
                                "model key '%s': a number above 0 is needed with linear scaling",
                                key);
        }
    }

    const struct qy_gguf_tensor *factors = qy_gguf_find_tensor(model->gguf, "rope_freqs.weight");
    if (factors != NULL && (factors->type != QY_TYPE_F32 || factors->dims[0] != dim / 2 ||
                            factors->bytes != (uint64_t)(dim / 2) * 4)) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "tensor 'rope_freqs.weight': F32 [%u] is needed; the file is damaged",
                            dim / 2);
    }
    model->inv_freq = qy_alloc_zero(&model->params.rt->mem, (size_t)(dim / 2) * sizeof(float));
    if (model->inv_freq == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "rotation table: out of memory");
    }
    for (uint32_t i = 0; i < dim / 2; i++) {
        double angle = pow((double)model->info.rope_base, -2.0 * i / dim) / linear;
        if (factors != NULL) {
            float factor;
            memcpy(&factor, (const uint8_t *)factors->data + (size_t)i * 4, 4);
            if (!(factor > 0.0f && factor < 1e9f)) {
                return qy_error_set(
                    err, QY_ERR_CORRUPT,
                    "tensor 'rope_freqs.weight': element %u is %g; numbers above 0 are "
                    "accepted",
                    i, (double)factor);
            }
            angle /= factor;
        }
        model->inv_freq[i] = (float)angle;
    }
    model->rope.dim = dim;
    model->rope.pairs = model->arch->pairs;
    model->rope.inv_freq = model->inv_freq;
    return QY_OK;
}

static void copy_text(struct qy_text text, char *out, size_t out_bytes)
{
    const size_t n = text.bytes < out_bytes - 1 ? text.bytes : out_bytes - 1;
    memcpy(out, text.data, n);
    out[n] = '\0';
}

enum qy_status qyi_model_read_info(struct qy_model *model, struct qy_error *err)
{
    struct qy_text name = {"", 0};
    if (qy_gguf_get_text(model->gguf, "general.architecture", &name) != 0) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "model key 'general.architecture': missing; the file is no model");
    }
    model->arch = qyi_architecture_find(name);
    if (model->arch == NULL) {
        return qy_error_set(
            err, QY_ERR_UNSUPPORTED, "architecture '%.*s': not supported; supported are %s",
            (int)(name.bytes < 40 ? name.bytes : 40), name.data, qyi_architecture_names());
    }
    struct qy_model_info *info = &model->info;
    copy_text(name, info->architecture, sizeof info->architecture);
    if (qy_gguf_get_text(model->gguf, "general.name", &name) == 0) {
        copy_text(name, info->name, sizeof info->name);
    }

    enum qy_status st = refuse_unsupported(model, err);
    const struct {
        const char *name;
        uint64_t fallback, max;
        uint32_t *out;
    } counts[] = {
        {"block_count", UINT64_MAX, 1024, &info->n_layers},
        {"embedding_length", UINT64_MAX, 1u << 20, &info->n_embd},
        {"feed_forward_length", UINT64_MAX, 1u << 22, &info->n_ff},
        {"attention.head_count", UINT64_MAX, 4096, &info->n_heads},
        {"context_length", UINT64_MAX, UINT32_MAX, &info->n_ctx_train},
    };
    for (size_t i = 0; st == QY_OK && i < sizeof counts / sizeof counts[0]; i++) {
        st = read_count(model, counts[i].name, counts[i].fallback, 1, counts[i].max, counts[i].out,
                        err);
    }
    if (st == QY_OK) {
        st = read_count(model, "attention.head_count_kv", info->n_heads, 1, info->n_heads,
                        &info->n_kv_heads, err);
    }
    if (st == QY_OK) {
        st = read_count(model, "attention.key_length", info->n_embd / info->n_heads, 2, 1024,
                        &info->head_dim, err);
    }
    uint32_t value_length = info->head_dim;
    if (st == QY_OK) {
        st = read_count(model, "attention.value_length", info->head_dim, 2, 1024, &value_length,
                        err);
    }
    if (st == QY_OK) {
        st = read_real(model, "attention.layer_norm_rms_epsilon", 1e-5, &info->norm_eps, err);
    }
    if (st == QY_OK) {
        st = read_real(model, "attention.scale", 0.0, &model->scale, err);
    }
    if (st != QY_OK) {
        return st;
    }
    if (info->n_heads % info->n_kv_heads != 0 || value_length != info->head_dim ||
        info->head_dim % 2 != 0) {
        return qy_error_set(
            err, QY_ERR_UNSUPPORTED,
            "model heads: %u query heads, %u KV heads, key length %u, value length %u; "
            "query heads a multiple of KV heads and equal even lengths are accepted",
            info->n_heads, info->n_kv_heads, info->head_dim, value_length);
    }
    return read_rope(model, err);
}
