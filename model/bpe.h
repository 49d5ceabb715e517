/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-level byte-pair encoding: bytes are written as printable characters in the file's texts, and
 * the merges table says which neighbours join, in which order. */
#ifndef QY_MODEL_BPE_H
#define QY_MODEL_BPE_H

#include "model/merge.h"
#include "model/vocab.h"

struct qyi_bpe_pair; /* a row of the hash table of merges */

struct qyi_bpe {
    struct qy_allocator mem;
    int32_t byte_ids[256];  /* the token of each byte; -1 = the vocabulary has none */
    int32_t replacement[3]; /* what stands for such a byte: U+FFFD                 */
    uint32_t n_replacement; /* 0: nothing                                          */
    struct qyi_bpe_pair *pairs;
    uint32_t pair_mask;
};

/* bpe is zeroed by the caller; on failure there is nothing to close. */
QY_MUST enum qy_status qyi_bpe_open(const struct qy_allocator *mem, const struct qy_gguf *gguf,
                                    const struct qyi_vocab *vocab, struct qyi_bpe *bpe,
                                    struct qy_error *err);
void qyi_bpe_close(struct qyi_bpe *bpe);

/* Adds the ids of one word to ids (int32_t). -1 when there is no memory. [alloc] */
int qyi_bpe_encode_word(const struct qyi_bpe *bpe, struct qyi_merger *merger, const uint8_t *word,
                        size_t bytes, struct qyi_array *ids);
/* The token whose text is the whole word, or -1. [noalloc] */
int32_t qyi_bpe_whole_word(const struct qyi_vocab *vocab, const uint8_t *word, size_t bytes);
/* Bytes that a token's text stands for: writes at most out_bytes of them and returns their number.
 * A character that stands for no byte is copied. [noalloc] */
size_t qyi_bpe_decode(struct qy_text text, char *out, size_t out_bytes);

#endif
