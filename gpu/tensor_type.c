/* SPDX-License-Identifier: Apache-2.0 */
/* The tensor types of GGUF that this build reads: number, name, block. */
#include "gpu/gpu.h"

static const struct qy_tensor_type_info types[] = {
    {QY_TYPE_F32, "F32", 1, 4},       {QY_TYPE_F16, "F16", 1, 2},
    {QY_TYPE_BF16, "BF16", 1, 2},     {QY_TYPE_Q4_0, "Q4_0", 32, 18},
    {QY_TYPE_Q4_1, "Q4_1", 32, 20},   {QY_TYPE_Q5_0, "Q5_0", 32, 22},
    {QY_TYPE_Q5_1, "Q5_1", 32, 24},   {QY_TYPE_Q8_0, "Q8_0", 32, 34},
    {QY_TYPE_Q4_K, "Q4_K", 256, 144}, {QY_TYPE_Q5_K, "Q5_K", 256, 176},
    {QY_TYPE_Q6_K, "Q6_K", 256, 210},
};

const struct qy_tensor_type_info *qy_tensor_type_at(size_t i)
{
    return i < sizeof types / sizeof types[0] ? &types[i] : NULL;
}

const struct qy_tensor_type_info *qy_tensor_type_find(uint32_t type)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if ((uint32_t)types[i].type == type) {
            return &types[i];
        }
    }
    return NULL;
}
