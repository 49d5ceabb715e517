/* SPDX-License-Identifier: Apache-2.0 */
/* The table of the tiny models and their tensors; see the header. */
#include "tests/support/tiny_models.h"

#include "tests/support/make_gguf_random.h"
#include "tests/support/make_gguf_vocab.h"
#include "tests/support/make_gguf_writer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* All six kinds of matrix of one type. */
#define ALL(t) .embd = (t), .attn = (t), .attn_v = (t), .ffn = (t), .ffn_down = (t), .output = (t)

static const struct tiny_spec specs[] = {
    {"llama_f32", "llama", 2, 128, 4, 2, 64, 192, ALL(QY_TYPE_F32), .tied = 1,
     .rope_base = 10000.0F, .vocab = TINY_BPE, .pre = "smollm", .seed = 1},
    {"llama_f16", "llama", 2, 96, 4, 1, 80, 160, ALL(QY_TYPE_F16), .rope_base = 10000.0F,
     .vocab = TINY_BPE, .pre = "gpt-2", .add_prefix = 1, .seed = 2},
    {"llama_bf16", "llama", 2, 192, 2, 1, 128, 256, ALL(QY_TYPE_BF16), .tied = 1, .rope_factors = 1,
     .rope_base = 500000.0F, .vocab = TINY_BPE, .pre = "llama-bpe", .add_prefix = 1, .seed = 3},
    {"llama_q4_0", "llama", 2, 128, 2, 2, 64, 192, ALL(QY_TYPE_Q4_0), .rope_base = 10000.0F,
     .vocab = TINY_SPM, .add_prefix = 1, .seed = 4},
    /* The mix of the SmolLM2 file: a wider type for the tied embedding. */
    {"llama_q4_1", "llama", 2, 192, 3, 1, 64, 256, .embd = QY_TYPE_Q8_0, .attn = QY_TYPE_Q4_1,
     .attn_v = QY_TYPE_Q4_1, .ffn = QY_TYPE_Q4_1, .ffn_down = QY_TYPE_Q4_1, .tied = 1,
     .rope_base = 100000.0F, .vocab = TINY_BPE, .pre = "smollm", .seed = 5},
    {"qwen2_q5_0", "qwen2", 2, 256, 4, 2, 64, 256, ALL(QY_TYPE_Q5_0), .rope_base = 1000000.0F,
     .vocab = TINY_BPE, .pre = "qwen2", .seed = 6},
    {"qwen2_q5_1", "qwen2", 2, 160, 2, 1, 80, 192, ALL(QY_TYPE_Q5_1), .tied = 1,
     .rope_base = 10000.0F, .vocab = TINY_BPE, .pre = "qwen2", .seed = 7},
    {"qwen3_q8_0", "qwen3", 2, 128, 2, 1, 128, 256, ALL(QY_TYPE_Q8_0), .tied = 1,
     .rope_base = 1000000.0F, .vocab = TINY_BPE, .pre = "qwen2", .seed = 8},
    /* The mix that Q4_K_M files have: v, down and output in Q6_K. */
    {"llama_q4_k", "llama", 2, 256, 4, 1, 64, 512, .embd = QY_TYPE_Q4_K, .attn = QY_TYPE_Q4_K,
     .attn_v = QY_TYPE_Q6_K, .ffn = QY_TYPE_Q4_K, .ffn_down = QY_TYPE_Q6_K, .output = QY_TYPE_Q6_K,
     .rope_base = 10000.0F, .vocab = TINY_SPM, .seed = 9},
    {"qwen3_q5_k", "qwen3", 2, 256, 4, 2, 128, 256, .embd = QY_TYPE_Q6_K, .attn = QY_TYPE_Q5_K,
     .attn_v = QY_TYPE_Q5_K, .ffn = QY_TYPE_Q5_K, .ffn_down = QY_TYPE_Q5_K, .tied = 1,
     .rope_base = 1000000.0F, .vocab = TINY_BPE, .pre = "qwen2", .seed = 10},
};

