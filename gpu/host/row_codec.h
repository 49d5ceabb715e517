/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels of coded rows (gpu/row_codec.h), and reading rows of which some are coded. Private to
 * gpu/host. */
#ifndef QY_GPU_HOST_ROW_CODEC_H
#define QY_GPU_HOST_ROW_CODEC_H

#include "gpu/gpu.h"

/* One part of a row, K or V: d elements of f16 at `plain`, in groups; bits is 8 or 4. */
struct qyi_codec_kernels {
    void (*encode)(const uint8_t *plain, uint32_t d, uint32_t group, uint32_t bits, uint8_t *coded);
    void (*decode)(const uint8_t *coded, uint32_t d, uint32_t group, uint32_t bits, uint8_t *plain);
};

extern const struct qyi_codec_kernels qyi_codec_plain;
#if defined(__x86_64__)
void qyi_codec_encode_avx2(const uint8_t *plain, uint32_t d, uint32_t group, uint32_t bits,
                           uint8_t *coded);
extern const struct qyi_codec_kernels qyi_codec_avx2;
extern const struct qyi_codec_kernels qyi_codec_avx512;
#endif

enum { QYI_CODEC_CHUNK = 32, QYI_CODEC_META = 4 }; /* elements; bytes of low and step */
#define QYI_CODEC_LARGEST 65504.0F                 /* of f16 */

/* The step that, level by level, covers range: the least f16 with step * levels >= range. */
static inline uint16_t qyi_codec_step(float range, float levels)
{
    const uint16_t step = qy_f16_from_f32(range / levels + 0.0F); /* never -0 */

    return qy_f32_from_f16(step) * levels < range ? (uint16_t)(step + 1) : step;
}

const struct qyi_codec_kernels *qyi_codec_for(enum qy_cpu_level level);
void qyi_codec_encode_row(const struct qyi_codec_kernels *kernels, const struct qy_row_codec *codec,
                          const uint8_t *row, uint8_t *coded);
/* keys: K alone. */
void qyi_codec_decode_row(const struct qyi_codec_kernels *kernels, const struct qy_row_codec *codec,
                          const uint8_t *coded, int keys, uint8_t *row);

/* Are the rows from `first` on as their type says? */
static inline int qyi_rows_plain_from(const struct qy_rows *rows, uint32_t first)
{
    return rows->codec == NULL || first >= rows->n_coded;
}
/* Bytes of a row where it lies. */
static inline size_t qyi_rows_bytes(const struct qy_rows *rows, uint32_t token)
{
    return qyi_rows_plain_from(rows, token) ? qy_row_bytes(rows->type, rows->d)
                                            : qy_row_codec_bytes(rows->codec);
}
static inline const uint8_t *qyi_rows_coded_at(const struct qy_rows *rows, uint32_t token)
{
    const uint32_t mask = ((uint32_t)1 << rows->shift) - 1;

    return rows->blocks[token >> rows->shift] + rows->coded_offset +
           (size_t)(token & mask) * qy_row_codec_bytes(rows->codec);
}
/* Rows ids[0..n), or first .. first + n - 1 where ids is NULL, as plain ones that follow each other at
 * `to`. keys: their K alone, the places of V stay as they are. */
void qyi_rows_read(const struct qyi_codec_kernels *kernels, const struct qy_rows *rows,
                   const uint32_t *ids, uint32_t first, uint32_t n, int keys, uint8_t *to);

#endif
