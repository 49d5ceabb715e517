/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulls ahead (step.prefetch): rows that a layer will probably choose come to the device while the
 * layer before it computes. The guess is what the last step chose there (previous), or what the policy
 * chooses for a guess of the queries (speculate: InfiniGen, arXiv:2406.19707, section 4).
 *
 *   start of layer l    select, fetch of l;  guess of l + 1: find, take, one command to the stream
 *   start of layer l+1  select, fetch of l + 1: what was pulled ahead is found
 *   finish of layer l+1 wait: for all that was queued before, so for the guess too
 *
 * A guess never changes an answer: the layer attends to what it chooses itself, and pulls what the
 * guess left out. Rows of a guess may be evicted again before they were used, even before they came:
 * the next tenant of the slot is written by a later command of the same stream, which is served in
 * order, so it lies on top.
 *
 * Guesses of layers l and l + 1 are under way at the same time, so there are two of everything, by
 * layer % 2. A guess is of one micro-batch.
 */
#ifndef QYI_OFFLOAD_AHEAD_H
#define QYI_OFFLOAD_AHEAD_H

#include "offload/offload.h"

enum { QYI_GUESSES = 2 };

/* Of one micro-batch. */
struct qyi_guess {
    int is_made; /* there is one of `layer`, which the layer has not looked at yet */
    int is_open; /* its pulls are under way, or were not waited for                */
    uint32_t layer;
    struct qy_event here;
};

/* Of one layer: by (slice, KV head), and lists as step.ids. */
struct qyi_guess_lists {
    uint32_t *ids;                   /* guessed; device memory, for the policy writes them */
    uint32_t *pull_ids, *pull_slots; /* of them, what was missing                          */
    uint32_t *n_ids, *n_taken;
    struct qy_gather_item *gathers;
};

struct qyi_ahead {
    enum qy_prefetch mode;
    uint32_t most_rows; /* pulled for one (sequence, KV head) */
    void *memory;       /* behind ids */
    struct qyi_guess_lists lists[QYI_GUESSES];
    struct qyi_guess guesses[QY_MICRO_BATCHES][QYI_GUESSES];
};

struct qy_cache;

/* Bytes of device and of host memory that open takes; 0 when nothing is pulled ahead. */
size_t qyi_ahead_device_bytes(const struct qy_cache *cache);
uint64_t qyi_ahead_host_bytes(const struct qy_cache *cache);
QY_MUST enum qy_status qyi_ahead_open(struct qy_cache *cache, struct qy_error *err);
void qyi_ahead_close(struct qy_cache *cache);

/* The running micro-batch's guess of `layer`, from the last step's lists; nothing unless that is the
 * setting. What fails fails the step, as a pull does. [noalloc] */
QY_MUST enum qy_status qyi_ahead_previous(struct qy_cache *cache, uint32_t layer);
/* The layer has looked up its lists: counts what the guess was good for. Returns 1 when rows pulled
 * ahead have to be waited for before the layer attends. [noalloc] */
int qyi_ahead_met(struct qy_cache *cache, uint32_t layer);
/* Those rows have come. [noalloc] */
void qyi_ahead_arrived(struct qy_cache *cache, uint32_t micro_batch, uint32_t layer);
/* The guess of one micro-batch for `layer` was not queued, or did not arrive: what its pulls took is
 * not resident. [noalloc] */
void qyi_ahead_drop(struct qy_cache *cache, uint32_t micro_batch, uint32_t layer);
/* All pulls of guesses that did not arrive are given up: those rows are not resident. [noalloc] */
void qyi_ahead_forget(struct qy_cache *cache);
/* Waits for all guesses, before a step is left that did not come to use them. */
QY_MUST enum qy_status qyi_ahead_settle(struct qy_cache *cache);

#endif
