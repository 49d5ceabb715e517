/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of a stream: a thread that takes commands from the ring, copies, and, where the
 * device models a link, lets the time pass that the link would take.
 *
 * The link of a device and direction is one, whatever the number of streams: link_free is the time
 * at which it is next free. A command takes it from max(when it was queued, link_free) for copy_ns
 * + bytes / gbps. chosen: from when it was queued and not from when the thread got to it, so that
 * the thread's own delays do not make the link slower than it is asked to be.
 */
#include "gpu/host/copy_engine.h"

#include <sched.h>
#include <sys/prctl.h>

/* How long the engine polls before it sleeps, and how short a rest of the link's time it does not
 * sleep for. Short: the processor that it polls on may be one of the team's. */
enum { SPIN_NS = 4000 };

/* What a command takes at most, so that no sum of times overflows: 11 days. */
#define LONGEST_NS 1e15

enum outcome { DONE, FAILED, STALLED, GIVEN_UP };

static enum qyi_control order_of(uint32_t control)
{
    return (enum qyi_control)(control & QYI_CONTROL_MASK);
}

/* 1 at end_ns; 0 when the owner gave the command up before. */
static int sleep_until(struct qy_stream *s, uint64_t end_ns)
{
    for (uint64_t now = qy_clock_ns(); now < end_ns; now = qy_clock_ns()) {
        const uint32_t control = qyi_wake_value(&s->control);
        if (order_of(control) == QYI_GIVE_UP || order_of(control) == QYI_ABANDON) {
            return 0;
        }
        if (end_ns - now < SPIN_NS) {
            qyi_relax();
        } else {
            qyi_wake_wait(&s->control, control, 0, end_ns);
        }
    }
    return 1;
}

/* Takes the link from *begin on, and returns when it is free again. */
static uint64_t reserve_link(struct qy_stream *s, const struct qyi_command *command, uint64_t bytes,
                             uint64_t *begin)
{
    const struct qy_link *link = &command->link;
    const double of_bytes = link->gbps > 0 ? (double)bytes / link->gbps : 0;
    const uint64_t takes =
        link->copy_ns + (uint64_t)(of_bytes < LONGEST_NS ? of_bytes : LONGEST_NS);
    _Atomic uint64_t *link_free = &s->dev->link_free[s->direction];
    /* relaxed, all of it: the time alone is shared between engines, no memory hangs on it */
    uint64_t before = atomic_load_explicit(link_free, memory_order_relaxed), end;
    do {
        *begin = before > command->queued_ns ? before : command->queued_ns;
        end = *begin + takes;
    } while (!atomic_compare_exchange_weak_explicit(link_free, &before, end, memory_order_relaxed,
                                                    memory_order_relaxed));
    return end;
}

/* Gives back what a command that was given up has left of the link, if nobody came behind it. */
static void return_link(struct qy_stream *s, uint64_t end)
{
    /* relaxed: as above */
    atomic_compare_exchange_strong_explicit(&s->dev->link_free[s->direction], &end, qy_clock_ns(),
                                            memory_order_relaxed, memory_order_relaxed);
}

/* What a command did, for the trace; the link's time ends with the command where it was given up. */
static void note(struct qy_stream *s, const char *name, uint64_t begin, uint64_t link_begin,
                 uint64_t link_end, uint64_t bytes, uint64_t rows)
{
    static const char *const keys[] = {"bytes", "rows", NULL};
    const double values[] = {(double)bytes, (double)rows};
    if (s->lane == NULL) {
        return;
    }
    const uint64_t now = qy_clock_ns();
    qy_trace_span(s->lane, name, begin, now, keys, values);
    if (link_end != 0) {
        qy_trace_span(s->link_lane, name, link_begin, link_end < now ? link_end : now, keys,
                      values);
    }
}

