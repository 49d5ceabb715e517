/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a fuzz harness defines. libFuzzer calls the first; replay.c, which every build has, calls
 * both. A harness aborts when it finds something.
 */
#ifndef QY_TESTS_FUZZ_FUZZ_H
#define QY_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
/* Input i to start from: returned, freed with free(); NULL past the end. */
uint8_t *fuzz_seed(size_t i, size_t *n);
/* Of runs of replay.c: changed copies of each seed. */
extern const unsigned fuzz_replays;

#endif
