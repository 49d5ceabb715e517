/* SPDX-License-Identifier: Apache-2.0 */
/* A vocabulary in a GGUF file in memory and the tokenizer over it, as the tokenizer tests use them.
 */
#ifndef QY_TESTS_UNIT_MODEL_VOCAB_FILE_H
#define QY_TESTS_UNIT_MODEL_VOCAB_FILE_H

#include "tests/support/test.h"

#include <stdlib.h>

#include "tests/support/make_gguf_vocab.h"

struct vocab_file {
    struct qy_allocator mem;
    uint8_t *bytes;
    struct qy_gguf *gguf;
    struct qy_tokenizer *tokenizer;
};

/* Takes what w holds as the file and opens it; the tokenizer's status. */
static inline enum qy_status vocab_file_open(struct vocab_file *f, struct gguf_writer *w,
                                             struct qy_error *err)
{
    size_t n;
    f->mem = qy_allocator_system();
    f->tokenizer = NULL;
    f->bytes = gguf_writer_finish(w, &n);
    assert_int_equal(qy_gguf_open_memory(&f->mem, f->bytes, n, "test", &f->gguf, err), QY_OK);
    return qy_tokenizer_open(&f->mem, f->gguf, &f->tokenizer, err);
}

static inline void vocab_file_close(struct vocab_file *f)
{
    qy_tokenizer_close(f->tokenizer);
    qy_gguf_close(f->gguf);
    free(f->bytes);
}

/* The small vocabularies: pre NULL is SentencePiece, where flag is add_space_prefix; otherwise flag
 * is add_bos_token. */
static inline void vocab_file_tiny(struct vocab_file *f, const char *pre, int flag)
{
    struct gguf_writer w;
    struct qy_error err;
    gguf_writer_init(&w, 3, 32);
    if (pre == NULL) {
        vocab_put_spm(&w, flag);
    } else {
        vocab_put_bpe(&w, pre, flag);
    }
    assert_int_equal(vocab_file_open(f, &w, &err), QY_OK);
}

/* Ids of text; their number. */
static inline size_t vocab_file_encode(const struct vocab_file *f, const char *text, size_t bytes,
                                       unsigned flags, int32_t **ids)
{
    size_t n;
    struct qy_error err;
    assert_int_equal(qy_tokenizer_encode(f->tokenizer, text, bytes, flags, ids, &n, &err), QY_OK);
    return n;
}

#endif
