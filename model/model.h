/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model: turns a GGUF file and text into calls of offload. The file reader, the tokenizer, chat
 * templates, the Llama-family decoder and the sampler.
 *
 * A GGUF file and a prompt are not trusted: every offset, count and size is checked.
 */
#ifndef QY_MODEL_H
#define QY_MODEL_H

#include "offload/offload.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- GGUF ---------------------------------------------------------------------------------- */

struct qy_gguf; /* an open, checked file, mapped read-only */

/* Opens versions 2 and 3. QY_ERR_NOT_FOUND no such file; QY_ERR_CORRUPT what is wrong and at which
 * offset; QY_ERR_UNSUPPORTED version, byte order or tensor type, with the list of what is
 * supported. Allocates at most a small constant times the file's size. [setup] [alloc] */
QY_MUST enum qy_status qy_gguf_open(const struct qy_allocator *mem, const char *path,
                                    struct qy_gguf **gguf, struct qy_error *err);
/* The same over bytes in memory (kept until close). name is for messages. */
QY_MUST enum qy_status qy_gguf_open_memory(const struct qy_allocator *mem, const void *bytes,
                                           size_t n_bytes, const char *name, struct qy_gguf **gguf,
                                           struct qy_error *err);
void qy_gguf_close(struct qy_gguf *gguf);

enum qy_gguf_type {
    QY_GGUF_U8,
    QY_GGUF_I8,
    QY_GGUF_U16,
    QY_GGUF_I16,
    QY_GGUF_U32,
    QY_GGUF_I32,
    QY_GGUF_F32,
    QY_GGUF_BOOL,
    QY_GGUF_STRING,
    QY_GGUF_ARRAY,
    QY_GGUF_U64,
    QY_GGUF_I64,
    QY_GGUF_F64
};

/* Bytes of the mapping; not NUL-terminated. */
struct qy_text {
    const char *data;
    size_t bytes;
};

/* A metadata value that stays in the mapping. */
struct qy_gguf_value {
    struct qy_text key;
    enum qy_gguf_type type;
    enum qy_gguf_type element; /* of an array (never an array of arrays)                 */
    uint64_t count;            /* of an array; 1 otherwise                              */
    const uint8_t *data;       /* first element (strings: u64 length then bytes), unaligned */
    size_t bytes;              /* of all elements                                       */
};

struct qy_gguf_tensor {
    struct qy_text name;
    uint32_t n_dims;
    uint64_t dims[4]; /* dims[0] is the row length; missing ones are 1 */
    enum qy_tensor_type type;
    const void *data; /* in the mapping */
    uint64_t bytes;
};

size_t qy_gguf_n_values(const struct qy_gguf *gguf);
size_t qy_gguf_n_tensors(const struct qy_gguf *gguf);
const struct qy_gguf_value *qy_gguf_value_at(const struct qy_gguf *gguf, size_t i);
const struct qy_gguf_tensor *qy_gguf_tensor_at(const struct qy_gguf *gguf, size_t i);
const struct qy_gguf_value *qy_gguf_find_value(const struct qy_gguf *gguf, const char *key);
const struct qy_gguf_tensor *qy_gguf_find_tensor(const struct qy_gguf *gguf, const char *name);
/* Any integer type -> out; any float type -> out; string -> out; bool or integer -> out.
 * 0 done, -1 the key is missing, -2 it has another type or is out of range. [noalloc] */
int qy_gguf_get_u64(const struct qy_gguf *gguf, const char *key, uint64_t *out);
int qy_gguf_get_f64(const struct qy_gguf *gguf, const char *key, double *out);
int qy_gguf_get_text(const struct qy_gguf *gguf, const char *key, struct qy_text *out);
/* Element i (in order) of an array of strings: *cursor starts at 0 and is moved on. -1 at the end. */
int qy_gguf_next_text(const struct qy_gguf_value *array, size_t *cursor, struct qy_text *out);
/* Element i of an array of integers or floats as double. */
double qy_gguf_number_at(const struct qy_gguf_value *array, uint64_t i);
/* XXH3 over metadata and tensor table plus samples of the data: names this model. */
uint64_t qy_gguf_hash(const struct qy_gguf *gguf);

/* ---- tokenizer ------------------------------------------------------------------------------ */

struct qy_tokenizer;

/* Byte-level BPE (`gpt2` with pre-tokenizers smollm, gpt-2, llama-bpe, qwen2 and their aliases) and
 * SentencePiece (`llama`). QY_ERR_UNSUPPORTED lists what is supported. gguf is kept until close. */
QY_MUST enum qy_status qy_tokenizer_open(const struct qy_allocator *mem, const struct qy_gguf *gguf,
                                         struct qy_tokenizer **tokenizer, struct qy_error *err);
void qy_tokenizer_close(struct qy_tokenizer *tokenizer);

enum qy_encode_flags {
    QY_ENCODE_SPECIAL = 1, /* "<|im_start|>" in the text becomes its control token             */
    QY_ENCODE_BOS = 2      /* put BOS (and EOS) where the file says add_bos_token / add_eos_token;
                              a BOS that the text brings itself is not doubled              */
};

