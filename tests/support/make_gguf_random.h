/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random tensors of every supported type, the same on every machine: value i of a stream depends
 * on the seed and i alone, and only exact operations are used. Quantized blocks are random bits
 * under finite scales, so every bit of every field is exercised.
 *
 * Halves and bfloat16 are made here with own code, so that tests do not check a conversion against
 * itself.
 */
#ifndef QY_TESTS_SUPPORT_MAKE_GGUF_RANDOM_H
#define QY_TESTS_SUPPORT_MAKE_GGUF_RANDOM_H

#include "model/model.h"

/* 64 random bits, by SplitMix64 (Steele, Lea and Flood 2014) at place i of stream seed. */
uint64_t random_bits(uint64_t seed, uint64_t i);
/* Multiples of 2^-23 in [-1, 1). */
float random_unit(uint64_t seed, uint64_t i);

/* Elements and bytes of a block of a tensor type. */
size_t random_block_elems(enum qy_tensor_type type);
size_t random_block_bytes(enum qy_tensor_type type);
/* n_elems elements (whole blocks) of mean about 0 and standard deviation about sigma. */
void random_tensor(enum qy_tensor_type type, size_t n_elems, float sigma, uint64_t seed,
                   uint8_t *out);
/* f32 elements centre + spread * random_unit. */
void random_vector(size_t n, float centre, float spread, uint64_t seed, uint8_t *out);

#endif
