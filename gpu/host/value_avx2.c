/* SPDX-License-Identifier: Apache-2.0 */
/* Means of values in AVX2. */
#if defined(__x86_64__)
#include "gpu/host/vec_avx2.h"

#include "gpu/host/value_body.h"

const struct qyi_value_kernels qyi_value_avx2 = {
    .add = value_add, .store = value_store, .load = value_load, .weigh = value_weigh};
#endif
