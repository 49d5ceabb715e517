/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Part of gpu.h, not to be included alone: streams of copies between home memory (the host's) and
 * device memory, beside the kernels.
 *
 * A stream is a queue served in order by an engine of its own (on the host device a thread, on a
 * GPU a stream of the driver). What is queued is done when an event recorded behind it is. Kernels
 * do not wait for streams: whoever queues a copy waits for its event before a kernel reads the
 * rows, or before memory that is read or written by the copy is used for something else.
 *
 * The host device opened as discrete ("host-discrete:<bytes>") has device memory in name only: it
 * lies in host memory, but every row that a kernel reads was copied there, and the copies can be
 * slowed down to those of a link (struct qy_link), which all streams of one direction share. On a
 * unified device copies work too, so that the same code may be measured there.
 */
#ifndef QY_GPU_COPIES_H
#define QY_GPU_COPIES_H

#ifndef QY_GPU_H
#error "include gpu/gpu.h"
#endif

enum qy_direction { QY_TO_DEVICE = 0, QY_TO_HOST = 1 };

struct qy_stream;

/* A place in a stream's queue. A plain value; the zero value is done. */
struct qy_event {
    uint64_t at;
};

/* dev is kept; name is a string literal (kept). capacity: commands that may be queued at once
 * (1 .. 65536). [setup] [alloc] */
QY_MUST enum qy_status qy_stream_open(struct qy_device *dev, const char *name,
                                      enum qy_direction direction, uint32_t capacity,
                                      struct qy_stream **stream, struct qy_error *err);
/* Waits for what is queued (a stalled command is given up). NULL is accepted. */
void qy_stream_close(struct qy_stream *stream);

/* Rows of home memory into device slots: row ids[i] of `rows` to base + slots[i] * row bytes. Coded
 * rows are decoded on the way; it is their coded bytes that cross the link. */
struct qy_gather_item {
    struct qy_rows rows; /* where they are; rows.blocks and what it names are borrowed          */
    const uint32_t *ids, *slots; /* [n] borrowed until the event is done                        */
    uint32_t n;
    uint64_t stamp;   /* stamps[slots[i]] = qy_row_stamp(stamp, ids[i]), written after the row:  */
    uint64_t *stamps; /* which row lies in which slot, for checks; NULL: none                    */
};
static inline uint64_t qy_row_stamp(uint64_t stamp, uint32_t id)
{
    return stamp ^ ((uint64_t)id + 1) * 0x9e3779b97f4a7c15u;
}
/* The same by a kernel, for rows that are in device memory already: done when it returns. Places do
 * not overlap. [owner] [noalloc] */
QY_MUST enum qy_status qy_device_gather(struct qy_device *dev, const struct qy_gather_item *items,
                                        uint32_t n_items, void *base);
/* Bytes from one place to another. With a codec: rows, coded in home memory and f16 on the device;
 * a stream to the host encodes, one to the device decodes. bytes are then those of the coded rows,
 * which is what crosses the link. */
struct qy_copy_item {
    const void *from;
    void *to;
    size_t bytes;
    const struct qy_row_codec *codec; /* borrowed; NULL: bytes as they are */
};

/* Queues all items as one command. Items are borrowed until the event is done. QY_AGAIN: capacity
 * commands are queued. QY_ERR_DEVICE: the stream has failed before; nothing was queued.
 * [owner] [noalloc] */
QY_MUST enum qy_status qy_stream_gather(struct qy_stream *stream,
                                        const struct qy_gather_item *items, uint32_t n_items,
                                        void *base);
QY_MUST enum qy_status qy_stream_copy(struct qy_stream *stream, const struct qy_copy_item *items,
                                      uint32_t n_items);
/* The end of what was queued so far. [owner] [noalloc] */
struct qy_event qy_stream_record(const struct qy_stream *stream);
/* QY_OK, QY_PENDING, or QY_ERR_DEVICE: the stream failed at or before it. [owner] [noalloc] */
QY_MUST enum qy_status qy_stream_query(const struct qy_stream *stream, struct qy_event event);
/* Waits: QY_OK, QY_ERR_DEVICE, or QY_ERR_TIMEOUT when it is not done after timeout_ns. What a failed
 * or stalled stream did not copy holds what it held before. [owner] [noalloc] */
QY_MUST enum qy_status qy_stream_wait(struct qy_stream *stream, struct qy_event event,
                                      uint64_t timeout_ns);
/* After a failure or a timeout: what is queued is given up (until the next reset its events answer
 * QY_ERR_DEVICE), and the stream works again.
 * QY_ERR_TIMEOUT: the engine is inside a copy and does not come back; until a reset that returns
 * QY_OK, the stream answers QY_ERR_DEVICE. [owner] */
QY_MUST enum qy_status qy_stream_reset(struct qy_stream *stream, uint64_t timeout_ns);

struct qy_stream_stats {
    uint64_t bytes, rows; /* copied; rows: by gathers                                   */
    uint64_t copies;      /* commands                                                   */
    uint64_t busy_ns;     /* time in which the engine had work, that of slowing down too */
};
/* Counts of finished commands. [owner] */
void qy_stream_stats(const struct qy_stream *stream, struct qy_stream_stats *stats);
void qy_stream_stats_reset(struct qy_stream *stream);

/* Faults, for tests: the command after the next `after` ones fails, or is never finished; or, with
 * DELAY, every command from now on (until NONE) is late by a random time below 0.2 ms, of seed
 * `after`. Host backend only; QY_ERR_UNSUPPORTED elsewhere. [owner] */
enum qy_stream_fault {
    QY_STREAM_FAULT_NONE = 0,
    QY_STREAM_FAULT_ERROR,
    QY_STREAM_FAULT_STALL,
    QY_STREAM_FAULT_DELAY
};
QY_MUST enum qy_status qy_stream_inject(struct qy_stream *stream, enum qy_stream_fault fault,
                                        uint32_t after);

/* Memory taken by qy_device_alloc. */
struct qy_device_memory {
    uint64_t used, peak; /* bytes                         */
    uint64_t limit;      /* of a spec that has one; 0: none, who uses it finds one */
};
void qy_device_memory(const struct qy_device *dev, struct qy_device_memory *memory);

#endif
