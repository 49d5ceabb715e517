/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream of the host device: the ring between its owner and its engine. Private to gpu/host/.
 *
 *   owner                                  engine (a thread)
 *   fills ring[n], tail = n, rings bell -> waits for bell, runs ring[n], done = n, rings progress
 *   control = GIVE_UP                   -> stops between or inside the waits of commands, parked = 1
 *   sets everything back, control = RUN -> goes on
 *
 * Commands are numbered from 1; number n lies at ring[n & mask]. The ring has more places than
 * commands may be queued, so that ring[done] stays as the engine left it.
 */
#ifndef QY_GPU_HOST_COPY_ENGINE_H
#define QY_GPU_HOST_COPY_ENGINE_H

#include <pthread.h>

#include "gpu/host/host.h"
#include "gpu/host/wake.h"

/* What the engine is to do: the low bits of the control word, whose rest counts its changes, so
 * that one order is never taken for the one before it. */
enum qyi_control {
    QYI_RUN = 0,
    QYI_DRAIN,   /* end when all is done                  */
    QYI_GIVE_UP, /* stop as soon as may be, and park      */
    QYI_ABANDON, /* stop as soon as may be, and end       */
    QYI_CONTROL_MASK = 3
};

struct qyi_command {
    const struct qy_gather_item *gather; /* one of the two */
    const struct qy_copy_item *copy;
    uint32_t n_items;
    enum qy_stream_fault fault;
    void *base;
    struct qy_link link;           /* as it was when the command was queued                      */
    uint64_t queued_ns;            /* when that was, if the link is slowed down                  */
    uint32_t late_ns;              /* waited for before it begins: a fault                       */
    struct qy_stream_stats totals; /* all commands up to this one; written by the engine         */
};

struct qy_stream {
    struct qy_device *dev;
    char name[16];
    enum qy_direction direction;
    uint32_t capacity, mask;
    struct qyi_command *ring;
    pthread_t thread;

    struct qyi_wake bell;     /* owner to engine: look at tail or control              */
    struct qyi_wake control;  /* owner to engine: order and count of changes           */
    struct qyi_wake progress; /* engine to owner: look at done, failed or parked       */
    _Alignas(64) _Atomic uint64_t tail;
    _Atomic uint64_t wanted; /* the owner wants to be told when done gets here        */
    _Alignas(64) _Atomic uint64_t done;
    _Atomic uint64_t failed; /* number of the command that failed; 0: none            */
    _Atomic uint32_t parked;

    /* the owner's own */
    _Alignas(64) uint64_t queued;   /* tail, without the atomic                              */
    uint64_t lost_after, lost_last; /* the last reset gave up what lies between              */
    int resetting;                  /* a reset began and is not through                      */
    enum qy_stream_fault fault;     /* for the command after the next fault_after            */
    uint32_t fault_after;
    uint32_t late;               /* state of the random delays; 0: none                           */
    struct qy_stream_stats base; /* totals at the last qy_stream_stats_reset                 */

    /* written by the engine; NULL: no trace, or a link that is not slowed down */
    struct qy_trace_lane *lane, *link_lane;
};

/* The thread; arg is the stream. */
void *qyi_engine_main(void *arg);
/* Does the bytes of a command, and counts them. */
void qyi_gather_rows(const struct qy_device *dev, const struct qy_gather_item *item, uint8_t *base);
void qyi_copy_bytes(const struct qy_stream *stream, const struct qy_copy_item *item);
uint64_t qyi_command_bytes(const struct qyi_command *command, uint64_t *rows);

#endif
