/* SPDX-License-Identifier: Apache-2.0 */
/* Disk files: opening with the engine that the system allows, batches, faults. See disk.h. */
#include "offload/disk/disk_engine.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static const size_t most_bytes = (size_t)1 << 30; /* of a request */

static struct qyi_disk *disk_of(struct qyi_store *store)
{
    return (struct qyi_disk *)(void *)store;
}

/* Where a request begins in the file. */
static uint64_t at_of(const struct qyi_disk *disk, const struct qyi_store_request *r)
{
    return (uint64_t)r->slot * disk->slot_bytes + r->at;
}

/* ---- places --------------------------------------------------------------------------------- */

/* Is this the I/O that the test wants to fail? */
static enum qyi_disk_fault fault_of(struct qyi_disk *disk, enum qyi_store_op op)
{
    const enum qyi_disk_fault fault = disk->fault;

    if (fault == QYI_DISK_FAULT_NONE || (fault == QYI_DISK_FAULT_READ && op != QYI_STORE_READ) ||
        (fault == QYI_DISK_FAULT_WRITE && op != QYI_STORE_WRITE)) {
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
    const struct qyi_store_request *r = place->request;

    place->op = r->op;
    place->at = at_of(disk, r) + r->done;
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
        place->result = r->op == QYI_STORE_READ ? -EIO : -ENOSPC;
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

    for (uint32_t i = 0; disk->waiting.first && disk->n_busy < QYI_DISK_DEPTH; i++) {
        if (disk->places[i].request) {
            continue;
        }
        disk->places[i].request = qyi_store_queue_take(&disk->waiting);
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
    struct qyi_store_request *r = place->request;
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
    qyi_store_finish(&disk->counts, r, error);
}

static void poll_places(struct qyi_disk *disk)
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

static int is_valid(const struct qyi_disk *disk, const struct qyi_store_request *r)
{
    const uint64_t bytes = disk->store.bytes;
    const uint64_t at = at_of(disk, r);

    return (r->op == QYI_STORE_READ || r->op == QYI_STORE_WRITE) && r->data &&
           (uintptr_t)r->data % QYI_DISK_PAGE == 0 && r->at % QYI_DISK_PAGE == 0 &&
           r->bytes % QYI_DISK_PAGE == 0 && r->bytes > 0 && r->bytes <= most_bytes && at <= bytes &&
           r->bytes <= bytes - at;
}

static enum qy_status disk_submit(struct qyi_store *store, struct qyi_store_batch *batch)
{
    struct qyi_disk *disk = disk_of(store);

    if (disk->resetting) {
        return QY_ERR_DEVICE;
    }
    for (uint32_t i = 0; i < batch->n; i++) {
        if (!is_valid(disk, &batch->requests[i])) {
            return QY_ERR_INVALID;
        }
    }
    qyi_store_queue_batch(&disk->waiting, batch);
    fill_places(disk);
    return QY_OK;
}

static uint64_t deadline_of(uint64_t timeout_ns)
{
    const uint64_t now = qy_clock_ns();

    return timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
}

static enum qy_status disk_wait(struct qyi_store *store, const struct qyi_store_batch *batch,
                                uint64_t timeout_ns)
{
    struct qyi_disk *disk = disk_of(store);
    const uint64_t deadline = deadline_of(timeout_ns);

    for (;;) {
        poll_places(disk);
        if (batch->n_left == 0) {
            return batch->failed ? QY_ERR_DEVICE : QY_OK;
        }
        if (qy_clock_ns() >= deadline) {
            return QY_ERR_TIMEOUT;
        }
        disk->ops->sleep(disk, deadline);
    }
}

static enum qy_status disk_reset(struct qyi_store *store, uint64_t timeout_ns)
{
    struct qyi_disk *disk = disk_of(store);
    const uint64_t deadline = deadline_of(timeout_ns);
    struct qyi_store_request *r;

    disk->resetting = 1;
    disk->fault = QYI_DISK_FAULT_NONE;
    while ((r = qyi_store_queue_take(&disk->waiting)) != NULL) {
        qyi_store_finish(&disk->counts, r, ECANCELED);
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
        poll_places(disk);
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
    struct qyi_store_request request = {.op = QYI_STORE_READ, .bytes = QYI_DISK_PAGE};
    struct qyi_store_batch batch = {.requests = &request, .n = 1};
    int error = ops->open(disk);

    if (error != 0) {
        return error;
    }
    disk->ops = ops;
    request.data = mem->alloc(mem->ctx, QYI_DISK_PAGE, QYI_DISK_PAGE);
    if (!request.data) {
        error = ENOMEM;
    } else if (disk_submit(&disk->store, &batch) != QY_OK ||
               disk_wait(&disk->store, &batch, UINT64_MAX) != QY_OK) {
        error = request.error;
    }
    qy_free(mem, request.data);
    if (error != 0) {
        ops->close(disk);
        disk->ops = NULL;
    }
    disk->counts = (struct qyi_store_stats){0};
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

static void disk_poll(struct qyi_store *store)
{
    poll_places(disk_of(store));
}

static void disk_close(struct qyi_store *store)
{
    struct qyi_disk *disk = disk_of(store);

    while (disk_reset(store, UINT64_MAX) != QY_OK) {
        /* memory that the system may still write to must not be freed */
    }
    disk->ops->close(disk);
    (void)close(disk->fd);
    qy_free(&disk->rt->mem, disk);
}

static struct qyi_store_stats *disk_stats(struct qyi_store *store)
{
    struct qyi_disk *disk = disk_of(store);

    disk->counts.uring = disk->ops == &qyi_disk_uring;
    disk->counts.direct = disk->direct;
    return &disk->counts;
}

static const struct qyi_store_ops disk_ops = {.submit = disk_submit,
                                              .poll = disk_poll,
                                              .wait = disk_wait,
                                              .reset = disk_reset,
                                              .stats = disk_stats,
                                              .close = disk_close};

enum qy_status qyi_disk_open(const struct qyi_disk_params *params, struct qyi_store **store,
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
    d->store = (struct qyi_store){.ops = &disk_ops,
                                  .word = "disk",
                                  .granule = QYI_DISK_PAGE,
                                  .bytes = params->bytes / QYI_DISK_PAGE * QYI_DISK_PAGE};
    d->slot_bytes = params->slot_bytes;
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
    *store = &d->store;
    return QY_OK;
}

int qyi_disk_descriptor(const struct qyi_store *disk)
{
    return ((const struct qyi_disk *)(const void *)disk)->fd;
}

void qyi_disk_inject(struct qyi_store *store, enum qyi_disk_fault fault, uint32_t after)
{
    struct qyi_disk *disk = disk_of(store);

    disk->fault = fault;
    disk->fault_after = after;
}
