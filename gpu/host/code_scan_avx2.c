/* SPDX-License-Identifier: Apache-2.0 */
/* Scan of 4-bit codes, AVX2. */
#if defined(__x86_64__)
#define BYTES 32
#include "gpu/host/code_bytes.h"

#include "gpu/host/code_scan_body.h"

void qyi_code_scan_avx2(const struct qyi_code_group *group)
{
    scan_group(group);
}
#endif
