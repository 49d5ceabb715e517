/* SPDX-License-Identifier: Apache-2.0 */
/* Four floats, and four by four of them turned round: in the compilers' vector extension, for every
 * set of the kernels of codes. */
#ifndef QY_GPU_HOST_CODE_QUAD_H
#define QY_GPU_HOST_CODE_QUAD_H

#include <string.h>

#ifndef ALWAYS_INLINE
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#endif

typedef float quad __attribute__((vector_size(16)));

/* q[i][j] becomes q[j][i]. */
ALWAYS_INLINE void quad_turn(quad q[4])
{
    const quad a = __builtin_shufflevector(q[0], q[1], 0, 4, 1, 5);
    const quad b = __builtin_shufflevector(q[2], q[3], 0, 4, 1, 5);
    const quad c = __builtin_shufflevector(q[0], q[1], 2, 6, 3, 7);
    const quad d = __builtin_shufflevector(q[2], q[3], 2, 6, 3, 7);
    q[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
    q[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
    q[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
    q[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

#endif
