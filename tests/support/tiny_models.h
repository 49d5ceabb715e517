/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tiny random models of the tests, made from a table and a seed, and what llama.cpp answers
 * for their f32 form (tests/data/tiny/<name>.bin, written by make_reference.py).
 *
 * Together they have each architecture, tensor type and vocabulary kind, d = 64, 80 and 128, both
 * RoPE conventions, RoPE factors, tied and untied output, and groups of 1 to 4 query heads.
 */
#ifndef QY_TESTS_SUPPORT_TINY_MODELS_H
#define QY_TESTS_SUPPORT_TINY_MODELS_H

#include "model/model.h"

enum tiny_vocab { TINY_BPE, TINY_SPM };

struct tiny_spec {
    const char *name, *architecture;
    uint32_t n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff;
    /* Tensor types: token_embd; q, k and output projection of attention; v; gate and up; down;
     * the output matrix (unused when tied). */
    enum qy_tensor_type embd, attn, attn_v, ffn, ffn_down, output;
    int tied;         /* no output matrix: token_embd serves            */
    int rope_factors; /* with rope_freqs.weight, as Llama 3 has it      */
    float rope_base;
    enum tiny_vocab vocab;
    const char *pre; /* of TINY_BPE */
    int add_prefix;  /* BPE: add_bos_token; SPM: add_space_prefix */
    uint64_t seed;
};

/* Model i, NULL past the end. */
const struct tiny_spec *tiny_spec_at(size_t i);
const struct tiny_spec *tiny_spec_find(const char *name);
uint32_t tiny_n_vocab(const struct tiny_spec *spec);
/* The file's bytes: returned, freed with free(). */
uint8_t *tiny_build(const struct tiny_spec *spec, size_t *n_bytes);

/* Texts whose ids are in the references. `make_gguf --text` and `--chat` print them. */
extern const char tiny_text[]; /* contractions, digits, spaces, accents, an emoji */
extern const char tiny_chat[]; /* with special tokens                             */

struct tiny_reference {
    uint32_t n_text, n_chat, n_ids, first_position, n_positions, n_vocab;
    const int32_t *text_ids; /* [n_text] of tiny_text, nothing added, no special tokens       */
    const int32_t *chat_ids; /* [n_chat] of tiny_chat, QY_ENCODE_SPECIAL | QY_ENCODE_BOS       */
    const int32_t *ids;      /* [n_ids] the prompt                                            */
    const float *logits;     /* [n_positions][n_vocab] of positions first_position and on     */
    void *store;
};

/* Reads directory/<name>.bin; tests run in the source folder: "tests/data/tiny". 0 on success; -1
 * with the reason on stderr. */
int tiny_reference_load(const char *directory, const char *name, struct tiny_reference *out);
void tiny_reference_free(struct tiny_reference *reference);

#endif
