/* SPDX-License-Identifier: Apache-2.0 */
/* Which table of row kernels a level and a head size mean in this build, and the shapes taken. */
#include "gpu/host/rows.h"

#include "gpu/host/row_codec.h"

static const struct qyi_rows_kernels *table_for(enum qy_cpu_level level)
{
#if defined(__x86_64__)
    if (level == QY_CPU_AVX512) {
        return &qyi_rows_avx512;
    }
    if (level == QY_CPU_AVX2) {
        return &qyi_rows_avx2;
    }
#else
    (void)level;
#endif
    return &qyi_rows_plain;
}

const struct qyi_rows_kernels *qyi_rows_for(enum qy_cpu_level level, uint32_t d)
{
    const struct qyi_rows_kernels *table = table_for(level);

    return d % table->lanes == 0 ? table : &qyi_rows_scalar;
}

const struct qyi_rows_kernels *qyi_rows_any(enum qy_cpu_level level)
{
    return table_for(level);
}

int qyi_rows_valid(const struct qy_rows *rows, uint32_t group)
{
    return rows->d >= 2 && rows->d % 2 == 0 && rows->shift < 32 &&
           (rows->type == QY_ROW_F16 || rows->type == QY_ROW_F32) && group >= 1 &&
           group <= QYI_MAX_GROUP &&
           (rows->codec == NULL || (rows->type == QY_ROW_F16 && rows->codec->d == rows->d &&
                                    qy_row_codec_valid(rows->codec)));
}
