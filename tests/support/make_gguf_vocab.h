/* SPDX-License-Identifier: Apache-2.0 */
/* The small vocabularies of the tiny models, as metadata values of a file. */
#ifndef QY_TESTS_SUPPORT_MAKE_GGUF_VOCAB_H
#define QY_TESTS_SUPPORT_MAKE_GGUF_VOCAB_H

#include "tests/support/make_gguf_writer.h"

enum { VOCAB_BPE_SIZE = 300, VOCAB_SPM_SIZE = 384 };

/* Byte-level BPE (`gpt2`) with pre-tokenizer pre: 256 bytes, merges, special tokens, fill. */
void vocab_put_bpe(struct gguf_writer *w, const char *pre, int add_bos);
/* SentencePiece (`llama`): <unk>, <s>, </s>, 256 byte tokens, pieces with scores, fill. */
void vocab_put_spm(struct gguf_writer *w, int add_space_prefix);

#endif
