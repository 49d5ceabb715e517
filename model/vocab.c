/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vocabulary of a GGUF file: texts, types, scores and special ids, each checked, and a hash
 * table from text to id. It does not cut text into tokens; bpe.c and spm.c do.
 */
#include "model/vocab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 1 << 26 };

static enum qy_status no_memory(struct qy_error *err)
{
    return qy_error_set(err, QY_ERR_NOMEM, "tokenizer: no memory for the vocabulary");
}

static int is_text(struct qy_text text, const char *word)
{
    return text.bytes == strlen(word) && memcmp(text.data, word, text.bytes) == 0;
}

static enum qy_status read_kind(const struct qy_gguf *gguf, struct qyi_vocab *vocab,
                                struct qy_error *err)
{
    struct qy_text kind;
    if (qy_gguf_get_text(gguf, "tokenizer.ggml.model", &kind) != 0) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "key 'tokenizer.ggml.model': missing or not a string; supported: gpt2 "
                            "(byte-level BPE), llama (SentencePiece)");
    }
    if (is_text(kind, "gpt2")) {
        vocab->kind = QYI_VOCAB_BPE;
        return QY_OK;
    }
    if (is_text(kind, "llama")) {
        vocab->kind = QYI_VOCAB_SPM;
        return QY_OK;
    }
    return qy_error_set(err, QY_ERR_UNSUPPORTED,
                        "tokenizer '%.*s': not supported; supported: gpt2 (byte-level BPE), llama "
                        "(SentencePiece)",
                        (int)(kind.bytes < 40 ? kind.bytes : 40), kind.data);
}

/* An array of the file with as many elements as there are tokens, or NULL in *array when the file
 * has none of that name. */
static enum qy_status find_array(const struct qy_gguf *gguf, const char *key, uint64_t count,
                                 const struct qy_gguf_value **array, struct qy_error *err)
{
    *array = qy_gguf_find_value(gguf, key);
    if (*array == NULL) {
        return QY_OK;
    }
    if ((*array)->type != QY_GGUF_ARRAY || (*array)->element == QY_GGUF_STRING) {
        return qy_error_set(err, QY_ERR_CORRUPT, "key '%s': not an array of numbers", key);
    }
    if ((*array)->count != count) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "key '%s': %llu elements; the vocabulary has %llu tokens", key,
                            (unsigned long long)(*array)->count, (unsigned long long)count);
    }
    return QY_OK;
}

static enum qy_status read_texts(const struct qy_gguf *gguf, struct qyi_vocab *vocab,
                                 struct qy_error *err)
{
    const struct qy_gguf_value *tokens = qy_gguf_find_value(gguf, "tokenizer.ggml.tokens");
    if (tokens == NULL || tokens->type != QY_GGUF_ARRAY || tokens->element != QY_GGUF_STRING ||
        tokens->count == 0 || tokens->count > MAX_TOKENS) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "key 'tokenizer.ggml.tokens': missing, or not an array of 1 to %d "
                            "strings",
                            MAX_TOKENS);
    }
    vocab->n_tokens = (uint32_t)tokens->count;
    vocab->texts = qy_alloc_zero(&vocab->mem, vocab->n_tokens * sizeof(*vocab->texts));
    if (vocab->texts == NULL) {
        return no_memory(err);
    }
    size_t cursor = 0;
    for (uint32_t i = 0; i < vocab->n_tokens; i++) {
        struct qy_text *text = &vocab->texts[i];
        if (qy_gguf_next_text(tokens, &cursor, text) != 0 || text->bytes > INT32_MAX / 4) {
            return qy_error_set(err, QY_ERR_CORRUPT,
                                "key 'tokenizer.ggml.tokens': token %u is missing or too long", i);
        }
        if (text->bytes > vocab->max_bytes) {
            vocab->max_bytes = (uint32_t)text->bytes;
        }
    }
    return QY_OK;
}

static enum qy_status read_types(const struct qy_gguf *gguf, struct qyi_vocab *vocab,
                                 struct qy_error *err)
{
    const struct qy_gguf_value *types;
    enum qy_status st = find_array(gguf, "tokenizer.ggml.token_type", vocab->n_tokens, &types, err);
    if (st != QY_OK) {
        return st;
    }
    vocab->types = qy_alloc_zero(&vocab->mem, vocab->n_tokens);
    if (vocab->types == NULL) {
        return no_memory(err);
    }
    for (uint32_t i = 0; i < vocab->n_tokens; i++) {
        double type = types == NULL ? QYI_TOKEN_NORMAL : qy_gguf_number_at(types, i);
        if (!(type >= 0 && type <= QYI_TOKEN_BYTE)) {
            return qy_error_set(err, QY_ERR_CORRUPT,
                                "key 'tokenizer.ggml.token_type': %g for token %u; accepted: 0 to "
                                "%d",
                                type, i, QYI_TOKEN_BYTE);
        }
        vocab->types[i] = (uint8_t)type;
        if (vocab->types[i] == 0) {
            vocab->types[i] = QYI_TOKEN_NORMAL; /* "undefined" of early files */
        }
    }
    return QY_OK;
}

