/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a model: opened, and when it opens, evaluated on a few tokens. Whatever the
 * metadata says about shapes, nothing may be read outside the tensors, and memory stays in
 * proportion to the file.
 */
#include "tests/fuzz/fuzz.h"

#include "model/model.h"
#include "tests/support/make_gguf_random.h"
#include "tests/support/make_gguf_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const unsigned fuzz_replays = 400;

enum { N_VOCAB = 16, N_EMBD = 32, N_FF = 64, HEAD_DIM = 16, MAX_TOKENS = 8 };
/* Activations, packed weights and the cache of a model as small as the seeds. */
enum { LIMIT_BYTES = 256 << 20 };

static struct runtime {
    struct qy_runtime rt;
    struct qy_device *dev;
} shared;

static void close_runtime(void)
{
    qy_device_close(shared.dev);
}

static void open_runtime(void)
{
    const struct qy_device_params params = {.spec = "host", .max_m = MAX_TOKENS};

    shared.rt.mem = qy_allocator_system();
    shared.rt.log = qy_log_stderr(QY_LOG_ERROR);
    qy_cpu_detect(&shared.rt.cpu);
    if (qy_device_open(&shared.rt, &params, &shared.dev, NULL) != QY_OK) {
        abort();
    }
    (void)atexit(close_runtime);
}

/* A chunk of three tokens, then one more. */
static void evaluate(struct qy_model *model, struct qy_cache *cache)
{
    const int32_t ids[4] = {1, 2, 3, 0};
    const uint32_t rows[1] = {0};
    const uint32_t n_vocab = qy_model_info(model)->n_vocab;
    struct qy_sequence *seq = NULL;
    struct qy_error err;
    float *logits = malloc((size_t)n_vocab * sizeof(*logits));

    if (!logits || qy_sequence_open(cache, &seq, &err) != QY_OK) {
        abort();
    }
    for (uint32_t at = 0; at < 4; at += 3) {
        const struct qy_step_slice slice = {
            .seq = seq, .n_tokens = at ? 1 : 3, .ids = ids + at, .mode = QY_ATTEND_POLICY};
        if (qy_model_forward(model, cache, &slice, 1, rows, 1, logits, &err) != QY_OK) {
            break; /* ids beyond a small vocabulary, values that are not finite */
        }
    }
    qy_sequence_close(seq);
    free(logits);
}

