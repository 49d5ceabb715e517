/* SPDX-License-Identifier: Apache-2.0 */
/* Disk I/O by io_uring. The only file that includes liburing. */
#include "offload/disk/disk_engine.h"

#include <errno.h>
#include <liburing.h>

static int uring_open(struct qyi_disk *disk)
{
    struct io_uring *ring = qy_alloc_zero(&disk->rt->mem, sizeof(*ring));

    if (!ring) {
        return ENOMEM;
    }
    const int rc = io_uring_queue_init(QYI_DISK_DEPTH, ring, 0);
    if (rc != 0) {
        qy_free(&disk->rt->mem, ring);
        return -rc;
    }
    disk->engine = ring;
    return 0;
}

static void uring_close(struct qyi_disk *disk)
{
    io_uring_queue_exit(disk->engine);
    qy_free(&disk->rt->mem, disk->engine);
    disk->engine = NULL;
}

static void uring_start(struct qyi_disk *disk, uint32_t number)
{
    struct qyi_disk_place *place = &disk->places[number];
    /* one entry per place: there is always one, once what was queued has been submitted */
    struct io_uring_sqe *sqe = io_uring_get_sqe(disk->engine);

    if (!sqe) {
        place->result = -EAGAIN;
        /* relaxed: only this thread looks at it */
        atomic_store_explicit(&place->finished, 1, memory_order_relaxed);
        return;
    }
    if (place->op == QYI_STORE_READ) {
        io_uring_prep_read(sqe, disk->fd, place->data, (unsigned)place->bytes, place->at);
    } else {
        io_uring_prep_write(sqe, disk->fd, place->data, (unsigned)place->bytes, place->at);
    }
    io_uring_sqe_set_data64(sqe, number);
}

/* What the kernel does not take now stays in the ring for the next flush. */
static void uring_flush(struct qyi_disk *disk)
{
    (void)io_uring_submit(disk->engine);
}

static void uring_reap(struct qyi_disk *disk)
{
    struct io_uring_cqe *cqe;

    if (io_uring_sq_ready(disk->engine) > 0) {
        uring_flush(disk);
    }
    while (io_uring_peek_cqe(disk->engine, &cqe) == 0) {
        struct qyi_disk_place *place = &disk->places[io_uring_cqe_get_data64(cqe)];

        place->result = cqe->res;
        /* relaxed: only this thread looks at it */
        atomic_store_explicit(&place->finished, 1, memory_order_relaxed);
        io_uring_cqe_seen(disk->engine, cqe);
    }
}

static void uring_sleep(struct qyi_disk *disk, uint64_t deadline_ns)
{
    const uint64_t now = qy_clock_ns();
    const uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
    struct __kernel_timespec time = {.tv_sec = (int64_t)(left / 1000000000u),
                                     .tv_nsec = (long long)(left % 1000000000u)};
    struct io_uring_cqe *cqe;

    /* what it found stays in the ring for reap; errors mean: look again */
    (void)io_uring_wait_cqe_timeout(disk->engine, &cqe, &time);
}

const struct qyi_disk_engine_ops qyi_disk_uring = {.open = uring_open,
                                                   .close = uring_close,
                                                   .start = uring_start,
                                                   .flush = uring_flush,
                                                   .reap = uring_reap,
                                                   .sleep = uring_sleep};
