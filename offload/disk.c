/* SPDX-License-Identifier: Apache-2.0 */
/* Disk files: opening with the engine that the system allows, batches, faults. See disk.h. */
#include "offload/disk_engine.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static const size_t most_bytes = (size_t)1 << 30; /* of a request */

/* ---- places --------------------------------------------------------------------------------- */

static void finish(struct qyi_disk *disk, struct qyi_disk_request *request, int error)
{
    struct qyi_disk_batch *batch = request->batch;
    const uint32_t number = (uint32_t)(request - batch->requests);

    request->error = error;
    request->next = NULL;
    batch->n_left--;
    if (error != 0) {
        disk->counts.failures++;
        if (!batch->failed || number < batch->first_bad) {
            batch->failed = 1;
            batch->first_bad = number;
        }
    } else if (request->op == QYI_DISK_READ) {
        disk->counts.reads++;
        disk->counts.read_bytes += request->bytes;
    } else {
        disk->counts.writes++;
        disk->counts.written_bytes += request->bytes;
    }
}

/* Is this the I/O that the test wants to fail? */
static enum qyi_disk_fault fault_of(struct qyi_disk *disk, enum qyi_disk_op op)
{
    const enum qyi_disk_fault fault = disk->fault;

    if (fault == QYI_DISK_FAULT_NONE || (fault == QYI_DISK_FAULT_READ && op != QYI_DISK_READ) ||
        (fault == QYI_DISK_FAULT_WRITE && op != QYI_DISK_WRITE)) {
        return QYI_DISK_FAULT_NONE;
    }
    if (disk->fault_after > 0) {
        disk->fault_after--;
        return QYI_DISK_FAULT_NONE;
    }
    disk->fault = QYI_DISK_FAULT_NONE;
    return fault;
}

/* Starts what is left of the place's request. */
static void start_place(struct qyi_disk *disk, uint32_t number)
{
    struct qyi_disk_place *place = &disk->places[number];
    const struct qyi_disk_request *r = place->request;

    place->op = r->op;
    place->at = r->at + r->done;
    place->data = (uint8_t *)r->data + r->done;
    place->bytes = r->bytes - r->done;
    place->result = 0;
    place->stalled = 0;
    /* relaxed, both: the engine hands the place over with an order of its own */
    atomic_store_explicit(&place->finished, 0, memory_order_relaxed);
    switch (fault_of(disk, r->op)) {
    case QYI_DISK_FAULT_STALL:
        place->stalled = 1;
        return;
    case QYI_DISK_FAULT_READ:
    case QYI_DISK_FAULT_WRITE:
        place->result = r->op == QYI_DISK_READ ? -EIO : -ENOSPC;
        atomic_store_explicit(&place->finished, 1, memory_order_relaxed);
        return;
    case QYI_DISK_FAULT_SHORT:
        place->bytes = place->bytes / (2 * QYI_DISK_PAGE) * QYI_DISK_PAGE;
        place->bytes += place->bytes == 0 ? QYI_DISK_PAGE : 0;
        break;
    case QYI_DISK_FAULT_NONE:
        break;
    }
    disk->ops->start(disk, number);
}

/* Requests that wait get free places. */
static void fill_places(struct qyi_disk *disk)
{
    int started = 0;

    for (uint32_t i = 0; disk->first && disk->n_busy < QYI_DISK_DEPTH; i++) {
        if (disk->places[i].request) {
            continue;
        }
        disk->places[i].request = disk->first;
        disk->first = disk->first->next;
        disk->n_busy++;
        start_place(disk, i);
        started = 1;
    }
    if (started) {
        disk->ops->flush(disk);
    }
}

/* What came of the I/O of a place: the request is done, or goes on. */
static void settle_place(struct qyi_disk *disk, uint32_t number)
{
    struct qyi_disk_place *place = &disk->places[number];
    struct qyi_disk_request *r = place->request;
    int error = 0;

    if (place->result == -EINTR || place->result == -EAGAIN) {
        place->result = 0; /* again, from where it was */
    } else if (place->result < 0) {
        error = -place->result;
    } else if (place->result < QYI_DISK_PAGE) {
        error = EIO; /* the file ends, or the disk moves less than it must be able to */
    } else {
        r->done += (size_t)place->result / QYI_DISK_PAGE * QYI_DISK_PAGE;
    }
    if (error == 0 && r->done < r->bytes && disk->resetting) {
        error = ECANCELED;
    }
    if (error == 0 && r->done < r->bytes) {
        start_place(disk, number);
        disk->ops->flush(disk);
        return;
    }
    place->request = NULL;
    disk->n_busy--;
    finish(disk, r, error);
}

