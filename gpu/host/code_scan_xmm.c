/* SPDX-License-Identifier: Apache-2.0 */
/* Scan of 4-bit codes, 16 bytes at a time, for slabs of few tokens; VEX forms: compiled with AVX2. */
#if defined(__x86_64__)
#define BYTES 16
#include "gpu/host/code_bytes.h"

#include "gpu/host/code_scan_body.h"

void qyi_code_scan_xmm(const struct qyi_code_group *group)
{
    scan_group(group);
}
#endif
