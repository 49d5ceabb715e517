/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of the host device, the owner's side: queueing, events, waiting, reset, counts. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "gpu/host/copy_engine.h"

/* How long the owner polls before it sleeps. */
enum { SPIN_NS = 10000, MAX_CAPACITY = 65536, MOST_LATE_NS = 200000 /* by a fault */ };

static void set_control(struct qy_stream *s, enum qyi_control control)
{
    const uint32_t before = qyi_wake_value(&s->control);
    qyi_wake_set(&s->control, (before | QYI_CONTROL_MASK) + 1 + control);
    qyi_wake_ring(&s->bell); /* it may be waiting for work */
}

static int is_slowed(const struct qy_link *link)
{
    return link->gbps > 0 || link->copy_ns > 0;
}

static enum qy_status open_lanes(struct qy_stream *s, const char *name, struct qy_error *err)
{
    struct qy_trace *trace = s->dev->rt->trace;
    enum qy_status st = qy_trace_lane_open(trace, QY_TRACE_STREAMS, name, &s->lane, err);
    if (st == QY_OK && is_slowed(&s->dev->link)) {
        st = qy_trace_lane_open(trace, QY_TRACE_LINKS, name, &s->link_lane, err);
    }
    return st;
}

static void close_lanes(struct qy_stream *s)
{
    qy_trace_lane_close(s->link_lane);
    qy_trace_lane_close(s->lane);
}

/* Starts the engine with all signals blocked: Ctrl-C is for the program's own threads. */
static enum qy_status start_engine(struct qy_stream *s, struct qy_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int rc = pthread_create(&s->thread, NULL, qyi_engine_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "stream '%s': the system refused its thread (%s); raise the limit of "
                            "processes",
                            s->name, strerror(rc));
    }
    return QY_OK;
}

enum qy_status qy_stream_open(struct qy_device *dev, const char *name, enum qy_direction direction,
                              uint32_t capacity, struct qy_stream **stream, struct qy_error *err)
{
    if (dev == NULL || name == NULL) {
        return qy_error_set(err, QY_ERR_INVALID, "stream: no device or name given");
    }
    if (capacity < 1 || capacity > MAX_CAPACITY) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "stream '%s': capacity '%u'; 1 to %d commands are accepted", name,
                            capacity, MAX_CAPACITY);
    }
    if (direction != QY_TO_DEVICE && direction != QY_TO_HOST) {
        return qy_error_set(err, QY_ERR_INVALID, "stream '%s': direction '%d'; to device or host",
                            name, (int)direction);
    }
    uint32_t places = 2;
    while (places <= capacity) {
        places *= 2;
    }
    struct qy_stream *s = qy_alloc_zero(&dev->rt->mem, sizeof *s);
    if (s != NULL) {
        s->ring = qy_alloc_zero(&dev->rt->mem, places * sizeof *s->ring);
    }
    if (s == NULL || s->ring == NULL) {
        qy_free(&dev->rt->mem, s);
        return qy_error_set(err, QY_ERR_NOMEM, "stream '%s': no memory for %u commands", name,
                            capacity);
    }
    s->dev = dev;
    s->direction = direction;
    s->capacity = capacity;
    s->mask = places - 1;
    snprintf(s->name, sizeof s->name, "qy-%s", name);
    atomic_init(&s->wanted, QYI_NEVER);
    enum qy_status st = open_lanes(s, name, err);
    if (st == QY_OK) {
        st = start_engine(s, err);
    }
    if (st != QY_OK) {
        close_lanes(s);
        qy_free(&dev->rt->mem, s->ring);
        qy_free(&dev->rt->mem, s);
        return st;
    }
    *stream = s;
    return QY_OK;
}

void qy_stream_close(struct qy_stream *s)
{
    if (s == NULL) {
        return;
    }
    const struct qy_allocator *mem = &s->dev->rt->mem;
    set_control(s, s->resetting ? QYI_ABANDON : QYI_DRAIN);
    pthread_join(s->thread, NULL);
    close_lanes(s);
    qy_free(mem, s->ring);
    qy_free(mem, s);
}

