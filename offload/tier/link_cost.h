/* SPDX-License-Identifier: Apache-2.0 */
/* What pulling and pushing rows costs on this device: a trial at open; see link_cost.c. */
#ifndef QYI_OFFLOAD_LINK_COST_H
#define QYI_OFFLOAD_LINK_COST_H

#include "offload/tier/plan.h"

struct qyi_link_shape {
    enum qy_row_type row_type;
    uint32_t d, group;                /* head dimension, query heads per KV head    */
    const struct qy_row_codec *codec; /* of home rows; NULL: they are as on the device */
};

/* Writes all costs but `reuse` and `shared_threads`, which are left as they are; none on failure.
 * About 20 MiB of mem and 2 MiB of device memory are taken and given back. [setup] [alloc] */
QY_MUST enum qy_status qyi_link_cost_measure(const struct qy_allocator *mem, struct qy_device *dev,
                                             const struct qyi_link_shape *shape,
                                             struct qyi_plan_costs *costs, struct qy_error *err);

#endif