const char tiny_text[] =
    "Hello, the 2024 caf\xc3\xa9s' sun isn't there;  and 12345 "
    "na\xc3\xafve \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x99\x82 end.\n\n"
    "\tfoo(bar) = x_1 + 3.14;\n  it\xe2\x80\x99s OK, I'LL be    at THE "
    "ten\t\r\n \n stores  ";
const char tiny_chat[] = "<|im_start|>user\nThe end?<|im_end|>\n<s> <tool>and </s>";

const struct tiny_spec *tiny_spec_at(size_t i)
{
    return i < sizeof(specs) / sizeof(specs[0]) ? &specs[i] : NULL;
}

const struct tiny_spec *tiny_spec_find(const char *name)
{
    for (size_t i = 0; tiny_spec_at(i); i++) {
        if (strcmp(specs[i].name, name) == 0) {
            return &specs[i];
        }
    }
    return NULL;
}

uint32_t tiny_n_vocab(const struct tiny_spec *spec)
{
    return spec->vocab == TINY_BPE ? VOCAB_BPE_SIZE : VOCAB_SPM_SIZE;
}

/* ---- building ---- */

/* A file being built; every tensor gets a random stream of its own. */
struct build {
    const struct tiny_spec *spec;
    struct gguf_writer w;
    uint64_t stream;
};

static uint64_t next_stream(struct build *b)
{
    b->stream++;
    return random_bits(b->spec->seed, b->stream);
}

/* A matrix whose product with a normalized vector has a standard deviation of about 1.2: enough
 * for attention to have peaks, so that a wrong position or rotation shows in the logits. */
static void put_matrix(struct build *b, const char *name, enum qy_tensor_type type, uint32_t n_in,
                       uint32_t n_out, float sigma)
{
    const uint64_t dims[2] = {n_in, n_out};
    const size_t n = (size_t)n_in * n_out;
    const size_t bytes = n / random_block_elems(type) * random_block_bytes(type);
    uint8_t *data = gguf_put_tensor(&b->w, name, 2, dims, (uint32_t)type, bytes);

    random_tensor(type, n, sigma, next_stream(b), data);
}

static void put_product(struct build *b, const char *name, enum qy_tensor_type type, uint32_t n_in,
                        uint32_t n_out)
{
    put_matrix(b, name, type, n_in, n_out, 1.2F / sqrtf((float)n_in));
}

static void put_vector(struct build *b, const char *name, uint32_t n, float centre, float spread)
{
    const uint64_t dims[1] = {n};
    uint8_t *data = gguf_put_tensor(&b->w, name, 1, dims, QY_TYPE_F32, 4 * (size_t)n);

    random_vector(n, centre, spread, next_stream(b), data);
}

static const char *layer_name(char out[64], uint32_t layer, const char *part)
{
    (void)snprintf(out, 64, "blk.%u.%s", layer, part);
    return out;
}

