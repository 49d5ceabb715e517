/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which library takes the large products: the one this build has, with two exceptions.
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
    if (st == QY_OK) {
        dev->dense = library;
    }
    return st;
}

void qyi_dense_close(struct qy_device *dev)
{
    if (dev->dense) {
        dev->dense->close(dev);
    }
}
