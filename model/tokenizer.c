/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens a tokenizer and answers questions about its vocabulary. Encoding is in tokenizer_encode.c,
 * decoding in tokenizer_decode.c.
 */
#include "model/tokenizer.h"

#include <string.h>

/* The pre-tokenizer of a BPE file, and what its name implies where the file says nothing. */
static enum qy_status open_bpe(struct qy_tokenizer *t, const struct qy_gguf *gguf,
                               struct qy_error *err)
{
    struct qy_text name = {"default", 7};
    if (qy_gguf_get_text(gguf, "tokenizer.ggml.pre", &name) == -2) {
        return qy_error_set(err, QY_ERR_CORRUPT, "key 'tokenizer.ggml.pre': not a string");
    }
    enum qy_status st = qyi_pretokenizer_open(&t->mem, name, &t->pre, err);
    if (st != QY_OK) {
        return st;
    }
    if (qy_gguf_find_value(gguf, "tokenizer.ggml.add_bos_token") == NULL) {
        t->vocab.add_bos = qyi_pretokenizer_whole_words(t->pre);
    }
    return qyi_bpe_open(&t->mem, gguf, &t->vocab, &t->bpe, err);
}

enum qy_status qy_tokenizer_open(const struct qy_allocator *mem, const struct qy_gguf *gguf,
                                 struct qy_tokenizer **tokenizer, struct qy_error *err)
{
    struct qy_tokenizer *t = qy_alloc_zero(mem, sizeof(*t));
    if (t == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "tokenizer: no memory");
    }
    t->mem = *mem;
    enum qy_status st = qyi_vocab_open(&t->mem, gguf, &t->vocab, err);
    if (st != QY_OK) {
        qy_free(mem, t);
        return st;
    }
    if (t->vocab.kind == QYI_VOCAB_BPE) {
        st = open_bpe(t, gguf, err);
    } else {
        qyi_spm_init(&t->spm, &t->vocab);
    }
    if (st != QY_OK) {
        qy_tokenizer_close(t);
        return st;
    }
    *tokenizer = t;
    return QY_OK;
}

void qy_tokenizer_close(struct qy_tokenizer *tokenizer)
{
    if (tokenizer == NULL) {
        return;
    }
    qyi_bpe_close(&tokenizer->bpe);
    qyi_pretokenizer_close(tokenizer->pre);
    qyi_vocab_close(&tokenizer->vocab);
    struct qy_allocator mem = tokenizer->mem;
    qy_free(&mem, tokenizer);
}

uint32_t qy_tokenizer_size(const struct qy_tokenizer *tokenizer)
{
    return tokenizer->vocab.n_tokens;
}

int32_t qy_tokenizer_bos(const struct qy_tokenizer *tokenizer)
{
    return tokenizer->vocab.bos;
}

int32_t qy_tokenizer_eos(const struct qy_tokenizer *tokenizer)
{
    return tokenizer->vocab.eos;
}

int qy_tokenizer_is_end(const struct qy_tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && (uint32_t)id < tokenizer->vocab.n_tokens && tokenizer->vocab.is_end[id];
}

int32_t qy_tokenizer_find(const struct qy_tokenizer *tokenizer, const char *text)
{
    return qyi_vocab_find(&tokenizer->vocab, text, strlen(text));
}