static void put_layer(struct build *b, uint32_t layer)
{
    const struct tiny_spec *s = b->spec;
    const uint32_t q_width = s->n_heads * s->head_dim;
    const uint32_t kv_width = s->n_kv_heads * s->head_dim;
    char name[64];

    put_vector(b, layer_name(name, layer, "attn_norm.weight"), s->n_embd, 1.0F, 0.3F);
    put_product(b, layer_name(name, layer, "attn_q.weight"), s->attn, s->n_embd, q_width);
    put_product(b, layer_name(name, layer, "attn_k.weight"), s->attn, s->n_embd, kv_width);
    put_product(b, layer_name(name, layer, "attn_v.weight"), s->attn_v, s->n_embd, kv_width);
    if (strcmp(s->architecture, "qwen2") == 0) {
        put_vector(b, layer_name(name, layer, "attn_q.bias"), q_width, 0.0F, 0.5F);
        put_vector(b, layer_name(name, layer, "attn_k.bias"), kv_width, 0.0F, 0.5F);
        put_vector(b, layer_name(name, layer, "attn_v.bias"), kv_width, 0.0F, 0.5F);
    }
    if (strcmp(s->architecture, "qwen3") == 0) {
        put_vector(b, layer_name(name, layer, "attn_q_norm.weight"), s->head_dim, 1.0F, 0.5F);
        put_vector(b, layer_name(name, layer, "attn_k_norm.weight"), s->head_dim, 1.0F, 0.5F);
    }
    put_product(b, layer_name(name, layer, "attn_output.weight"), s->attn, q_width, s->n_embd);
    put_vector(b, layer_name(name, layer, "ffn_norm.weight"), s->n_embd, 1.0F, 0.3F);
    put_product(b, layer_name(name, layer, "ffn_gate.weight"), s->ffn, s->n_embd, s->n_ff);
    put_product(b, layer_name(name, layer, "ffn_up.weight"), s->ffn, s->n_embd, s->n_ff);
    put_product(b, layer_name(name, layer, "ffn_down.weight"), s->ffn_down, s->n_ff, s->n_embd);
}

static void put_number(struct build *b, const char *suffix, uint32_t value)
{
    char key[96];

    (void)snprintf(key, sizeof(key), "%s.%s", b->spec->architecture, suffix);
    gguf_put_u32(&b->w, key, value);
}

static void put_real(struct build *b, const char *suffix, float value)
{
    char key[96];

    (void)snprintf(key, sizeof(key), "%s.%s", b->spec->architecture, suffix);
    gguf_put_f32(&b->w, key, value);
}

static void put_metadata(struct build *b)
{
    const struct tiny_spec *s = b->spec;

    gguf_put_text(&b->w, "general.architecture", s->architecture);
    gguf_put_text(&b->w, "general.name", s->name);
    put_number(b, "context_length", 512);
    put_number(b, "embedding_length", s->n_embd);
    put_number(b, "block_count", s->n_layers);
    put_number(b, "feed_forward_length", s->n_ff);
    put_number(b, "attention.head_count", s->n_heads);
    put_number(b, "attention.head_count_kv", s->n_kv_heads);
    put_number(b, "attention.key_length", s->head_dim);
    put_number(b, "attention.value_length", s->head_dim);
    put_real(b, "attention.layer_norm_rms_epsilon", 1e-5F);
    put_number(b, "rope.dimension_count", s->head_dim);
    put_real(b, "rope.freq_base", s->rope_base);
    put_number(b, "vocab_size", tiny_n_vocab(s));
    if (s->vocab == TINY_BPE) {
        vocab_put_bpe(&b->w, s->pre, s->add_prefix);
    } else {
        vocab_put_spm(&b->w, s->add_prefix);
    }
}

uint8_t *tiny_build(const struct tiny_spec *spec, size_t *n_bytes)
{
    struct build b = {.spec = spec};

    gguf_writer_init(&b.w, 3, 32);
    put_metadata(&b);
    put_matrix(&b, "token_embd.weight", spec->embd, spec->n_embd, tiny_n_vocab(spec), 0.5F);
    put_vector(&b, "output_norm.weight", spec->n_embd, 1.0F, 0.3F);
    if (!spec->tied) {
        put_product(&b, "output.weight", spec->output, spec->n_embd, tiny_n_vocab(spec));
    }
    if (spec->rope_factors) {
        /* Llama 3 slows only frequencies that a short prompt hardly turns; these show. */
        put_vector(&b, "rope_freqs.weight", spec->head_dim / 2, 4.5F, 3.5F);
    }
    for (uint32_t layer = 0; layer < spec->n_layers; layer++) {
        put_layer(&b, layer);
    }
    return gguf_writer_finish(&b.w, n_bytes);
}
