/* SPDX-License-Identifier: Apache-2.0 */
/* The parts that a tokenizer is made of. Private to model/tokenizer*.c. */
#ifndef QY_MODEL_TOKENIZER_H
#define QY_MODEL_TOKENIZER_H

#include "model/bpe.h"
#include "model/pretokenize.h"
#include "model/spm.h"

struct qy_tokenizer {
    struct qy_allocator mem;
    struct qyi_vocab vocab;
    struct qyi_pretokenizer *pre; /* BPE; NULL otherwise */
    struct qyi_bpe bpe;
    struct qyi_spm spm;
};

#endif
