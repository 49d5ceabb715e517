/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary of a GGUF file: texts, types and scores of tokens, and who is special. */
#ifndef QY_MODEL_VOCAB_H
#define QY_MODEL_VOCAB_H

#include "model/model.h"

/* As GGUF numbers them. */
enum qyi_token_type {
    QYI_TOKEN_NORMAL = 1,
    QYI_TOKEN_UNKNOWN = 2,
    QYI_TOKEN_CONTROL = 3,
    QYI_TOKEN_USER = 4, /* an ordinary text that is always one token */
    QYI_TOKEN_UNUSED = 5,
    QYI_TOKEN_BYTE = 6
};

enum qyi_vocab_kind { QYI_VOCAB_BPE, QYI_VOCAB_SPM };

struct qyi_vocab {
    struct qy_allocator mem;
    enum qyi_vocab_kind kind;
    uint32_t n_tokens;
    uint32_t max_bytes;    /* of the longest text                                              */
    struct qy_text *texts; /* [n_tokens], in the file's mapping                                */
    uint8_t *types;        /* [n_tokens] enum qyi_token_type                                   */
    float *scores;         /* [n_tokens]; SPM only                                             */
    uint8_t *is_end;       /* [n_tokens] 1 = ends a reply                                      */
    int32_t *slots;        /* hash table of texts: id, or -1                                   */
    uint32_t slot_mask;
    int32_t bos, eos, unknown; /* -1 = none */
    int add_bos, add_eos, add_space_prefix;
    /* Texts that encoding looks for before anything else: control, unknown and user-defined
     * tokens, the longest first, then the lower id. */
    uint32_t *specials; /* [n_specials] ids */
    uint32_t n_specials;
    uint8_t special_first[256]; /* 1 = a special text begins with this byte */
};

/* gguf is kept until close. vocab is zeroed by the caller; on failure there is nothing to close. */
QY_MUST enum qy_status qyi_vocab_open(const struct qy_allocator *mem, const struct qy_gguf *gguf,
                                      struct qyi_vocab *vocab, struct qy_error *err);
void qyi_vocab_close(struct qyi_vocab *vocab);
/* The token with exactly these bytes (the last one where several have them), or -1. [noalloc] */
int32_t qyi_vocab_find(const struct qyi_vocab *vocab, const void *text, size_t bytes);
/* The same, but only a normal token: the others never come out of merging ordinary text. */
int32_t qyi_vocab_find_normal(const struct qyi_vocab *vocab, const void *text, size_t bytes);

/* A place in a text where a special token stands. */
struct qyi_special {
    size_t begin;
    uint32_t bytes;
    int32_t id;
};

/* Which bytes of the text may become control tokens: [begin, end) of one trusted span. */
struct qyi_trusted {
    size_t begin, end;
};

struct qyi_array;
/* Finds special tokens in text: first the longest texts, from left to right, never overlapping.
 * Control and unknown tokens count only inside one trusted range (ascending, disjoint). found is an
 * array of struct qyi_special, filled in order of place. -1 when there is no memory. [alloc] */
int qyi_vocab_find_specials(const struct qyi_vocab *vocab, const uint8_t *text, size_t bytes,
                            const struct qyi_trusted *trusted, size_t n_trusted,
                            struct qyi_array *found);

#endif