static enum qy_status read_scores(const struct qy_gguf *gguf, struct qyi_vocab *vocab,
                                  struct qy_error *err)
{
    if (vocab->kind != QYI_VOCAB_SPM) {
        return QY_OK;
    }
    const struct qy_gguf_value *scores;
    enum qy_status st = find_array(gguf, "tokenizer.ggml.scores", vocab->n_tokens, &scores, err);
    if (st != QY_OK) {
        return st;
    }
    vocab->scores = qy_alloc_zero(&vocab->mem, vocab->n_tokens * sizeof(*vocab->scores));
    if (vocab->scores == NULL) {
        return no_memory(err);
    }
    for (uint32_t i = 0; scores != NULL && i < vocab->n_tokens; i++) {
        vocab->scores[i] = (float)qy_gguf_number_at(scores, i);
        if (isnan(vocab->scores[i])) {
            return qy_error_set(err, QY_ERR_CORRUPT,
                                "key 'tokenizer.ggml.scores': not a number for token %u", i);
        }
    }
    return QY_OK;
}

static uint32_t slot_of(const struct qyi_vocab *vocab, const void *text, size_t bytes)
{
    uint32_t at = (uint32_t)qy_checksum(text, bytes, 0) & vocab->slot_mask;
    for (; vocab->slots[at] >= 0; at = (at + 1) & vocab->slot_mask) {
        struct qy_text other = vocab->texts[vocab->slots[at]];
        if (other.bytes == bytes && memcmp(other.data, text, bytes) == 0) {
            break;
        }
    }
    return at;
}

static enum qy_status build_slots(struct qyi_vocab *vocab, struct qy_error *err)
{
    uint32_t n_slots = 16;
    while (n_slots < 2 * vocab->n_tokens) {
        n_slots *= 2;
    }
    vocab->slots = qy_alloc_zero(&vocab->mem, n_slots * sizeof(*vocab->slots));
    if (vocab->slots == NULL) {
        return no_memory(err);
    }
    memset(vocab->slots, 0xff, n_slots * sizeof(*vocab->slots));
    vocab->slot_mask = n_slots - 1;
    for (uint32_t i = 0; i < vocab->n_tokens; i++) {
        struct qy_text text = vocab->texts[i];
        vocab->slots[slot_of(vocab, text.data, text.bytes)] = (int32_t)i;
    }
    return QY_OK;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Lists the special tokens, the longest text first, then the lower id. */
static enum qy_status build_specials(struct qyi_vocab *vocab, struct qy_error *err)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < vocab->n_tokens; i++) {
        uint8_t type = vocab->types[i];
        n += type == QYI_TOKEN_CONTROL || type == QYI_TOKEN_UNKNOWN || type == QYI_TOKEN_USER;
    }
    uint64_t *keys = qy_alloc_zero(&vocab->mem, (n + 1) * sizeof(*keys));
    vocab->specials = qy_alloc_zero(&vocab->mem, (n + 1) * sizeof(*vocab->specials));
    if (keys == NULL || vocab->specials == NULL) {
        qy_free(&vocab->mem, keys);
        return no_memory(err);
    }
    n = 0;
    for (uint32_t i = 0; i < vocab->n_tokens; i++) {
        uint8_t type = vocab->types[i];
        struct qy_text text = vocab->texts[i];
        if (text.bytes > 0 &&
            (type == QYI_TOKEN_CONTROL || type == QYI_TOKEN_UNKNOWN || type == QYI_TOKEN_USER)) {
            keys[n++] = (uint64_t)(UINT32_MAX - (uint32_t)text.bytes) << 32 | i;
            vocab->special_first[(uint8_t)text.data[0]] = 1;
        }
    }
    if (n > 0) {
        qsort(keys, n, sizeof(*keys), by_value);
    }
    for (uint32_t i = 0; i < n; i++) {
        vocab->specials[i] = (uint32_t)keys[i];
    }
    vocab->n_specials = n;
    qy_free(&vocab->mem, keys);
    return QY_OK;
}