/* How late the next command is to be. */
static uint32_t next_late(struct qy_stream *s)
{
    if (s->late == 0) {
        return 0;
    }
    s->late = (s->late * 1664525U + 1013904223U) | 1; /* never 0 */
    return (s->late >> 8) % MOST_LATE_NS;
}

/* The next place of the ring, or NULL with the status to return. */
static struct qyi_command *next_command(struct qy_stream *s, enum qy_status *st)
{
    /* relaxed: nothing is read on the strength of it */
    if (s->resetting || atomic_load_explicit(&s->failed, memory_order_relaxed) != 0) {
        *st = QY_ERR_DEVICE;
        return NULL;
    }
    /* acquire: the engine is done with the place that is written next */
    if (s->queued - atomic_load_explicit(&s->done, memory_order_acquire) >= s->capacity) {
        *st = QY_AGAIN;
        return NULL;
    }
    struct qyi_command *command = &s->ring[(s->queued + 1) & s->mask];
    command->link = s->dev->link;
    command->queued_ns = is_slowed(&command->link) ? qy_clock_ns() : 0;
    command->fault = QY_STREAM_FAULT_NONE;
    if (s->fault != QY_STREAM_FAULT_NONE && s->fault_after-- == 0) {
        command->fault = s->fault;
        s->fault = QY_STREAM_FAULT_NONE;
    }
    command->late_ns = next_late(s);
    return command;
}

static enum qy_status queue(struct qy_stream *s)
{
    s->queued++;
    /* release: the command's fields */
    atomic_store_explicit(&s->tail, s->queued, memory_order_release);
    qyi_wake_ring(&s->bell);
    return QY_OK;
}

enum qy_status qy_stream_gather(struct qy_stream *s, const struct qy_gather_item *items,
                                uint32_t n_items, void *base)
{
    if (s->direction != QY_TO_DEVICE || (n_items > 0 && (items == NULL || base == NULL))) {
        return QY_ERR_INVALID;
    }
    enum qy_status st = QY_AGAIN;
    struct qyi_command *command = next_command(s, &st);
    if (command == NULL) {
        return st;
    }
    command->gather = items;
    command->copy = NULL;
    command->n_items = n_items;
    command->base = base;
    return queue(s);
}

enum qy_status qy_stream_copy(struct qy_stream *s, const struct qy_copy_item *items,
                              uint32_t n_items)
{
    if (n_items > 0 && items == NULL) {
        return QY_ERR_INVALID;
    }
    enum qy_status st = QY_AGAIN;
    struct qyi_command *command = next_command(s, &st);
    if (command == NULL) {
        return st;
    }
    command->gather = NULL;
    command->copy = items;
    command->n_items = n_items;
    command->base = NULL;
    return queue(s);
}

struct qy_event qy_stream_record(const struct qy_stream *s)
{
    return (struct qy_event){.at = s->queued};
}

enum qy_status qy_stream_query(const struct qy_stream *s, struct qy_event event)
{
    if (event.at > s->lost_after && event.at <= s->lost_last) {
        return QY_ERR_DEVICE;
    }
    /* seq_cst: acquires what was copied; and after `wanted`, see publish_done */
    if (event.at <= atomic_load_explicit(&s->done, memory_order_seq_cst)) {
        return QY_OK;
    }
    /* acquire: pairs with the engine's release */
    const uint64_t failed = atomic_load_explicit(&s->failed, memory_order_acquire);
    return s->resetting || (failed != 0 && event.at >= failed) ? QY_ERR_DEVICE : QY_PENDING;
}

static uint64_t deadline_of(uint64_t timeout_ns)
{
    const uint64_t now = qy_clock_ns();
    return timeout_ns > QYI_NEVER - now ? QYI_NEVER : now + timeout_ns;
}

