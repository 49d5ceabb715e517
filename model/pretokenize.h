/* SPDX-License-Identifier: Apache-2.0 */
/* Cuts text into the words that byte-level BPE works on, as the pre-tokenizer named in the file
 * does. */
#ifndef QY_MODEL_PRETOKENIZE_H
#define QY_MODEL_PRETOKENIZE_H

#include "model/grow.h"
#include "model/model.h"

struct qyi_pretokenizer; /* compiled patterns; may be used by many threads */

/* name is the value of tokenizer.ggml.pre, mem is kept. QY_ERR_UNSUPPORTED lists what is supported.
 */
QY_MUST enum qy_status qyi_pretokenizer_open(const struct qy_allocator *mem, struct qy_text name,
                                             struct qyi_pretokenizer **pre, struct qy_error *err);
void qyi_pretokenizer_close(struct qyi_pretokenizer *pre);
/* Whether a word that is a token takes no merging (and BOS is the default): the Llama-3 family. */
int qyi_pretokenizer_whole_words(const struct qyi_pretokenizer *pre);

/* Scratch of one caller. */
struct qyi_splitter {
    const struct qyi_pretokenizer *pre;
    struct qyi_array ends, next; /* uint32_t: where each word ends; next is used inside */
    struct qyi_array masked;     /* uint8_t */
    void *match, *limits;        /* of PCRE2 */
};

QY_MUST enum qy_status qyi_splitter_init(struct qyi_splitter *splitter,
                                         const struct qyi_pretokenizer *pre, struct qy_error *err);
void qyi_splitter_fini(struct qyi_splitter *splitter);
/* Cuts text (at most 1 GiB); splitter->ends then holds ascending ends, the last one being bytes. A
 * byte that is no part of valid UTF-8 counts as a symbol. [alloc] */
QY_MUST enum qy_status qyi_split(struct qyi_splitter *splitter, const uint8_t *text, size_t bytes,
                                 struct qy_error *err);

#endif
