/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the checksum: what is compiled for a processor of its own. Private to runtime/. */
#ifndef QYI_RUNTIME_CHECKSUM_H
#define QYI_RUNTIME_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* As qy_checksum, on processors with the kernel set avx2. */
uint64_t qyi_checksum_avx2(const void *data, size_t bytes, uint64_t seed);

#endif
