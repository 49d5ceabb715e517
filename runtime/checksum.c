/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XXH3 of a run of bytes. It finds damage; it is no defence against somebody who forges data.
 * Source: the XXH3 64-bit format of xxHash 0.8, https://github.com/Cyan4973/xxHash
 */
#include "runtime/runtime.h"

#define XXH_INLINE_ALL /* short inputs are hashed without a call through the shared library */
#include <xxhash.h>

uint64_t qy_checksum(const void *data, size_t bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, bytes, seed);
}
