/* SPDX-License-Identifier: Apache-2.0 */
/* Random tensors of every supported type; see the header. */
#include "tests/support/make_gguf_random.h"

#include <stdlib.h>
#include <string.h>

/* Per type: the block, and the standard deviation of the elements when the scale is 1 and all
 * other bits are uniform. Where a block has a minimum, it is `centre` times the scale. */
struct block_form {
    enum qy_tensor_type type;
    size_t elems, bytes;
    size_t scale_at; /* of the f16 scale in the block */
    int minimum;     /* 1: an f16 minimum follows, added; -1: subtracted (K types) */
    float centre;
    float sigma;
};

static const struct block_form forms[] = {
    {QY_TYPE_F32, 1, 4, 0, 0, 0.0F, 1.0F},           {QY_TYPE_F16, 1, 2, 0, 0, 0.0F, 1.0F},
    {QY_TYPE_BF16, 1, 2, 0, 0, 0.0F, 1.0F},          {QY_TYPE_Q4_0, 32, 18, 0, 0, 0.0F, 4.6F},
    {QY_TYPE_Q4_1, 32, 20, 0, 1, -7.5F, 4.6F},       {QY_TYPE_Q5_0, 32, 22, 0, 0, 0.0F, 9.2F},
    {QY_TYPE_Q5_1, 32, 24, 0, 1, -15.5F, 9.2F},      {QY_TYPE_Q8_0, 32, 34, 0, 0, 0.0F, 74.0F},
    {QY_TYPE_Q4_K, 256, 144, 0, -1, 7.5F, 245.0F},   {QY_TYPE_Q5_K, 256, 176, 0, -1, 15.5F, 500.0F},
    {QY_TYPE_Q6_K, 256, 210, 208, 0, 0.0F, 1367.0F},
};

static const struct block_form *find_form(enum qy_tensor_type type)
{
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (forms[i].type == type) {
            return &forms[i];
        }
    }
    abort();
}

uint64_t random_bits(uint64_t seed, uint64_t i)
{
    uint64_t z = seed * 0xd1342543de82ef95ULL + (i + 1) * 0x9e3779b97f4a7c15ULL;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

float random_unit(uint64_t seed, uint64_t i)
{
    const int32_t bits = (int32_t)(random_bits(seed, i) >> 40) - (1 << 23);

    return (float)bits / (float)(1 << 23);
}

/* Towards zero; below 2^-14 a subnormal half. Only for |value| < 65504. */
static uint16_t to_half(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    const uint32_t sign = (bits >> 16) & 0x8000;
    const int exponent = (int)((bits >> 23) & 0xff) - 127 + 15;
    const uint32_t fraction = (bits & 0x7fffff) | 0x800000;
    if (exponent > 0) {
        return (uint16_t)(sign | (uint32_t)exponent << 10 | (fraction >> 13 & 0x3ff));
    }
    return (uint16_t)(sign | (exponent > -11 ? fraction >> (14 - exponent) : 0));
}

static void put_half(uint8_t *out, float value)
{
    const uint16_t half = to_half(value);

    memcpy(out, &half, sizeof(half));
}

static void put_float(enum qy_tensor_type type, uint8_t *out, float value)
{
    if (type == QY_TYPE_F32) {
        memcpy(out, &value, 4);
    } else if (type == QY_TYPE_F16) {
        put_half(out, value);
    } else {
        uint32_t bits;
        memcpy(&bits, &value, sizeof(bits));
        const uint16_t top = (uint16_t)(bits >> 16);
        memcpy(out, &top, sizeof(top));
    }
}

size_t random_block_elems(enum qy_tensor_type type)
{
    return find_form(type)->elems;
}

size_t random_block_bytes(enum qy_tensor_type type)
{
    return find_form(type)->bytes;
}

/* Random bytes, then a finite scale (and minimum) over them. */
static void random_block(const struct block_form *form, float sigma, uint64_t seed, uint64_t i,
                         uint8_t *out)
{
    const uint64_t stream = random_bits(seed, i);
    const float scale = sigma / form->sigma * (1.0F + 0.25F * random_unit(stream, 0));

    for (size_t b = 0; b < form->bytes; b++) {
        out[b] = (uint8_t)random_bits(stream, b + 1);
    }
    put_half(out + form->scale_at, scale);
    if (form->minimum) {
        put_half(out + form->scale_at + 2, scale * form->centre);
    }
}

void random_tensor(enum qy_tensor_type type, size_t n_elems, float sigma, uint64_t seed,
                   uint8_t *out)
{
    const struct block_form *form = find_form(type);
    const float spread = sigma * 1.7320508F; /* of a uniform distribution */

    for (size_t i = 0; i < n_elems / form->elems; i++) {
        if (form->elems == 1) {
            put_float(type, out + i * form->bytes, spread * random_unit(seed, i));
        } else {
            random_block(form, sigma, seed, i, out + i * form->bytes);
        }
    }
}

void random_vector(size_t n, float centre, float spread, uint64_t seed, uint8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        put_float(QY_TYPE_F32, out + 4 * i, centre + spread * random_unit(seed, i));
    }
}
