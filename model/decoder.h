/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder's own types: what architecture.c reads, weights.c loads and llama.c runs. */
#ifndef QY_MODEL_DECODER_H
#define QY_MODEL_DECODER_H

#include "model/model.h"

/* What differs between the architectures; all else is one forward path. */
struct qyi_architecture {
    const char *name;
    enum qy_rope_pairs pairs;
    int qkv_bias; /* 0 taken when present, 1 required */
    int qk_norm;  /* 1: q and k heads are normed before rotation */
};

const struct qyi_architecture *qyi_architecture_find(struct qy_text name);
/* "llama, qwen2, qwen3" */
const char *qyi_architecture_names(void);

struct qyi_layer {
    struct qy_weight *qkv, *out, *gate_up, *down;
    const float *attn_norm, *ffn_norm, *qkv_bias, *out_bias, *q_norm, *k_norm; /* NULL: none */
};

struct qy_model {
    struct qy_model_params params;
    const struct qy_gguf *gguf;
    const struct qyi_architecture *arch;
    struct qy_model_info info;
    float scale; /* of q . k; 0 = 1/sqrt(head_dim) */
    struct qy_rope rope;
    float *inv_freq;

    struct qyi_layer *layers;
    struct qy_weight *embed, *output; /* the same object when tied */
    const float *output_norm;
    float *vectors; /* all norms and biases, one allocation */
    size_t vectors_used, vectors_count;

    /* Activations of max_step_tokens rows. */
    int32_t *ids;
    float *x, *h, *qkv, *attn, *gate_up, *act;
    void *activations;
    uint64_t activation_bytes;
    uint64_t stage_ns[QY_MODEL_STAGE_COUNT];
};

/* Fills info, scale and rope from the metadata. */
QY_MUST enum qy_status qyi_model_read_info(struct qy_model *model, struct qy_error *err);
/* Loads every tensor; refuses tensors that no part of the forward pass would use. */
QY_MUST enum qy_status qyi_model_load_weights(struct qy_model *model, struct qy_error *err);
void qyi_model_free_weights(struct qy_model *model);

#endif
