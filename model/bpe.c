/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909; over bytes as GPT-2 does).
 * Words come from pretokenize.c. A merge that names a text which is no ordinary token is left out:
 * it could never give a token.
 */
#include "model/bpe.h"

#include <string.h>

#include "model/utf8.h"

struct qyi_bpe_pair {
    uint64_t key; /* left id + 1, right id; 0 = free */
    uint32_t rank;
    int32_t id; /* of the merged token */
};

/* The character that stands for a byte: itself where it is printable Latin-1, else the next free
 * one from U+0100. */
static uint32_t byte_char(uint8_t byte)
{
    if ((byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad)) {
        return byte;
    }
    if (byte <= 0x20) {
        return 0x100u + byte;
    }
    if (byte == 0xad) {
        return 0x143;
    }
    return 0x121u + (byte - 0x7fu);
}

/* The byte that a character stands for; -1 = none. */
static int char_byte(uint32_t c)
{
    if ((c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xff && c != 0xad)) {
        return (int)c;
    }
    if (c >= 0x100 && c <= 0x120) {
        return (int)(c - 0x100);
    }
    if (c >= 0x121 && c <= 0x142) {
        return (int)(c - 0x121 + 0x7f);
    }
    return c == 0x143 ? 0xad : -1;
}

static uint32_t pair_slot(const struct qyi_bpe *bpe, uint64_t key)
{
    uint64_t hash = key * UINT64_C(0x9e3779b97f4a7c15);
    uint32_t at = (uint32_t)(hash >> 32) & bpe->pair_mask;
    while (bpe->pairs[at].key != 0 && bpe->pairs[at].key != key) {
        at = (at + 1) & bpe->pair_mask;
    }
    return at;
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return ((uint64_t)(uint32_t)left + 1) << 32 | (uint32_t)right;
}

/* Adds "left right". scratch holds the longest merge. 0, or -1 when the text has no second part. */
static int add_merge(struct qyi_bpe *bpe, const struct qyi_vocab *vocab, struct qy_text merge,
                     uint32_t rank, char *scratch)
{
    const char *space = merge.bytes < 3 ? NULL : memchr(merge.data + 1, ' ', merge.bytes - 1);
    size_t left_bytes = space == NULL ? 0 : (size_t)(space - merge.data);
    if (space == NULL || left_bytes + 1 == merge.bytes) {
        return -1;
    }
    size_t right_bytes = merge.bytes - left_bytes - 1;
    int32_t left = qyi_vocab_find_normal(vocab, merge.data, left_bytes);
    int32_t right = qyi_vocab_find_normal(vocab, space + 1, right_bytes);
    if (left < 0 || right < 0) {
        return 0;
    }
    memcpy(scratch, merge.data, left_bytes);
    memcpy(scratch + left_bytes, space + 1, right_bytes);
    int32_t id = qyi_vocab_find_normal(vocab, scratch, left_bytes + right_bytes);
    if (id < 0) {
        return 0;
    }
    struct qyi_bpe_pair *pair = &bpe->pairs[pair_slot(bpe, pair_key(left, right))];
    if (pair->key == 0) { /* of equal merges the first counts */
        pair->key = pair_key(left, right);
        pair->rank = rank;
        pair->id = id;
    }
    return 0;
}

static enum qy_status read_merges(const struct qy_gguf_value *merges, const struct qyi_vocab *vocab,
                                  struct qyi_bpe *bpe, struct qy_error *err)
{
    uint32_t n_slots = 16;
    while (n_slots / 2 < merges->count) {
        n_slots *= 2;
    }
    struct qy_text merge;
    size_t longest = 0;
    for (size_t cursor = 0; qy_gguf_next_text(merges, &cursor, &merge) == 0;) {
        longest = merge.bytes > longest ? merge.bytes : longest;
    }
    bpe->pairs = qy_alloc_zero(&bpe->mem, n_slots * sizeof(*bpe->pairs));
    char *scratch = qy_alloc_zero(&bpe->mem, longest + 1);
    if (bpe->pairs == NULL || scratch == NULL) {
        qy_free(&bpe->mem, scratch);
        return qy_error_set(err, QY_ERR_NOMEM, "tokenizer: no memory for %llu merges",
                            (unsigned long long)merges->count);
    }
    bpe->pair_mask = n_slots - 1;
    enum qy_status st = QY_OK;
    uint32_t rank = 0;
    for (size_t cursor = 0; qy_gguf_next_text(merges, &cursor, &merge) == 0; rank++) {
        if (add_merge(bpe, vocab, merge, rank, scratch) != 0) {
            st = qy_error_set(err, QY_ERR_CORRUPT,
                              "key 'tokenizer.ggml.merges': merge %u is not two texts with a space "
                              "between",
                              rank);
            break;
        }
    }
    qy_free(&bpe->mem, scratch);
    return st;
}

