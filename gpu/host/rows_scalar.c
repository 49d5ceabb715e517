/* SPDX-License-Identifier: Apache-2.0 */
/* Attention and scores with one lane, for head sizes that the vectors do not divide. */
#include "gpu/host/vec_scalar.h"

#include "gpu/host/attend_body.h"
#include "gpu/host/score_body.h"

const struct qyi_rows_kernels qyi_rows_scalar = {
    .lanes = VEC_N,
    .attend = attend_span,
    .score = score_span,
};
