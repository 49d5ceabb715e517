/* SPDX-License-Identifier: Apache-2.0 */
/* Coded rows: which kernels, the parts of a row, and reading rows of which some are coded. */
#include "gpu/host/row_codec.h"

#include <string.h>

enum { PREFETCH_ROWS = 8, LINE_BYTES = 64 };

const struct qyi_codec_kernels *qyi_codec_for(enum qy_cpu_level level)
{
#if defined(__x86_64__)
    if (level == QY_CPU_AVX512) {
        return &qyi_codec_avx512;
    }
    if (level == QY_CPU_AVX2) {
        return &qyi_codec_avx2;
    }
#else
    (void)level;
#endif
    return &qyi_codec_plain;
}

static int bits_valid(uint32_t bits)
{
    return bits == 16 || bits == 8 || bits == 4;
}

int qy_row_codec_valid(const struct qy_row_codec *codec)
{
    return bits_valid(codec->k_bits) && bits_valid(codec->v_bits) &&
           (codec->group == 32 || codec->group == 64) && codec->d > 0 &&
           codec->d % codec->group == 0 && codec->d <= QY_ROW_CODEC_MAX_D;
}

static void encode_part(const struct qyi_codec_kernels *kernels, const struct qy_row_codec *codec,
                        uint32_t bits, const uint8_t *plain, uint8_t *coded)
{
    if (bits == 16) {
        memcpy(coded, plain, (size_t)codec->d * 2);
    } else {
        kernels->encode(plain, codec->d, codec->group, bits, coded);
    }
}

static void decode_part(const struct qyi_codec_kernels *kernels, const struct qy_row_codec *codec,
                        uint32_t bits, const uint8_t *coded, uint8_t *plain)
{
    if (bits == 16) {
        memcpy(plain, coded, (size_t)codec->d * 2);
    } else {
        kernels->decode(coded, codec->d, codec->group, bits, plain);
    }
}

void qyi_codec_encode_row(const struct qyi_codec_kernels *kernels, const struct qy_row_codec *codec,
                          const uint8_t *row, uint8_t *coded)
{
    encode_part(kernels, codec, codec->k_bits, row, coded);
    encode_part(kernels, codec, codec->v_bits, row + (size_t)codec->d * 2,
                coded + qy_row_codec_part(codec, codec->k_bits));
}

void qyi_codec_decode_row(const struct qyi_codec_kernels *kernels, const struct qy_row_codec *codec,
                          const uint8_t *coded, int keys, uint8_t *row)
{
    decode_part(kernels, codec, codec->k_bits, coded, row);
    if (!keys) {
        decode_part(kernels, codec, codec->v_bits, coded + qy_row_codec_part(codec, codec->k_bits),
                    row + (size_t)codec->d * 2);
    }
}

void qy_rows_encode(const struct qy_runtime *rt, const struct qy_row_codec *codec, const void *rows,
                    uint32_t n, void *coded)
{
    const struct qyi_codec_kernels *kernels = qyi_codec_for(rt->cpu.use);
    const size_t bytes = qy_row_codec_bytes(codec);
    const size_t row_bytes = qy_row_bytes(QY_ROW_F16, codec->d);

    for (uint32_t i = 0; i < n; i++) {
        qyi_codec_encode_row(kernels, codec, (const uint8_t *)rows + i * row_bytes,
                             (uint8_t *)coded + i * bytes);
    }
}

void qy_rows_decode(const struct qy_runtime *rt, const struct qy_row_codec *codec,
                    const void *coded, uint32_t n, void *rows)
{
    const struct qyi_codec_kernels *kernels = qyi_codec_for(rt->cpu.use);
    const size_t bytes = qy_row_codec_bytes(codec);
    const size_t row_bytes = qy_row_bytes(QY_ROW_F16, codec->d);

    for (uint32_t i = 0; i < n; i++) {
        qyi_codec_decode_row(kernels, codec, (const uint8_t *)coded + i * bytes, 0,
                             (uint8_t *)rows + i * row_bytes);
    }
}

static void prefetch(const struct qy_rows *rows, uint32_t token)
{
    const size_t bytes = qyi_rows_bytes(rows, token);
    const uint8_t *row =
        qyi_rows_plain_from(rows, token) ? qy_row_at(rows, token) : qyi_rows_coded_at(rows, token);

    for (size_t at = 0; at < bytes; at += LINE_BYTES) {
        __builtin_prefetch(row + at);
    }
}

void qyi_rows_read(const struct qyi_codec_kernels *kernels, const struct qy_rows *rows,
                   const uint32_t *ids, uint32_t first, uint32_t n, int keys, uint8_t *to)
{
    const size_t row_bytes = qy_row_bytes(rows->type, rows->d);

    for (uint32_t i = 0; i < n; i++, to += row_bytes) {
        const uint32_t token = ids ? ids[i] : first + i;

        if (ids && i + PREFETCH_ROWS < n) {
            prefetch(rows, ids[i + PREFETCH_ROWS]);
        }
        if (qyi_rows_plain_from(rows, token)) {
            memcpy(to, qy_row_at(rows, token), row_bytes);
        } else {
            qyi_codec_decode_row(kernels, rows->codec, qyi_rows_coded_at(rows, token), keys, to);
        }
    }
}
