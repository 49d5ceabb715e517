/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two engines of a disk file have in common (disk.c), and what each brings. Private to
 * disk*.c.
 *
 * A request is done in one or more I/Os, one at a time, in a *place* of the disk's table. An engine
 * starts the I/O of a place and later sets its result and finished; the owner looks at finished.
 */
#ifndef QYI_OFFLOAD_DISK_ENGINE_H
#define QYI_OFFLOAD_DISK_ENGINE_H

#include "offload/disk/disk.h"

#include <stdatomic.h>

struct qyi_disk;

struct qyi_disk_place {
    struct qyi_store_request *request; /* NULL: free */
    enum qyi_store_op op;
    uint64_t at;
    uint8_t *data;
    size_t bytes;
    int stalled; /* a fault: nobody has it */
    int result;  /* bytes, or -errno; set before finished */
    _Atomic int finished;
};

struct qyi_disk_engine_ops {
    QY_MUST int (*open)(struct qyi_disk *disk); /* 0, or errno */
    void (*close)(struct qyi_disk *disk);
    void (*start)(struct qyi_disk *disk, uint32_t place);
    void (*flush)(struct qyi_disk *disk); /* what was started is on its way */
    void (*reap)(struct qyi_disk *disk);  /* sets finished                  */
    /* Sleeps until something finishes, or the clock shows deadline_ns. May return early. */
    void (*sleep)(struct qyi_disk *disk, uint64_t deadline_ns);
};
extern const struct qyi_disk_engine_ops qyi_disk_uring;   /* disk_uring.c   */
extern const struct qyi_disk_engine_ops qyi_disk_threads; /* disk_threads.c */

struct qyi_disk {
    struct qyi_store store;
    const struct qy_runtime *rt;
    int fd;
    int direct;
    size_t slot_bytes;
    const struct qyi_disk_engine_ops *ops;
    void *engine; /* its state */
    struct qyi_disk_place places[QYI_DISK_DEPTH];
    uint32_t n_busy;
    struct qyi_store_queue waiting; /* for a place */
    int resetting;
    enum qyi_disk_fault fault;
    uint32_t fault_after;
    struct qyi_store_stats counts;
};

/* disk_file.c: sets fd and direct. Closes nothing on failure but what it opened. */
QY_MUST enum qy_status qyi_disk_file_open(struct qyi_disk *disk, const char *folder,
                                          struct qy_error *err);

#endif
