/* SPDX-License-Identifier: Apache-2.0 */
/* Means of values in plain C, and which table a level means in this build. */
#include "gpu/host/vec_plain.h"

#include "gpu/host/value_body.h"

const struct qyi_value_kernels qyi_value_plain = {
    .add = value_add, .store = value_store, .load = value_load, .weigh = value_weigh};

const struct qyi_value_kernels *qyi_value_for(enum qy_cpu_level level)
{
#if defined(__x86_64__)
    if (level == QY_CPU_AVX512) {
        return &qyi_value_avx512;
    }
    if (level == QY_CPU_AVX2) {
        return &qyi_value_avx2;
    }
#else
    (void)level;
#endif
    return &qyi_value_plain;
}
