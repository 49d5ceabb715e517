/* SPDX-License-Identifier: Apache-2.0 */
/* SentencePiece vocabularies (`llama`): neighbours join by the score of the joined piece. */
#ifndef QY_MODEL_SPM_H
#define QY_MODEL_SPM_H

#include "model/merge.h"
#include "model/vocab.h"

struct qyi_spm {
    const struct qyi_vocab *vocab; /* kept */
    int32_t byte_ids[256];         /* the token "<0xXX>" of each byte; -1 = none */
};

void qyi_spm_init(struct qyi_spm *spm, const struct qyi_vocab *vocab);

/* Adds the ids of text to ids (int32_t), with a space in front where space_before is not 0. escaped
 * (uint8_t) is scratch. -1 when there is no memory. [alloc] */
int qyi_spm_encode(const struct qyi_spm *spm, struct qyi_merger *merger, struct qyi_array *escaped,
                   const uint8_t *text, size_t bytes, int space_before, struct qyi_array *ids);
/* Bytes that a token's text stands for, U+2581 being a space: writes at most out_bytes of them and
 * returns their number. [noalloc] */
size_t qyi_spm_decode(struct qy_text text, char *out, size_t out_bytes);
/* The byte of "<0xXX>", or -1 for any other text. */
int qyi_spm_byte(struct qy_text text);

#endif
