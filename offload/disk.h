/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of fixed size, read and written in pages, asynchronously: the engine under the disk tier. It
 * knows no block.
 *
 * The file is made in a folder, for its owner alone (0600), and has no name from the start: it is gone
 * when the process ends, however that happens. Its bytes are allocated at open, so that a disk that
 * is too full says so then.
 *
 * A *batch* of requests is submitted and waited for. Two engines serve them: io_uring, and where the
 * kernel or a sandbox refuses it a few threads that call pread and pwrite. Both pass by the page
 * cache (O_DIRECT) where the filesystem allows it.
 *
 * One owner thread. Kernel entries on it, and there are no others: io_uring_enter (submit, and wait),
 * or futex (by semaphores, to wake and wait for the threads).
 */
#ifndef QYI_OFFLOAD_DISK_H
#define QYI_OFFLOAD_DISK_H

#include "offload/offload.h"

enum { QYI_DISK_PAGE = 4096, QYI_DISK_DEPTH = 128 };

/* cache.disk_engine: auto takes io_uring where it is allowed. */
enum qyi_disk_choice { QYI_DISK_AUTO = 0, QYI_DISK_URING, QYI_DISK_THREADS };

struct qyi_disk;
struct qyi_disk_batch;

enum qyi_disk_op { QYI_DISK_READ = 0, QYI_DISK_WRITE };

/* Bytes from or to one place of the file. The caller sets the first four members. */
struct qyi_disk_request {
    enum qyi_disk_op op;
    uint64_t at;  /* multiples of QYI_DISK_PAGE, as data and bytes */
    void *data;   /* borrowed until the batch is done              */
    size_t bytes; /* 1 page .. 1 GiB                               */
    int error;    /* when done: 0, or why it failed (errno)        */
    size_t done;  /* bytes so far                                  */
    struct qyi_disk_batch *batch;
    struct qyi_disk_request *next;
};

/* Borrowed until it is done, that is n_left is 0, or a reset. The zero value is done. */
struct qyi_disk_batch {
    struct qyi_disk_request *requests;
    uint32_t n;
    uint32_t n_left; /* not done yet                            */
    int failed;      /* 1: `first_bad` names the first that did */
    uint32_t first_bad;
};

struct qyi_disk_params {
    const struct qy_runtime *rt; /* kept */
    const char *folder;
    uint64_t bytes; /* rounded down to pages; at least one */
    enum qyi_disk_choice engine;
};

/* QY_ERR_CONFIG: the folder does not take such a file, or io_uring was asked for and is refused.
 * QY_ERR_NOMEM: less than `bytes` are free there. [setup] [alloc] */
QY_MUST enum qy_status qyi_disk_open(const struct qyi_disk_params *params, struct qyi_disk **disk,
                                     struct qy_error *err);
/* Waits for what is under way, without a limit: memory it names may be written until then. NULL is
 * accepted. */
void qyi_disk_close(struct qyi_disk *disk);

/* Starts a batch; batch->requests and batch->n are set. QY_ERR_INVALID: a request is not in whole pages
 * of the file. QY_ERR_DEVICE: a reset has not come through yet. [owner] */
QY_MUST enum qy_status qyi_disk_submit(struct qyi_disk *disk, struct qyi_disk_batch *batch);
/* Takes note of what is done, and starts what waits for a place. [owner] */
void qyi_disk_poll(struct qyi_disk *disk);
/* Waits for a batch. QY_ERR_DEVICE: a request failed. QY_ERR_TIMEOUT: not done in time; its memory is in
 * use until qyi_disk_reset returned QY_OK. [owner] */
QY_MUST enum qy_status qyi_disk_wait(struct qyi_disk *disk, const struct qyi_disk_batch *batch,
                                     uint64_t timeout_ns);
/* Gives up all requests of all batches (error ECANCELED); those that the system has cannot be
 * recalled and are waited for. QY_ERR_TIMEOUT: one is still there; try again. [owner] */
QY_MUST enum qy_status qyi_disk_reset(struct qyi_disk *disk, uint64_t timeout_ns);

struct qyi_disk_stats {
    uint64_t reads, read_bytes, writes, written_bytes; /* requests that were done */
    uint64_t failures;                                 /* requests                */
    int uring, direct;                                 /* which engine; O_DIRECT  */
};
void qyi_disk_stats(const struct qyi_disk *disk, struct qyi_disk_stats *stats);
void qyi_disk_stats_reset(struct qyi_disk *disk);
uint64_t qyi_disk_bytes(const struct qyi_disk *disk);
int qyi_disk_descriptor(const struct qyi_disk *disk); /* for tests */

/* Faults, for tests: the request after the next `after` ones of the kind fails, is done in two parts,
 * or is not done until a reset. */
enum qyi_disk_fault {
    QYI_DISK_FAULT_NONE = 0,
    QYI_DISK_FAULT_READ,  /* EIO    */
    QYI_DISK_FAULT_WRITE, /* ENOSPC */
    QYI_DISK_FAULT_SHORT, /* of either kind, as is the next */
    QYI_DISK_FAULT_STALL
};
void qyi_disk_inject(struct qyi_disk *disk, enum qyi_disk_fault fault, uint32_t after);

#endif
