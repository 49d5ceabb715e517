/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coded rows: the form in which rows may lie at home, and cross a link, while the device keeps f16.
 * A part of gpu.h, which includes it where rows are known; its rules hold here too.
 *
 * A coded row is its K, then its V, each in 16, 8 or 4 bits an element. 16: f16 as they are. Else
 * elements come in groups with a low and a step of their own (asymmetric, per token):
 *
 *   [low, step of group 0][low, step of group 1] ... [codes]         f16 both
 *   x ~= low + step * code, as the nearest f16, at most 65504
 *
 * 8 bits: a byte each, in order. 4 bits: byte i of 16 has elements i (low half) and i + 16 of 32.
 * low is the least of the group, exactly; step the least f16 with which the top code reaches the
 * largest. So an element is off by half a step at most, and by its rounding to f16; a group of equal
 * elements is exact; and the bits do not depend on the processor. What is coded is finite: append
 * refuses other rows.
 */
#ifndef QY_GPU_H
#include "gpu/gpu.h"
#elif !defined(QY_GPU_ROW_CODEC_H)
#define QY_GPU_ROW_CODEC_H

enum { QY_ROW_CODEC_MAX_D = 1024 };

struct qy_row_codec {
    uint32_t k_bits, v_bits; /* 16, 8 or 4                                         */
    uint32_t group;          /* elements that share a low and a step: 32 or 64     */
    uint32_t d;              /* a multiple of group, at most QY_ROW_CODEC_MAX_D    */
};

/* Is it one that can be? [any] [noalloc] */
int qy_row_codec_valid(const struct qy_row_codec *codec);

/* Bytes of K, or V, of a row, in so many bits an element. */
static inline size_t qy_row_codec_part(const struct qy_row_codec *codec, uint32_t bits)
{
    const size_t codes = (size_t)codec->d * bits / 8;

    return bits == 16 ? codes : codes + (size_t)codec->d / codec->group * 4;
}
static inline size_t qy_row_codec_bytes(const struct qy_row_codec *codec)
{
    return qy_row_codec_part(codec, codec->k_bits) + qy_row_codec_part(codec, codec->v_bits);
}

/* n rows of f16 to their coded form, and back; both in the processor's memory. [any] [noalloc] */
void qy_rows_encode(const struct qy_runtime *rt, const struct qy_row_codec *codec, const void *rows,
                    uint32_t n, void *coded);
void qy_rows_decode(const struct qy_runtime *rt, const struct qy_row_codec *codec,
                    const void *coded, uint32_t n, void *rows);

#endif
