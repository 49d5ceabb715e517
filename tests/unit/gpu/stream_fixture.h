/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of streams share: a discrete device, with a link if one is given. */
#ifndef QY_TESTS_UNIT_GPU_STREAM_FIXTURE_H
#define QY_TESTS_UNIT_GPU_STREAM_FIXTURE_H

#include <string.h>

#include "gpu/gpu.h"
#include "tests/support/test.h"

#define MUST(call) assert_int_equal(call, QY_OK)
/* Far more than anything takes: a test that waits so long fails. */
#define LONG_NS UINT64_C(20000000000)
#define MS UINT64_C(1000000)

struct stream_bed {
    struct qy_runtime rt;
    struct qy_device *dev;
    struct qy_stream *stream;
};

static inline void stream_bed_open_traced(struct stream_bed *bed, struct qy_link link,
                                          enum qy_direction direction, uint32_t capacity,
                                          struct qy_trace *trace)
{
    *bed = (struct stream_bed){.rt = {.mem = qy_allocator_system(), .trace = trace}};
    qy_cpu_detect(&bed->rt.cpu);
    const struct qy_device_params params = {.spec = "host-discrete:1M", .max_m = 1, .link = link};
    MUST(qy_device_open(&bed->rt, &params, &bed->dev, NULL));
    MUST(qy_stream_open(bed->dev, "test", direction, capacity, &bed->stream, NULL));
}

static inline void stream_bed_open(struct stream_bed *bed, struct qy_link link,
                                   enum qy_direction direction, uint32_t capacity)
{
    stream_bed_open_traced(bed, link, direction, capacity, NULL);
}

static inline void stream_bed_close(struct stream_bed *bed)
{
    qy_stream_close(bed->stream);
    qy_device_close(bed->dev);
}

#endif