enum qy_status qy_stream_wait(struct qy_stream *s, struct qy_event event, uint64_t timeout_ns)
{
    enum qy_status st = qy_stream_query(s, event);
    if (st != QY_PENDING) {
        return st;
    }
    const uint64_t deadline = deadline_of(timeout_ns);
    /* seq_cst: before the look at `done`, see publish_done */
    atomic_store_explicit(&s->wanted, event.at, memory_order_seq_cst);
    for (;;) {
        const uint32_t seen = qyi_wake_value(&s->progress);
        st = qy_stream_query(s, event);
        if (st != QY_PENDING) {
            break;
        }
        if (qy_clock_ns() >= deadline) {
            st = QY_ERR_TIMEOUT;
            break;
        }
        qyi_wake_wait(&s->progress, seen, SPIN_NS, deadline);
    }
    /* relaxed: an engine that still sees it rings once for nobody */
    atomic_store_explicit(&s->wanted, QYI_NEVER, memory_order_relaxed);
    return st;
}

enum qy_status qy_stream_reset(struct qy_stream *s, uint64_t timeout_ns)
{
    const uint64_t deadline = deadline_of(timeout_ns);
    if (!s->resetting) {
        s->resetting = 1;
        set_control(s, QYI_GIVE_UP);
    }
    for (;;) {
        const uint32_t seen = qyi_wake_value(&s->progress);
        /* acquire: what the engine wrote before it parked is ours */
        if (atomic_load_explicit(&s->parked, memory_order_acquire) != 0) {
            break;
        }
        if (qy_clock_ns() >= deadline) {
            return QY_ERR_TIMEOUT;
        }
        qyi_wake_wait(&s->progress, seen, SPIN_NS, deadline);
    }
    /* relaxed, here and below: the engine is parked and looks again after control was set, which
     * releases all of it */
    const uint64_t done = atomic_load_explicit(&s->done, memory_order_relaxed);
    s->lost_after = done;
    s->lost_last = s->queued;
    /* A number that no command has: events from now on lie behind those that were lost. */
    s->queued++;
    s->ring[s->queued & s->mask].totals = s->ring[done & s->mask].totals;
    atomic_store_explicit(&s->tail, s->queued, memory_order_relaxed);
    atomic_store_explicit(&s->done, s->queued, memory_order_relaxed);
    atomic_store_explicit(&s->failed, 0, memory_order_relaxed);
    atomic_store_explicit(&s->parked, 0, memory_order_relaxed);
    s->fault = QY_STREAM_FAULT_NONE;
    s->resetting = 0;
    set_control(s, QYI_RUN);
    return QY_OK;
}

static struct qy_stream_stats totals_of(const struct qy_stream *s)
{
    /* acquire: the engine wrote the totals before; it writes that place again only after the owner
     * has queued a command into it */
    return s->ring[atomic_load_explicit(&s->done, memory_order_acquire) & s->mask].totals;
}

void qy_stream_stats(const struct qy_stream *s, struct qy_stream_stats *stats)
{
    const struct qy_stream_stats now = totals_of(s);
    *stats = (struct qy_stream_stats){.bytes = now.bytes - s->base.bytes,
                                      .rows = now.rows - s->base.rows,
                                      .copies = now.copies - s->base.copies,
                                      .busy_ns = now.busy_ns - s->base.busy_ns};
}

void qy_stream_stats_reset(struct qy_stream *s)
{
    s->base = totals_of(s);
}

enum qy_status qy_stream_inject(struct qy_stream *s, enum qy_stream_fault fault, uint32_t after)
{
    if (fault < QY_STREAM_FAULT_NONE || fault > QY_STREAM_FAULT_DELAY) {
        return QY_ERR_INVALID;
    }
    if (fault == QY_STREAM_FAULT_NONE || fault == QY_STREAM_FAULT_DELAY) {
        s->late = fault == QY_STREAM_FAULT_DELAY ? after | 1 : 0;
        fault = QY_STREAM_FAULT_NONE;
    }
    s->fault = fault;
    s->fault_after = after;
    return QY_OK;
}