static enum outcome run_command(struct qy_stream *s, struct qyi_command *command,
                                const struct qy_stream_stats *before)
{
    const uint64_t begin = qy_clock_ns();
    if (command->fault != QY_STREAM_FAULT_NONE) {
        return command->fault == QY_STREAM_FAULT_ERROR ? FAILED : STALLED;
    }
    if (command->late_ns > 0 && !sleep_until(s, begin + command->late_ns)) {
        return GIVEN_UP;
    }
    uint64_t rows;
    const uint64_t bytes = qyi_command_bytes(command, &rows);
    uint64_t link_begin = 0;
    const uint64_t end = command->queued_ns != 0 ? reserve_link(s, command, bytes, &link_begin) : 0;
    for (uint32_t i = 0; i < command->n_items; i++) {
        if (command->gather != NULL) {
            qyi_gather_rows(s->dev, &command->gather[i], command->base);
        } else {
            qyi_copy_bytes(s, &command->copy[i]);
        }
    }
    if (end != 0 && !sleep_until(s, end)) {
        return_link(s, end);
        note(s, "given up", begin, link_begin, end, bytes, rows);
        return GIVEN_UP;
    }
    note(s, command->gather != NULL ? "gather" : "copy", begin, link_begin, end, bytes, rows);
    command->totals = (struct qy_stream_stats){.bytes = before->bytes + bytes,
                                               .rows = before->rows + rows,
                                               .copies = before->copies + 1,
                                               .busy_ns = before->busy_ns + qy_clock_ns() - begin};
    return DONE;
}

static void publish_done(struct qy_stream *s, uint64_t number)
{
    /* seq_cst: releases the copied bytes and totals, and orders us before the look at `wanted`; the
     * owner writes `wanted` and then looks at `done`, so that one of us sees the other */
    atomic_store_explicit(&s->done, number, memory_order_seq_cst);
    if (number >= atomic_load_explicit(&s->wanted, memory_order_seq_cst)) {
        qyi_wake_ring(&s->progress);
    }
}

/* After a failure or a stall: nothing until the owner decides. */
static enum qyi_control hold(struct qy_stream *s)
{
    uint32_t control;
    while (order_of(control = qyi_wake_value(&s->control)) == QYI_RUN) {
        qyi_wake_wait(&s->control, control, 0, QYI_NEVER);
    }
    return order_of(control);
}

/* Gives the stream to the owner until it says otherwise; control: the word that told us to. */
static void park(struct qy_stream *s, uint32_t control)
{
    /* release: what the last command wrote is the owner's; the bell behind it is for the futex */
    atomic_store_explicit(&s->parked, 1, memory_order_release);
    qyi_wake_ring(&s->progress);
    while (qyi_wake_value(&s->control) == control) {
        qyi_wake_wait(&s->control, control, 0, QYI_NEVER);
    }
}

/* One look at the words. Returns 0 when the thread is to end. */
static int turn(struct qy_stream *s, uint64_t *done)
{
    /* The bell first: what is rung from here on ends the wait below at once. */
    const uint32_t bell = qyi_wake_value(&s->bell);
    const uint32_t control = qyi_wake_value(&s->control);
    if (order_of(control) == QYI_ABANDON) {
        return 0;
    }
    if (order_of(control) == QYI_GIVE_UP) {
        park(s, control);
        /* relaxed: the owner wrote it before control, which was acquired */
        *done = atomic_load_explicit(&s->done, memory_order_relaxed);
        return 1;
    }
    /* acquire: the command's fields */
    if (*done == atomic_load_explicit(&s->tail, memory_order_acquire)) {
        if (order_of(control) == QYI_DRAIN) {
            return 0; /* the owner queued nothing after it */
        }
        qyi_wake_wait(&s->bell, bell, SPIN_NS, QYI_NEVER);
        return 1;
    }
    const uint64_t number = *done + 1;
    const enum outcome outcome =
        run_command(s, &s->ring[number & s->mask], &s->ring[*done & s->mask].totals);
    if (outcome == DONE) {
        publish_done(s, number);
        *done = number;
        return 1;
    }
    if (outcome == FAILED) {
        /* release: `done` of all commands before it is visible to whoever sees it */
        atomic_store_explicit(&s->failed, number, memory_order_release);
        qyi_wake_ring(&s->progress);
    }
    return hold(s) != QYI_DRAIN;
}

void *qyi_engine_main(void *arg)
{
    struct qy_stream *s = arg;
    uint64_t done = 0;
    pthread_setname_np(pthread_self(), s->name);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* ns: sleeps end when they are to end, not 50 us later */
    cpu_set_t set;
    if (s->dev->rt->topology != NULL && sched_getaffinity(0, sizeof set, &set) == 0 &&
        CPU_COUNT(&set) == 1) {
        /* The owner was bound to one processor and we inherited it; the owner's node is for us. */
        struct qy_place place;
        qy_topology_place(s->dev->rt->topology, 1, QY_BIND_NUMA, &place);
        const enum qy_status refused = qy_topology_bind_thread(s->dev->rt->topology, &place);
        (void)refused; /* a container may; then all share one processor */
    }
    while (turn(s, &done)) {
    }
    return NULL;
}
