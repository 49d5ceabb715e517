/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of rotary angles. A position times a frequency is a large angle (100,000 radians and
 * more), whose sine in f32 would be off by whole percents: angles are f64, the results f32.
 */
#include <math.h>

#include "gpu/host/host.h"

enum { SPLIT_ANGLES = 512 };

struct job {
    const struct qy_rope *rope;
    const int32_t *positions;
    float *table;
    uint32_t m;
};

static void table_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct job *job = arg;
    const uint32_t half = job->rope->dim / 2;
    size_t i;
    size_t end;
    for (qy_team_range(job->m, thread, n_threads, &i, &end); i < end; i++) {
        float *row = job->table + i * job->rope->dim;
        for (uint32_t p = 0; p < half; p++) {
            const double angle = (double)job->positions[i] * (double)job->rope->inv_freq[p];
            row[2 * p] = (float)cos(angle);
            row[2 * p + 1] = (float)sin(angle);
        }
    }
}

enum qy_status qy_device_rope_table(struct qy_device *dev, const struct qy_rope *rope,
                                    const int32_t *positions, uint32_t m, float *table)
{
    if (rope->dim % 2 != 0) {
        return QY_ERR_INVALID;
    }
    struct job job = {rope, positions, table, m};
    if ((size_t)m * rope->dim / 2 >= SPLIT_ANGLES) {
        qy_team_run(dev->rt->team, table_share, &job);
    } else {
        table_share(&job, 0, 1);
    }
    return QY_OK;
}