void qyi_disk_poll(struct qyi_disk *disk)
{
    disk->ops->reap(disk);
    for (uint32_t i = 0; i < QYI_DISK_DEPTH && disk->n_busy > 0; i++) {
        /* acquire: the result, and the bytes that were read */
        if (disk->places[i].request &&
            atomic_load_explicit(&disk->places[i].finished, memory_order_acquire)) {
            settle_place(disk, i);
        }
    }
    fill_places(disk);
}

/* ---- batches -------------------------------------------------------------------------------- */

static int is_valid(const struct qyi_disk *disk, const struct qyi_disk_request *r)
{
    return r->data && (uintptr_t)r->data % QYI_DISK_PAGE == 0 && r->at % QYI_DISK_PAGE == 0 &&
           r->bytes % QYI_DISK_PAGE == 0 && r->bytes > 0 && r->bytes <= most_bytes &&
           r->at <= disk->bytes && r->bytes <= disk->bytes - r->at;
}

enum qy_status qyi_disk_submit(struct qyi_disk *disk, struct qyi_disk_batch *batch)
{
    if (disk->resetting) {
        return QY_ERR_DEVICE;
    }
    for (uint32_t i = 0; i < batch->n; i++) {
        if (!is_valid(disk, &batch->requests[i])) {
            return QY_ERR_INVALID;
        }
    }
    batch->n_left = batch->n;
    batch->failed = 0;
    for (uint32_t i = 0; i < batch->n; i++) {
        struct qyi_disk_request *r = &batch->requests[i];

        r->done = 0;
        r->error = 0;
        r->batch = batch;
        r->next = NULL;
        if (disk->first) {
            disk->last->next = r;
        } else {
            disk->first = r;
        }
        disk->last = r;
    }
    fill_places(disk);
    return QY_OK;
}

static uint64_t deadline_of(uint64_t timeout_ns)
{
    const uint64_t now = qy_clock_ns();

    return timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
}

enum qy_status qyi_disk_wait(struct qyi_disk *disk, const struct qyi_disk_batch *batch,
                             uint64_t timeout_ns)
{
    const uint64_t deadline = deadline_of(timeout_ns);

    for (;;) {
        qyi_disk_poll(disk);
        if (batch->n_left == 0) {
            return batch->failed ? QY_ERR_DEVICE : QY_OK;
        }
        if (qy_clock_ns() >= deadline) {
            return QY_ERR_TIMEOUT;
        }
        disk->ops->sleep(disk, deadline);
    }
}

enum qy_status qyi_disk_reset(struct qyi_disk *disk, uint64_t timeout_ns)
{
    const uint64_t deadline = deadline_of(timeout_ns);

    disk->resetting = 1;
    disk->fault = QYI_DISK_FAULT_NONE;
    while (disk->first) {
        struct qyi_disk_request *r = disk->first;

        disk->first = r->next;
        finish(disk, r, ECANCELED);
    }
    for (uint32_t i = 0; i < QYI_DISK_DEPTH; i++) {
        struct qyi_disk_place *place = &disk->places[i];

        if (place->request && place->stalled) {
            place->result = -ECANCELED;
            /* relaxed: only this thread looks at it */
            atomic_store_explicit(&place->finished, 1, memory_order_relaxed);
        }
    }
    for (;;) {
        qyi_disk_poll(disk);
        if (disk->n_busy == 0) {
            disk->resetting = 0;
            return QY_OK;
        }
        if (qy_clock_ns() >= deadline) {
            return QY_ERR_TIMEOUT;
        }
        disk->ops->sleep(disk, deadline);
    }
}

/* ---- open, close ------------------------------------------------------------------------------ */