static void use_model(struct qy_model *model)
{
    const struct qy_cache_params params = {
        .rt = &shared.rt,
        .dev = shared.dev,
        .shape = qy_model_kv_shape(model),
        .rope = qy_model_rope(model),
        .scale = qy_model_scale(model),
        .settings = {.block_tokens = 8,
                     .sinks = 1,
                     .window = 2,
                     .row_type = QY_ROW_F16,
                     .host_bytes = LIMIT_BYTES},
        .policy = qy_policy_find("dense"),
        .budget = {.ratio = 1.0},
        .max_sequences = 1,
        .max_tokens = MAX_TOKENS,
        .max_step_tokens = MAX_TOKENS,
    };
    struct qy_cache *cache = NULL;

    if (qy_cache_open(&params, &cache, NULL) == QY_OK) {
        evaluate(model, cache);
        qy_cache_close(cache);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_gguf *gguf = NULL;
    struct qy_model *model = NULL;
    struct qy_error err;

    if (!shared.dev) {
        open_runtime();
    }
    if (qy_gguf_open_memory(&mem, data, n, "fuzz.gguf", &gguf, &err) != QY_OK) {
        return 0;
    }
    const struct qy_model_params params = {
        .rt = &shared.rt, .dev = shared.dev, .max_step_tokens = MAX_TOKENS, .max_logits = 1};
    if (qy_model_open(&params, gguf, &model, &err) == QY_OK) {
        if (qy_model_weight_bytes(model) > LIMIT_BYTES ||
            qy_model_activation_bytes(model) > LIMIT_BYTES) {
            abort();
        }
        use_model(model);
        qy_model_close(model);
    }
    qy_gguf_close(gguf);
    return 0;
}

/* ---- seeds ---- */

static uint64_t stream;

static void put_matrix(struct gguf_writer *w, const char *name, uint32_t n_in, uint32_t n_out)
{
    const uint64_t dims[2] = {n_in, n_out};
    const size_t elems = (size_t)n_in * n_out;
    uint8_t *at = gguf_put_tensor(w, name, 2, dims, QY_TYPE_Q8_0, elems / 32 * 34);

    random_tensor(QY_TYPE_Q8_0, elems, 0.2F, ++stream, at);
}

static void put_vector(struct gguf_writer *w, const char *name, uint32_t n)
{
    const uint64_t dims[1] = {n};

    random_vector(n, 1.0F, 0.1F, ++stream, gguf_put_tensor(w, name, 1, dims, QY_TYPE_F32, 4 * n));
}

static void put_numbers(struct gguf_writer *w, const char *arch)
{
    static const struct {
        const char *name;
        uint32_t value;
    } rows[] = {
        {"context_length", 64},
        {"embedding_length", N_EMBD},
        {"block_count", 1},
        {"feed_forward_length", N_FF},
        {"attention.head_count", 2},
        {"attention.head_count_kv", 1},
        {"attention.key_length", HEAD_DIM},
        {"attention.value_length", HEAD_DIM},
        {"rope.dimension_count", HEAD_DIM},
        {"vocab_size", N_VOCAB},
    };
    char key[96];

    gguf_put_text(w, "general.architecture", arch);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        (void)snprintf(key, sizeof(key), "%s.%s", arch, rows[i].name);
        gguf_put_u32(w, key, rows[i].value);
    }
    (void)snprintf(key, sizeof(key), "%s.attention.layer_norm_rms_epsilon", arch);
    gguf_put_f32(w, key, 1e-5F);
    (void)snprintf(key, sizeof(key), "%s.rope.freq_base", arch);
    gguf_put_f32(w, key, 10000.0F);
}

/* One layer of each architecture. */
uint8_t *fuzz_seed(size_t i, size_t *n)
{
    static const char *const archs[] = {"llama", "qwen2", "qwen3"};
    struct gguf_writer w;

    if (i >= sizeof(archs) / sizeof(archs[0])) {
        return NULL;
    }
    stream = 100 * i;
    gguf_writer_init(&w, 3, 32);
    put_numbers(&w, archs[i]);
    put_matrix(&w, "token_embd.weight", N_EMBD, N_VOCAB);
    put_vector(&w, "output_norm.weight", N_EMBD);
    put_vector(&w, "blk.0.attn_norm.weight", N_EMBD);
    put_matrix(&w, "blk.0.attn_q.weight", N_EMBD, 2 * HEAD_DIM);
    put_matrix(&w, "blk.0.attn_k.weight", N_EMBD, HEAD_DIM);
    put_matrix(&w, "blk.0.attn_v.weight", N_EMBD, HEAD_DIM);
    put_matrix(&w, "blk.0.attn_output.weight", 2 * HEAD_DIM, N_EMBD);
    put_vector(&w, "blk.0.ffn_norm.weight", N_EMBD);
    put_matrix(&w, "blk.0.ffn_gate.weight", N_EMBD, N_FF);
    put_matrix(&w, "blk.0.ffn_up.weight", N_EMBD, N_FF);
    put_matrix(&w, "blk.0.ffn_down.weight", N_FF, N_EMBD);
    if (i == 0) {
        put_matrix(&w, "output.weight", N_EMBD, N_VOCAB);
        put_vector(&w, "rope_freqs.weight", HEAD_DIM / 2);
    } else if (i == 1) {
        put_vector(&w, "blk.0.attn_q.bias", 2 * HEAD_DIM);
        put_vector(&w, "blk.0.attn_k.bias", HEAD_DIM);
        put_vector(&w, "blk.0.attn_v.bias", HEAD_DIM);
    } else {
        put_vector(&w, "blk.0.attn_q_norm.weight", HEAD_DIM);
        put_vector(&w, "blk.0.attn_k_norm.weight", HEAD_DIM);
    }
    return gguf_writer_finish(&w, n);
}
