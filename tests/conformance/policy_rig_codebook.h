/* SPDX-License-Identifier: Apache-2.0 */
/* A codebook for a rig: words are keys of stream 1, as they are or cut in sub-vectors. */
#ifndef QY_TESTS_CONFORMANCE_POLICY_RIG_CODEBOOK_H
#define QY_TESTS_CONFORMANCE_POLICY_RIG_CODEBOOK_H

#include "tests/conformance/policy_rig.h"

/* Closed with qy_codebook_close. */
struct qy_codebook *prig_codebook(const struct prig *rig, enum qy_codebook_kind kind);
/* Key of stream 1 before RoPE: k [d]. In policy_rig.c. */
void prig_key(const struct prig *rig, uint32_t layer, uint32_t kv_head, uint32_t token, float *k);

#endif
