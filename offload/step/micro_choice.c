/* SPDX-License-Identifier: Apache-2.0 */
/* See micro_choice.h. */
#include "offload/step/micro_choice.h"

enum {
    SETTLE = 4, /* first steps, in which the device holds little yet: not looked at */
    TRIES = 4,  /* of each number                                                  */
    KEEP = 512
};
static const double gain = 0.03;

static uint32_t most(const struct qyi_micro_choice *c)
{
    return c->n_slices < QY_MICRO_BATCHES ? c->n_slices : QY_MICRO_BATCHES;
}

uint32_t qyi_micro_choice_next(struct qyi_micro_choice *c, uint32_t n_slices)
{
    if (c->n_slices != n_slices || c->n_steps >= KEEP) {
        *c = (struct qyi_micro_choice){.n_slices = n_slices};
    }
    return c->chosen > 0 ? c->chosen : 1 + c->n_steps % most(c);
}

/* The fewest that no greater number beats by the gain. */
static uint32_t best(const struct qyi_micro_choice *c)
{
    uint32_t n = 1;

    for (uint32_t i = 2; i <= most(c); i++) {
        if ((double)c->least_ns[i - 1] < (1.0 - gain) * (double)c->least_ns[n - 1]) {
            n = i;
        }
    }
    return n;
}

void qyi_micro_choice_learn(struct qyi_micro_choice *c, uint64_t took_ns)
{
    const uint32_t i = c->n_steps % most(c);

    if (c->chosen == 0 && c->n_steps >= SETTLE &&
        (c->least_ns[i] == 0 || took_ns < c->least_ns[i])) {
        c->least_ns[i] = took_ns;
    }
    c->n_steps++;
    if (c->chosen == 0 && c->n_steps >= SETTLE + most(c) * TRIES) {
        c->chosen = best(c);
    }
}