enum qy_status qyi_bpe_open(const struct qy_allocator *mem, const struct qy_gguf *gguf,
                            const struct qyi_vocab *vocab, struct qyi_bpe *bpe,
                            struct qy_error *err)
{
    enum { MAX_MERGES = 1 << 26 };
    const struct qy_gguf_value *merges = qy_gguf_find_value(gguf, "tokenizer.ggml.merges");
    if (merges == NULL || merges->type != QY_GGUF_ARRAY || merges->element != QY_GGUF_STRING ||
        merges->count > MAX_MERGES) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "key 'tokenizer.ggml.merges': missing, or not an array of at most %d "
                            "strings",
                            MAX_MERGES);
    }
    bpe->mem = *mem;
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint8_t text[4];
        uint32_t n = qyi_utf8_encode(byte_char((uint8_t)byte), text);
        bpe->byte_ids[byte] = qyi_vocab_find_normal(vocab, text, n);
    }
    enum qy_status st = read_merges(merges, vocab, bpe, err);
    if (st != QY_OK) {
        qyi_bpe_close(bpe);
        return st;
    }
    static const uint8_t replacement[3] = {0xef, 0xbf, 0xbd};
    int32_t whole = qyi_bpe_whole_word(vocab, replacement, 3);
    if (whole >= 0) {
        bpe->replacement[bpe->n_replacement++] = whole;
    }
    for (uint32_t i = 0; whole < 0 && i < 3; i++) {
        bpe->replacement[i] = bpe->byte_ids[replacement[i]];
        bpe->n_replacement += bpe->replacement[i] >= 0;
    }
    if (whole < 0 && bpe->n_replacement < 3) {
        bpe->n_replacement = 0;
    }
    return QY_OK;
}

void qyi_bpe_close(struct qyi_bpe *bpe)
{
    qy_free(&bpe->mem, bpe->pairs);
    memset(bpe, 0, sizeof(*bpe));
}

static int find_merge(const void *ctx, const struct qyi_symbol *left,
                      const struct qyi_symbol *right, uint32_t *priority, int32_t *id)
{
    const struct qyi_bpe *bpe = ctx;
    if (left->id < 0 || right->id < 0) {
        return 0;
    }
    uint64_t key = pair_key(left->id, right->id);
    const struct qyi_bpe_pair *pair = &bpe->pairs[pair_slot(bpe, key)];
    *priority = pair->rank;
    *id = pair->id;
    return pair->key != 0;
}

int qyi_bpe_encode_word(const struct qyi_bpe *bpe, struct qyi_merger *merger, const uint8_t *word,
                        size_t bytes, struct qyi_array *ids)
{
    struct qyi_symbol *symbols = qyi_merger_begin(merger, bytes);
    if (symbols == NULL || qyi_array_reserve(ids, 3 * bytes) != 0) {
        return -1;
    }
    for (size_t i = 0; i < bytes; i++) {
        symbols[i].begin = (uint32_t)i;
        symbols[i].bytes = 1;
        symbols[i].id = bpe->byte_ids[word[i]];
    }
    qyi_merger_run(merger, find_merge, bpe);
    int32_t *out = ids->data;
    for (size_t i = 0; i < bytes; i += symbols[i].bytes) {
        if (symbols[i].id >= 0) {
            out[ids->n++] = symbols[i].id;
            continue;
        }
        for (uint32_t r = 0; r < bpe->n_replacement; r++) {
            out[ids->n++] = bpe->replacement[r];
        }
    }
    return 0;
}

int32_t qyi_bpe_whole_word(const struct qyi_vocab *vocab, const uint8_t *word, size_t bytes)
{
    uint8_t text[512];
    uint32_t n = 0;
    if (bytes > sizeof(text) / 2 || bytes > vocab->max_bytes) {
        return -1;
    }
    for (size_t i = 0; i < bytes; i++) {
        n += qyi_utf8_encode(byte_char(word[i]), text + n);
    }
    return qyi_vocab_find_normal(vocab, text, n);
}

size_t qyi_bpe_decode(struct qy_text text, char *out, size_t out_bytes)
{
    const uint8_t *p = (const uint8_t *)text.data;
    size_t n = 0;
    for (size_t i = 0; i < text.bytes;) {
        uint32_t step = qyi_utf8_valid(p + i, text.bytes - i);
        int byte = step == 0 ? -1 : char_byte(qyi_utf8_decode(p + i, step));
        step = step == 0 ? 1 : step;
        for (uint32_t k = 0; k < (byte >= 0 ? 1 : step); k++, n++) {
            if (n < out_bytes) {
                out[n] = byte >= 0 ? (char)byte : text.data[i + k];
            }
        }
        i += step;
    }
    return n;
}
