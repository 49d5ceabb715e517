/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of codes in plain C, and which table a level means in this build. */
#include "gpu/host/code_vec_plain.h"

#include "gpu/host/code_gather_body.h"
#include "gpu/host/code_sums_body.h"
#include "gpu/host/code_table_body.h"
#include "gpu/host/code_values_body.h"
#include "gpu/host/encode_body.h"
#include "gpu/host/scores_body.h"

/* As qyi_code_scan_fn, any lane. */
static void scan_plain(const struct qyi_code_group *group)
{
    const uint32_t lane = group->lane;
    uint16_t sum[2 * QYI_CODE_MAX_LANE];

    for (uint32_t h = 0; h < group->n_heads; h++) {
        memset(sum, 0, sizeof(sum));
        for (uint32_t j = 0; j < group->m; j++) {
            const uint8_t *codes = group->codes + (size_t)j * lane;
            const uint8_t *entries = group->entries + ((size_t)h * group->m + j) * 16;
            for (uint32_t b = 0; b < lane; b++) {
                sum[b] = (uint16_t)(sum[b] + entries[codes[b] & 15]);
                sum[lane + b] = (uint16_t)(sum[lane + b] + entries[codes[b] >> 4]);
            }
        }
        for (uint32_t i = 0; i < 2 * lane; i++) {
            group->sums[h * group->stride + i] =
                sum[i / lane * lane + i % (lane / 2) * 2 + i % lane / (lane / 2)];
        }
    }
}

const struct qyi_code_kernels qyi_code_plain = {
    .encode4 = encode4,
    .encode_wide = encode_wide,
    .table4 = table4,
    .table_wide = table_wide,
    .scan = {scan_plain, scan_plain, scan_plain},
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

const struct qyi_code_kernels *qyi_code_for(enum qy_cpu_level level)
{
#if defined(__x86_64__)
    if (level == QY_CPU_AVX512) {
        return &qyi_code_avx512;
    }
    if (level == QY_CPU_AVX2) {
        return &qyi_code_avx2;
    }
#else
    (void)level;
#endif
    return &qyi_code_plain;
}