/* A read of the first page: an old kernel has the ring and not this way to read. 0, or errno. */
static int try_engine(struct qyi_disk *disk, const struct qyi_disk_engine_ops *ops)
{
    const struct qy_allocator *mem = &disk->rt->mem;
    struct qyi_disk_request request = {.op = QYI_DISK_READ, .bytes = QYI_DISK_PAGE};
    struct qyi_disk_batch batch = {.requests = &request, .n = 1};
    int error = ops->open(disk);

    if (error != 0) {
        return error;
    }
    disk->ops = ops;
    request.data = mem->alloc(mem->ctx, QYI_DISK_PAGE, QYI_DISK_PAGE);
    if (!request.data) {
        error = ENOMEM;
    } else if (qyi_disk_submit(disk, &batch) != QY_OK ||
               qyi_disk_wait(disk, &batch, UINT64_MAX) != QY_OK) {
        error = request.error;
    }
    qy_free(mem, request.data);
    if (error != 0) {
        ops->close(disk);
        disk->ops = NULL;
    }
    disk->counts = (struct qyi_disk_stats){0};
    return error;
}

static enum qy_status open_engine(struct qyi_disk *disk, enum qyi_disk_choice choice,
                                  struct qy_error *err)
{
    const int refused = choice == QYI_DISK_THREADS ? 0 : try_engine(disk, &qyi_disk_uring);

    if (refused != 0 && choice == QYI_DISK_URING) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "cache.disk_engine 'uring': the system refuses io_uring (%s); accepted "
                            "here are auto and threads",
                            strerror(refused));
    }
    if (!disk->ops) {
        const int error = try_engine(disk, &qyi_disk_threads);

        if (error != 0) {
            return qy_error_set(err, error == ENOMEM ? QY_ERR_NOMEM : QY_ERR_DEVICE,
                                "disk: its threads could not read the file (%s)", strerror(error));
        }
    }
    if (refused != 0) {
        qy_log_write(&disk->rt->log, QY_LOG_INFO, "offload",
                     "disk: the system refuses io_uring (%s): a few threads read and write instead",
                     strerror(refused));
    }
    if (!disk->direct) {
        qy_log_write(&disk->rt->log, QY_LOG_INFO, "offload",
                     "disk: the filesystem refuses direct I/O: reads and writes go through the "
                     "system's page cache, which takes memory of its own");
    }
    return QY_OK;
}

enum qy_status qyi_disk_open(const struct qyi_disk_params *params, struct qyi_disk **disk,
                             struct qy_error *err)
{
    const struct qy_allocator *mem = &params->rt->mem;

    if (!params->folder || params->bytes < QYI_DISK_PAGE || params->bytes > INT64_MAX) {
        return qy_error_set(err, QY_ERR_INVALID, "disk: no folder, or %llu bytes; at least %d",
                            (unsigned long long)params->bytes, QYI_DISK_PAGE);
    }
    struct qyi_disk *d = qy_alloc_zero(mem, sizeof(*d));
    if (!d) {
        return qy_error_set(err, QY_ERR_NOMEM, "disk: out of memory at open");
    }
    d->rt = params->rt;
    d->bytes = params->bytes / QYI_DISK_PAGE * QYI_DISK_PAGE;
    enum qy_status st = qyi_disk_file_open(d, params->folder, err);
    if (st == QY_OK) {
        st = open_engine(d, params->engine, err);
        if (st != QY_OK) {
            (void)close(d->fd);
        }
    }
    if (st != QY_OK) {
        qy_free(mem, d);
        return st;
    }
    *disk = d;
    return QY_OK;
}

void qyi_disk_close(struct qyi_disk *disk)
{
    if (!disk) {
        return;
    }
    while (qyi_disk_reset(disk, UINT64_MAX) != QY_OK) {
        /* memory that the system may still write to must not be freed */
    }
    disk->ops->close(disk);
    (void)close(disk->fd);
    qy_free(&disk->rt->mem, disk);
}

void qyi_disk_stats(const struct qyi_disk *disk, struct qyi_disk_stats *stats)
{
    *stats = disk->counts;
    stats->uring = disk->ops == &qyi_disk_uring;
    stats->direct = disk->direct;
}

void qyi_disk_stats_reset(struct qyi_disk *disk)
{
    disk->counts = (struct qyi_disk_stats){0};
}

uint64_t qyi_disk_bytes(const struct qyi_disk *disk)
{
    return disk->bytes;
}

int qyi_disk_descriptor(const struct qyi_disk *disk)
{
    return disk->fd;
}

void qyi_disk_inject(struct qyi_disk *disk, enum qyi_disk_fault fault, uint32_t after)
{
    disk->fault = fault;
    disk->fault_after = after;
}