/* ids [*n_ids] returned, freed with qy_free. Any bytes are taken (invalid UTF-8 too), and decoding
 * gives them back exactly, with one exception: a byte that the vocabulary has no token for (some
 * lack control characters and bytes that UTF-8 never uses) becomes U+FFFD. At most 1 GiB. [alloc] */
QY_MUST enum qy_status qy_tokenizer_encode(const struct qy_tokenizer *tokenizer, const char *text,
                                           size_t bytes, unsigned flags, int32_t **ids,
                                           size_t *n_ids, struct qy_error *err);

/* A part of a text. Control tokens are recognised only inside one trusted span: text of users goes
 * in spans that are not, so that "<|im_end|>" in it stays ordinary text. */
struct qy_span {
    const char *text;
    size_t bytes;
    int trusted;
};

/* One text given in spans: the ids are those of the joined text, except that control tokens come
 * from trusted spans alone. flags: QY_ENCODE_BOS. Otherwise like qy_tokenizer_encode. [alloc] */
QY_MUST enum qy_status qy_tokenizer_encode_spans(const struct qy_tokenizer *tokenizer,
                                                 const struct qy_span *spans, size_t n_spans,
                                                 unsigned flags, int32_t **ids, size_t *n_ids,
                                                 struct qy_error *err);
/* Bytes of one token into out; returns their number (0 for control tokens unless special != 0), or
 * -1 when id is out of range; -(needed) - 1 when out_bytes is too small. [noalloc] */
int qy_tokenizer_piece(const struct qy_tokenizer *tokenizer, int32_t id, int special, char *out,
                       size_t out_bytes);
/* All tokens; *text returned (NUL-terminated), freed with qy_free. A SentencePiece text loses the
 * space that encoding put in front. [alloc] */
QY_MUST enum qy_status qy_tokenizer_decode(const struct qy_tokenizer *tokenizer, const int32_t *ids,
                                           size_t n_ids, int special, char **text, size_t *bytes,
                                           struct qy_error *err);
uint32_t qy_tokenizer_size(const struct qy_tokenizer *tokenizer);
int32_t qy_tokenizer_bos(const struct qy_tokenizer *tokenizer); /* -1 = none */
int32_t qy_tokenizer_eos(const struct qy_tokenizer *tokenizer); /* -1 = none */
/* Ends a reply: EOS, EOT, <|im_end|>, <|eot_id|> ... */
int qy_tokenizer_is_end(const struct qy_tokenizer *tokenizer, int32_t id);
/* The token with exactly this text, or -1. */
int32_t qy_tokenizer_find(const struct qy_tokenizer *tokenizer, const char *text);

/* Holds back bytes of a UTF-8 character that is not complete yet: a stream never splits one. */
struct qy_utf8_stream {
    char pending[4];
    uint32_t n_pending;
};
/* Adds bytes, writes what is complete (invalid bytes pass through) to out, which holds at least
 * bytes + 4. Returns the number written. flush != 0: everything. [noalloc] */
size_t qy_utf8_push(struct qy_utf8_stream *stream, const char *bytes, size_t n, int flush,
                    char *out);

/* ---- chat ------------------------------------------------------------------------------------ */

enum qy_chat_format { QY_CHAT_NONE, QY_CHAT_CHATML, QY_CHAT_LLAMA3 };

/* Looks at tokenizer.chat_template. */
enum qy_chat_format qy_chat_detect(const struct qy_gguf *gguf);
/* A message as three spans for qy_tokenizer_encode_spans: before (trusted), content (not trusted:
 * written by users), after (trusted). */
struct qy_chat_parts {
    char *before, *after; /* NUL-terminated; freed with qy_chat_parts_free                        */
    const char *content;  /* inside the caller's content, less white space that the format trims  */
    size_t bytes;         /* of content                                                         */
};

/* One message in that format; role is "system", "user", "assistant" or another lower-case word.
 * With open_reply, after ends with the start of the assistant's reply. first: the conversation
 * starts here (BOS text of Llama-3; the default system message that a ChatML template names, when
 * role is not "system"). parts returned. QY_CHAT_NONE: before and after are empty. [alloc] */
QY_MUST enum qy_status qy_chat_format_message(const struct qy_allocator *mem,
                                              const struct qy_gguf *gguf,
                                              enum qy_chat_format format, const char *role,
                                              const char *content, size_t bytes, int first,
                                              int open_reply, struct qy_chat_parts *parts,
                                              struct qy_error *err);
void qy_chat_parts_free(const struct qy_allocator *mem, struct qy_chat_parts *parts);
/* Text that closes a generated reply before the next message ("<|im_end|>\n", "<|eot_id|>", ""). Its
 * first token is the one a model ends its reply with. */
const char *qy_chat_reply_end(enum qy_chat_format format);

/* ---- sampler --------------------------------------------------------------------------------- */

struct qy_sampler_params {
    float temperature; /* 0 = greedy */
    int32_t top_k;     /* 0 = off    */
    float top_p;       /* 1 = off    */
    float min_p;       /* 0 = off    */
    uint64_t seed;
};
struct qy_sampler;

