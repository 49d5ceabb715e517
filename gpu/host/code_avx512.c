/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of codes in AVX-512. */
#if defined(__x86_64__)
#include "gpu/host/code_vec_avx512.h"

#include "gpu/host/code_gather_body.h"
#include "gpu/host/code_sums_body.h"
#include "gpu/host/code_table_body.h"
#include "gpu/host/code_values_body.h"
#include "gpu/host/encode_body.h"
#include "gpu/host/scores_body.h"

const struct qyi_code_kernels qyi_code_avx512 = {
    .encode4 = encode4,
    .encode_wide = encode_wide,
    .table4 = table4,
    .table_wide = table_wide,
    .scan = {qyi_code_scan_xmm, qyi_code_scan_avx2, qyi_code_scan_avx512},
    .scores = sums_scores,
    .largest = sums_largest,
    .mass = sums_mass,
    .masses = sums_masses,
    .page = sums_page,
    .pool = sums_pool,
    .values = values_mean,
    .scores_largest = scores_max,
    .scores_mass = scores_mass,
    .gather = gather_codes,
};
#endif
