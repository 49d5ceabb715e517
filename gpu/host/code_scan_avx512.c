/* SPDX-License-Identifier: Apache-2.0 */
/* Scan of 4-bit codes, AVX-512. */
#if defined(__x86_64__)
#define BYTES 64
#include "gpu/host/code_bytes.h"

#include "gpu/host/code_scan_body.h"

void qyi_code_scan_avx512(const struct qyi_code_group *group)
{
    scan_group(group);
}
#endif
