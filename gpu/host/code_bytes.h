/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The byte words in which the scan of 4-bit codes (code_scan_body.h) is written. A file defines
 * BYTES (16, 32 or 64) first: one vector of that many bytes.
 */
#ifndef QY_GPU_HOST_CODE_BYTES_H
#define QY_GPU_HOST_CODE_BYTES_H

#include <immintrin.h>
#include <stdint.h>

#if BYTES == 64
typedef __m512i bytes;
#define BV(name) _mm512_##name
#define BV_WHOLE(name) _mm512_##name##_si512
/* The 16 entries of a sub-vector in every 128 bits. */
static inline bytes bytes_table(const uint8_t *entries)
{
    return _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)entries));
}
#elif BYTES == 32
typedef __m256i bytes;
#define BV(name) _mm256_##name
#define BV_WHOLE(name) _mm256_##name##_si256
static inline bytes bytes_table(const uint8_t *entries)
{
    return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)entries));
}
#else
typedef __m128i bytes;
#define BV(name) _mm_##name
#define BV_WHOLE(name) _mm_##name##_si128
static inline bytes bytes_table(const uint8_t *entries)
{
    return _mm_load_si128((const __m128i *)entries);
}
#endif

static inline bytes bytes_zero(void)
{
    return BV_WHOLE(setzero)();
}
static inline bytes bytes_load(const uint8_t *p)
{
    return BV_WHOLE(loadu)((const bytes *)(const void *)p);
}
/* Low nibbles (half 0) or high ones. */
static inline bytes bytes_nibbles(bytes b, const int half)
{
    return BV_WHOLE(and)(half ? BV(srli_epi16)(b, 4) : b, BV(set1_epi8)(15));
}
static inline bytes bytes_look_up(bytes table, bytes nibbles)
{
    return BV(shuffle_epi8)(table, nibbles);
}
static inline bytes bytes_add8(bytes a, bytes b)
{
    return BV(add_epi8)(a, b);
}
static inline bytes bytes_add16(bytes a, bytes b)
{
    return BV(add_epi16)(a, b);
}
static inline bytes bytes_sub16(bytes a, bytes b)
{
    return BV(sub_epi16)(a, b);
}
/* Of 16 bits: the high byte; the low byte moved up. */
static inline bytes bytes_down8(bytes a)
{
    return BV(srli_epi16)(a, 8);
}
static inline bytes bytes_up8(bytes a)
{
    return BV(slli_epi16)(a, 8);
}
static inline void bytes_store(uint16_t *p, bytes b)
{
    BV_WHOLE(storeu)((bytes *)(void *)p, b);
}

#endif
