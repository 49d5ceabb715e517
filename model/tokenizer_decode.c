/* SPDX-License-Identifier: Apache-2.0 */
/* Ids to text: one token at a time without memory, or all of them. */
#include <string.h>

#include "model/tokenizer.h"

/* Whether encoding puts a space in front of ordinary text that follows this token. */
static int is_special(uint8_t type)
{
    return type == QYI_TOKEN_CONTROL || type == QYI_TOKEN_UNKNOWN || type == QYI_TOKEN_USER;
}

/* Writes at most out_bytes of a token's bytes and returns how many it has. */
static size_t write_piece(const struct qy_tokenizer *t, int32_t id, int special, char *out,
                          size_t out_bytes)
{
    struct qy_text text = t->vocab.texts[id];
    switch ((enum qyi_token_type)t->vocab.types[id]) {
    case QYI_TOKEN_NORMAL:
        return t->vocab.kind == QYI_VOCAB_BPE ? qyi_bpe_decode(text, out, out_bytes)
                                              : qyi_spm_decode(text, out, out_bytes);
    case QYI_TOKEN_BYTE: {
        int byte = qyi_spm_byte(text);
        if (byte >= 0) {
            if (out_bytes > 0) {
                out[0] = (char)byte;
            }
            return 1;
        }
        break;
    }
    case QYI_TOKEN_CONTROL:
    case QYI_TOKEN_UNKNOWN:
    case QYI_TOKEN_UNUSED:
        if (!special) {
            return 0;
        }
        break;
    case QYI_TOKEN_USER:
        break;
    }
    if (text.bytes > 0 && out_bytes > 0) {
        memcpy(out, text.data, text.bytes < out_bytes ? text.bytes : out_bytes);
    }
    return text.bytes;
}

int qy_tokenizer_piece(const struct qy_tokenizer *tokenizer, int32_t id, int special, char *out,
                       size_t out_bytes)
{
    if (id < 0 || (uint32_t)id >= tokenizer->vocab.n_tokens) {
        return -1;
    }
    size_t n = write_piece(tokenizer, id, special, out, out_bytes);
    return n <= out_bytes ? (int)n : -(int)n - 1;
}

/* Adds the bytes of one token to out. -1: no memory. */
static int add_piece(const struct qy_tokenizer *t, int32_t id, int special, int drop_space,
                     struct qyi_array *out)
{
    /* What a text stands for is never longer than the text, apart from a byte token. */
    if (qyi_array_reserve(out, t->vocab.texts[id].bytes + 1) != 0) {
        return -1;
    }
    char *at = (char *)out->data + out->n;
    size_t n = write_piece(t, id, special, at, out->capacity - out->n);
    if (drop_space && n > 0 && at[0] == ' ') {
        memmove(at, at + 1, --n);
    }
    out->n += n;
    return 0;
}

enum qy_status qy_tokenizer_decode(const struct qy_tokenizer *tokenizer, const int32_t *ids,
                                   size_t n_ids, int special, char **text, size_t *bytes,
                                   struct qy_error *err)
{
    const struct qyi_vocab *vocab = &tokenizer->vocab;
    const int puts_space = vocab->kind == QYI_VOCAB_SPM && vocab->add_space_prefix;
    struct qyi_array out = {.mem = &tokenizer->mem, .element_bytes = 1};
    enum qy_status st = QY_OK;
    int after_special = 1;
    for (size_t i = 0; i < n_ids && st == QY_OK; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= vocab->n_tokens) {
            st = qy_error_set(err, QY_ERR_INVALID,
                              "token id '%d': not in the vocabulary of %u tokens", (int)ids[i],
                              vocab->n_tokens);
            break;
        }
        int ordinary = !is_special(vocab->types[ids[i]]);
        int drop_space = puts_space && after_special && ordinary;
        if (add_piece(tokenizer, ids[i], special, drop_space, &out) != 0) {
            st =
                qy_error_set(err, QY_ERR_NOMEM, "tokenizer: no memory to decode %zu tokens", n_ids);
        }
        after_special = !ordinary;
    }
    if (st == QY_OK && qyi_array_reserve(&out, 1) != 0) {
        st = qy_error_set(err, QY_ERR_NOMEM, "tokenizer: no memory to decode %zu tokens", n_ids);
    }
    if (st != QY_OK) {
        qyi_array_free(&out);
        return st;
    }
    ((char *)out.data)[out.n] = '\0';
    *text = out.data;
    *bytes = out.n;
    return QY_OK;
}