/* The id that key names; -1 when the file names none. */
static enum qy_status read_id(const struct qy_gguf *gguf, const char *key, uint32_t n_tokens,
                              int32_t missing, int32_t *id, struct qy_error *err)
{
    uint64_t value;
    int got = qy_gguf_get_u64(gguf, key, &value);
    if (got == -1 || (got == 0 && value == UINT32_MAX)) {
        *id = missing >= 0 && (uint32_t)missing < n_tokens && got == -1 ? missing : -1;
        return QY_OK;
    }
    if (got != 0 || value >= n_tokens) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "key '%s': not the id of a token; the vocabulary has %u tokens", key,
                            n_tokens);
    }
    *id = (int32_t)value;
    return QY_OK;
}

static int read_flag(const struct qy_gguf *gguf, const char *key, int missing)
{
    uint64_t value;
    return qy_gguf_get_u64(gguf, key, &value) == 0 ? value != 0 : missing;
}

/* Marks what ends a reply: EOS and EOT by id, and the usual names where they are control tokens. */
static enum qy_status read_special_ids(const struct qy_gguf *gguf, struct qyi_vocab *vocab,
                                       struct qy_error *err)
{
    static const char *const names[] = {"<|im_end|>",    "<|eot_id|>",   "<|end|>",
                                        "<|endoftext|>", "</s>",         "<|end_of_text|>",
                                        "<|eom_id|>",    "<end_of_turn>"};
    const int spm = vocab->kind == QYI_VOCAB_SPM;
    const struct {
        const char *key;
        int32_t missing;
        int ends;
    } keys[] = {{"tokenizer.ggml.bos_token_id", spm ? 1 : -1, 0},
                {"tokenizer.ggml.eos_token_id", spm ? 2 : -1, 1},
                {"tokenizer.ggml.unknown_token_id", spm ? 0 : -1, 0},
                {"tokenizer.ggml.eot_token_id", -1, 1},
                {"tokenizer.ggml.eom_token_id", -1, 1}};
    int32_t ids[sizeof(keys) / sizeof(keys[0])];

    vocab->is_end = qy_alloc_zero(&vocab->mem, vocab->n_tokens);
    if (vocab->is_end == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        enum qy_status st =
            read_id(gguf, keys[i].key, vocab->n_tokens, keys[i].missing, &ids[i], err);
        if (st != QY_OK) {
            return st;
        }
        if (keys[i].ends && ids[i] >= 0) {
            vocab->is_end[ids[i]] = 1;
        }
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        int32_t id = qyi_vocab_find(vocab, names[i], strlen(names[i]));
        if (id >= 0 && vocab->types[id] == QYI_TOKEN_CONTROL) {
            vocab->is_end[id] = 1;
        }
    }
    vocab->bos = ids[0];
    vocab->eos = ids[1];
    vocab->unknown = ids[2];
    vocab->add_bos = read_flag(gguf, "tokenizer.ggml.add_bos_token", spm);
    vocab->add_eos = read_flag(gguf, "tokenizer.ggml.add_eos_token", 0);
    vocab->add_space_prefix = read_flag(gguf, "tokenizer.ggml.add_space_prefix", spm);
    return QY_OK;
}

enum qy_status qyi_vocab_open(const struct qy_allocator *mem, const struct qy_gguf *gguf,
                              struct qyi_vocab *vocab, struct qy_error *err)
{
    vocab->mem = *mem;
    enum qy_status st = read_kind(gguf, vocab, err);
    if (st == QY_OK) {
        st = read_texts(gguf, vocab, err);
    }
    if (st == QY_OK) {
        st = read_types(gguf, vocab, err);
    }
    if (st == QY_OK) {
        st = read_scores(gguf, vocab, err);
    }
    if (st == QY_OK) {
        st = build_slots(vocab, err);
    }
    if (st == QY_OK) {
        st = build_specials(vocab, err);
    }
    if (st == QY_OK) {
        st = read_special_ids(gguf, vocab, err);
    }
    if (st != QY_OK) {
        qyi_vocab_close(vocab);
    }
    return st;
}

void qyi_vocab_close(struct qyi_vocab *vocab)
{
    qy_free(&vocab->mem, vocab->texts);
    qy_free(&vocab->mem, vocab->types);
    qy_free(&vocab->mem, vocab->scores);
    qy_free(&vocab->mem, vocab->is_end);
    qy_free(&vocab->mem, vocab->slots);
    qy_free(&vocab->mem, vocab->specials);
    memset(vocab, 0, sizeof(*vocab));
}

int32_t qyi_vocab_find(const struct qyi_vocab *vocab, const void *text, size_t bytes)
{
    return bytes > vocab->max_bytes ? -1 : vocab->slots[slot_of(vocab, text, bytes)];
}

int32_t qyi_vocab_find_normal(const struct qyi_vocab *vocab, const void *text, size_t bytes)
{
    int32_t id = qyi_vocab_find(vocab, text, bytes);
    return id >= 0 && vocab->types[id] == QYI_TOKEN_NORMAL ? id : -1;
}
