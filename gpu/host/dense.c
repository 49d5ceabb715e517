/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which library takes the large products: the one this build has, where it gains anything, with two
 * exceptions.
 *   - A deterministic device. The streaming kernels sum every output in one order whatever m is; a
 *     library does not: it picks blocks by m.
 *   - A kernel set below the machine's best. The library chooses instructions per process, not per
 *     device, so it could not be held to the set.
 */
#include "gpu/host/dense.h"

#if defined(QY_HAVE_ONEDNN)
#define LIBRARY (&qyi_dense_onednn)
#elif defined(QY_HAVE_OPENBLAS)
#define LIBRARY (&qyi_dense_openblas)
#else
#define LIBRARY NULL
#endif

/* Packed copies may take half of what this process can still have: the cache needs the rest. A
 * weight that no longer fits is streamed. */
static uint64_t packed_most(void)
{
    struct qy_memory_info memory;
    qy_memory_read(&memory);
    return memory.usable / 2;
}

enum qy_status qyi_dense_open(struct qy_device *dev, struct qy_error *err)
{
    const struct qyi_dense *library = LIBRARY;
    dev->caps.dense = "plain";
    const int lowered = dev->level < dev->rt->cpu.best;
    if (dev->deterministic || lowered || !library) {
        if (dev->compute == QY_COMPUTE_BF16) {
            return qy_error_set(err, QY_ERR_UNSUPPORTED,
                                "device 'host': compute 'bf16' %s; products are f32 then; "
                                "use compute 'f32'",
                                !library  ? "in a build without oneDNN"
                                : lowered ? "with a kernel set below the machine's best"
                                          : "with deterministic products");
        }
        return QY_OK;
    }
    const enum qy_status st = library->open(dev, err);
    if (st != QY_OK) {
        return st;
    }
    if (dev->dense_min_m > dev->max_m) { /* no product is that large: pack nothing */
        library->close(dev);
        dev->caps.dense = "plain";
        return QY_OK;
    }
    dev->dense = library;
    dev->packed_left = packed_most();
    return QY_OK;
}

void qyi_dense_close(struct qy_device *dev)
{
    if (dev->dense) {
        dev->dense->close(dev);
    }
}
