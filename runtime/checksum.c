/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XXH3 of a run of bytes. It finds damage; it is no defence against somebody who forges data.
 * Source: the XXH3 64-bit format of xxHash 0.8, https://github.com/Cyan4973/xxHash
 */
#include "runtime/checksum.h"
#include "runtime/runtime.h"

#define XXH_INLINE_ALL /* short inputs are hashed without a call through the shared library */
#include <xxhash.h>

#if defined(__x86_64__)
enum { VECTOR_BYTES = 241 }; /* XXH3 works with vectors from here on */

static int has_avx2(void) /* and what else the kernel set may use; looked up, not asked again */
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}
#endif

uint64_t qy_checksum(const void *data, size_t bytes, uint64_t seed)
{
#if defined(__x86_64__)
    if (bytes >= VECTOR_BYTES && has_avx2()) {
        return qyi_checksum_avx2(data, bytes, seed);
    }
#endif
    return XXH3_64bits_withSeed(data, bytes, seed);
}
