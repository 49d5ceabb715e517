/* SPDX-License-Identifier: Apache-2.0 */
/* Which table of kernels a level means in this build. */
#include "gpu/host/host.h"

const struct qyi_kernels *qyi_kernels_for(enum qy_cpu_level level)
{
#if defined(__x86_64__)
    if (level == QY_CPU_AVX512) {
        return &qyi_kernels_avx512;
    }
    if (level == QY_CPU_AVX2) {
        return &qyi_kernels_avx2;
    }
#else
    (void)level;
#endif
    return &qyi_kernels_plain;
}
