/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The residency cache: which rows have a copy on the device, and where. Bookkeeping only: it moves
 * nothing, and touches no row.
 *
 * Slots are dealt out in *sets*, one per (sequence, layer): the KV heads of a layer share its slots,
 * because heads differ in how much they need. Slot numbers are those of the device's row store:
 * set s has slots first + s * slots_per_set and following.
 *
 *   map  [set][kv_head][max_tokens]  token -> slot in the set + 1; 0: not resident
 *   slot -> (token, head, last use, score, pinned until a step)
 *
 * In one step a set is asked for each of its heads: find, then take for what was not found. Slots of
 * rows that were asked for in the running step are pinned: they are not given away until the next
 * step of the set begins (qyi_residency_begin). Sinks are kept by the same rule as all others: they
 * are asked for in every step.
 *
 * Sets are independent: threads may work on different sets at the same time.
 */
#ifndef QYI_OFFLOAD_RESIDENCY_H
#define QYI_OFFLOAD_RESIDENCY_H

#include "offload/offload.h"

#define QYI_NO_SLOT UINT32_MAX

struct qyi_residency;

struct qyi_residency_params {
    uint32_t n_sets, n_heads; /* KV heads of a layer             */
    uint32_t max_tokens;      /* ids are below                   */
    uint32_t slots_per_set;   /* at least 1                      */
    uint32_t first_slot;
    enum qy_eviction eviction; /* see residency.c */
};

/* Bytes that open will take of mem. Pure. */
uint64_t qyi_residency_bytes(const struct qyi_residency_params *params);
/* [setup] [alloc] */
QY_MUST enum qy_status qyi_residency_open(const struct qy_allocator *mem,
                                          const struct qyi_residency_params *params,
                                          struct qyi_residency **residency, struct qy_error *err);
void qyi_residency_close(struct qyi_residency *residency);

/* A new step of the set: nothing is pinned any more. [noalloc] */
void qyi_residency_begin(struct qyi_residency *residency, uint32_t set);
/* The same for a step whose lists are only guessed so far: what is found and taken now is pinned like
 * any other, and the begin that follows takes just these pins away. [noalloc] */
void qyi_residency_begin_ahead(struct qyi_residency *residency, uint32_t set);
/* slots[i] = the slot of row ids[i] of a head, or QYI_NO_SLOT. What is found is pinned and counts as
 * used. misses [n] receives the places i that were not found, in order; their number is returned.
 * [noalloc] */
uint32_t qyi_residency_find(struct qyi_residency *residency, uint32_t set, uint32_t head,
                            const uint32_t *ids, uint32_t n, uint32_t *slots, uint32_t *misses);
/* Slots for rows ids[misses[j]], j < n_misses, none of them resident: slots[misses[j]] is written,
 * and pinned. Neighbours in the list get neighbouring slots where that costs nothing. QY_AGAIN: fewer
 * slots than n_misses are not pinned; nothing changed. [noalloc] */
QY_MUST enum qy_status qyi_residency_take(struct qyi_residency *residency, uint32_t set,
                                          uint32_t head, const uint32_t *ids,
                                          const uint32_t *misses, uint32_t n_misses,
                                          uint32_t *slots);
/* What take gave, and what never arrived, is given back: those rows are not resident. [noalloc] */
void qyi_residency_drop(struct qyi_residency *residency, uint32_t set, uint32_t head,
                        const uint32_t *ids, uint32_t n);
/* All rows of tokens from n_tokens on, of all heads, are forgotten (a sequence was cut; 0: closed).
 * [noalloc] */
void qyi_residency_forget(struct qyi_residency *residency, uint32_t set, uint32_t n_tokens);

/* Slots in use, and not pinned (free ones among them), of a set. [noalloc] */
uint32_t qyi_residency_used(const struct qyi_residency *residency, uint32_t set);
uint32_t qyi_residency_takeable(const struct qyi_residency *residency, uint32_t set);

/* Is everything consistent? For tests: map and slots name each other, counts add up. */
int qyi_residency_sound(const struct qyi_residency *residency);

#endif
