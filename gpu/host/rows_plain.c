/* SPDX-License-Identifier: Apache-2.0 */
/* The row kernels in plain C. */
#include "gpu/host/vec_plain.h"

#include "gpu/host/attend_body.h"
#include "gpu/host/attend_chunk_body.h"
#include "gpu/host/pool_body.h"
#include "gpu/host/score_body.h"

const struct qyi_rows_kernels qyi_rows_plain = {
    .lanes = VEC_N,
    .pack = pack_row,
    .attend = attend_span,
    .score = score_span,
    .chunk = chunk_attend,
    .pool_head = pool_head,
    .pool_places = pool_places,
};