QY_MUST enum qy_status qy_sampler_open(const struct qy_allocator *mem, uint32_t n_vocab,
                                       const struct qy_sampler_params *params,
                                       struct qy_sampler **sampler, struct qy_error *err);
void qy_sampler_close(struct qy_sampler *sampler);
/* Next id from logits [n_vocab]; greedy ties go to the lower id. gap (may be NULL) receives first
 * minus second logit. -1 when a logit is NaN or none is above -infinity. [noalloc] */
int32_t qy_sampler_next(struct qy_sampler *sampler, const float *logits, float *gap);
/* ln p(id) under logits. [noalloc] */
double qy_log_prob(const float *logits, uint32_t n_vocab, int32_t id);

/* ---- model ------------------------------------------------------------------------------------ */

struct qy_model_info {
    char architecture[32], name[96];
    uint32_t n_layers, n_heads, n_kv_heads, head_dim, n_embd, n_ff, n_vocab, n_ctx_train;
    uint64_t n_params;
    float norm_eps, rope_base;
};

struct qy_model;

struct qy_model_params {
    const struct qy_runtime *rt; /* kept */
    struct qy_device *dev;       /* kept */
    uint32_t max_step_tokens;    /* rows of one forward pass: the prefill chunk              */
    uint32_t max_logits;         /* rows of one forward pass that give logits                */
};

/* Architectures llama, qwen2, qwen3. gguf is kept until close. [setup] [alloc] */
QY_MUST enum qy_status qy_model_open(const struct qy_model_params *params,
                                     const struct qy_gguf *gguf, struct qy_model **model,
                                     struct qy_error *err);
void qy_model_close(struct qy_model *model);
const struct qy_model_info *qy_model_info(const struct qy_model *model);
/* Shape and rotation for qy_cache_open. */
struct qy_kv_shape qy_model_kv_shape(const struct qy_model *model);
struct qy_rope qy_model_rope(const struct qy_model *model);
float qy_model_scale(const struct qy_model *model); /* of q . k; 0 = 1/sqrt(head_dim) */
/* Weights in memory beside the file's mapping, and activations. */
uint64_t qy_model_weight_bytes(const struct qy_model *model);
uint64_t qy_model_activation_bytes(const struct qy_model *model);

/* One forward pass of what the slices add: begins, runs and ends a step of the cache.
 *   logits [n_logits][n_vocab] f32 of rows logit_rows [n_logits] (row = place in the slices' tokens
 *   in order). n_logits 0: none.
 * QY_AGAIN: the cache has no room (nothing changed). Any other failure aborts the step.
 * [owner] [noalloc] */
QY_MUST enum qy_status qy_model_forward(struct qy_model *model, struct qy_cache *cache,
                                        const struct qy_step_slice *slices, uint32_t n_slices,
                                        const uint32_t *logit_rows, uint32_t n_logits,
                                        float *logits, struct qy_error *err);

/* Forgets a sequence's tokens from `first` on and computes them again from the ids that the cache
 * keeps: chunks as chunks (of at most max_step_tokens), single tokens as they were attended then. With
 * step.deterministic the rows are those of before, bit for bit. chosen: tokens of a chunk of which one
 * alone is left join a step as a single token that attends to everything, which rounds otherwise.
 * QY_ERR_INVALID: first is above its length, or rows are random (qy_sequence_fill_random): nothing
 * changed. Other failures: the sequence ends before the token that failed. [owner] [alloc] */
QY_MUST enum qy_status qy_model_recompute(struct qy_model *model, struct qy_cache *cache,
                                          struct qy_sequence *seq, uint32_t first,
                                          struct qy_error *err);

/* The second half of it: adds the tokens that a sequence once had, from its end on. ids and origins [n] are
 * those of all of it, as qy_sequence_ids and qy_sequence_origins gave them then; borrowed, and not the
 * sequence's own. QY_ERR_INVALID: it has more than n, or rows are random: nothing changed. Other failures:
 * it ends before the step that failed, and may be replayed from there. [owner] [noalloc] */
QY_MUST enum qy_status qy_model_replay(struct qy_model *model, struct qy_cache *cache,
                                       struct qy_sequence *seq, const int32_t *ids,
                                       const uint8_t *origins, uint32_t n, struct qy_error *err);

/* Time of the fixed part of forward passes since the last reset. */
enum qy_model_stage {
    QY_MODEL_EMBED,
    QY_MODEL_NORM,
    QY_MODEL_QKV,
    QY_MODEL_GUESS, /* queries of the next layer, for step.prefetch */
    QY_MODEL_KV,
    QY_MODEL_PROJECT,
    QY_MODEL_MLP,
    QY_MODEL_OUTPUT,
    QY_MODEL_STAGE_COUNT
}; /* KV: all of qy_step_*; its parts are in qy_cache_stats */
const char *qy_model_stage_name(enum qy_model_stage stage);
void qy_model_times(const struct qy_model *model, uint64_t stage_ns[QY_MODEL_STAGE_COUNT]);
void qy_model_times_reset(struct qy_model *model);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
