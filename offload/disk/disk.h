/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store (store.h) in a file of fixed size, read and written in pages.
 *
 * The file is made in a folder, for its owner alone (0600), and has no name from the start: it is gone
 * when the process ends, however that happens. Its bytes are allocated at open, so that a disk that
 * is too full says so then.
 *
 * Two engines serve its requests: io_uring, and where the kernel or a sandbox refuses it a few threads
 * that call pread and pwrite. Both pass by the page cache (O_DIRECT) where the filesystem allows it.
 *
 * One owner thread. Kernel entries on it, and there are no others: io_uring_enter (submit, and wait),
 * or futex (by semaphores, to wake and wait for the threads).
 */
#ifndef QYI_OFFLOAD_DISK_H
#define QYI_OFFLOAD_DISK_H

#include "offload/home/store.h"

enum { QYI_DISK_PAGE = 4096, QYI_DISK_DEPTH = 128 };

/* cache.disk_engine: auto takes io_uring where it is allowed. */
enum qyi_disk_choice { QYI_DISK_AUTO = 0, QYI_DISK_URING, QYI_DISK_THREADS };

struct qyi_disk_params {
    const struct qy_runtime *rt; /* kept */
    const char *folder;
    uint64_t bytes;    /* rounded down to pages; at least one */
    size_t slot_bytes; /* of a block; multiple of a page      */
    enum qyi_disk_choice engine;
};

/* A store whose granule is a page. QY_ERR_CONFIG: the folder does not take such a file, or io_uring was asked
 * for and is refused. QY_ERR_NOMEM: less than `bytes` are free there. [setup] [alloc] */
QY_MUST enum qy_status qyi_disk_open(const struct qyi_disk_params *params, struct qyi_store **store,
                                     struct qy_error *err);
int qyi_disk_descriptor(const struct qyi_store *disk); /* for tests */

/* Faults, for tests: the request after the next `after` ones of the kind fails, is done in two parts,
 * or is not done until a reset. */
enum qyi_disk_fault {
    QYI_DISK_FAULT_NONE = 0,
    QYI_DISK_FAULT_READ,  /* EIO    */
    QYI_DISK_FAULT_WRITE, /* ENOSPC */
    QYI_DISK_FAULT_SHORT, /* of either kind, as is the next */
    QYI_DISK_FAULT_STALL
};
void qyi_disk_inject(struct qyi_store *disk, enum qyi_disk_fault fault, uint32_t after);

#endif
