/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Into how many micro-batches steps are cut when step.micro_batches is auto. More of them hide more of
 * the rows' way behind compute, and read all weights once more each: which number is quickest depends
 * on model, batch and link. So all are tried in turn, SETTLE + n * TRIES steps; the quickest is kept
 * for KEEP steps, then all are tried again. Pure: times come in, numbers go out.
 *
 * chosen: a number is judged by its quickest step, since other work on the machine only adds time; and
 * more micro-batches must gain 3 % over fewer, or fewer stay.
 */
#ifndef QYI_OFFLOAD_MICRO_CHOICE_H
#define QYI_OFFLOAD_MICRO_CHOICE_H

#include "offload/offload.h"

/* The zero value begins a trial. */
struct qyi_micro_choice {
    uint32_t n_slices; /* of the steps that it is about           */
    uint32_t n_steps;  /* of the trial, then of all since it began */
    uint32_t chosen;   /* 0: trying                                */
    uint64_t least_ns[QY_MICRO_BATCHES];
};

/* The number for the next step, of n_slices (at least 1). Another n_slices than before begins a new
 * trial. [noalloc] */
uint32_t qyi_micro_choice_next(struct qyi_micro_choice *choice, uint32_t n_slices);
/* The step that was asked for took so long. [noalloc] */
void qyi_micro_choice_learn(struct qyi_micro_choice *choice, uint64_t took_ns);

#endif
