/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of a step use no heap: linked with the allocating functions wrapped and counted. */
#include "tests/unit/offload/probe.h"
#include "tests/unit/offload/tier_rig.h"

#include <stdlib.h>

static long n_calls;

/* NOLINTBEGIN(bugprone-reserved-identifier): the names that the linker's --wrap asks for */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *ptr, size_t bytes);
void *__real_aligned_alloc(size_t align, size_t bytes);
int __real_posix_memalign(void **ptr, size_t align, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *ptr, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes);
int __wrap_posix_memalign(void **ptr, size_t align, size_t bytes);
/* NOLINTEND(bugprone-reserved-identifier) */

static void count(void)
{
    __atomic_fetch_add(&n_calls, 1, __ATOMIC_RELAXED); /* threads of the team may call */
}

void *__wrap_malloc(size_t bytes)
{
    count();
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    count();
    return __real_calloc(n, bytes);
}

void *__wrap_realloc(void *ptr, size_t bytes)
{
    count();
    return __real_realloc(ptr, bytes);
}

void *__wrap_aligned_alloc(size_t align, size_t bytes)
{
    count();
    return __real_aligned_alloc(align, bytes);
}

int __wrap_posix_memalign(void **ptr, size_t align, size_t bytes)
{
    count();
    return __real_posix_memalign(ptr, align, bytes);
}

enum { CHUNK = 5, ROWS = 2 + CHUNK };

/* A step of three sequences: a policy's token, a dense one, and a chunk. Heap calls it made. */
static long calls_of_step(struct rig *rig, struct qy_sequence *const seq[3], float *qkv, float *out)
{
    static const int32_t ids[CHUNK] = {1, 2, 3, 4, 5};
    const struct qy_step_slice slices[3] = {
        {.seq = seq[0], .n_tokens = 1, .ids = ids, .mode = QY_ATTEND_POLICY},
        {.seq = seq[1], .n_tokens = 1, .ids = ids, .mode = QY_ATTEND_DENSE},
        {.seq = seq[2], .n_tokens = CHUNK, .ids = ids, .mode = QY_ATTEND_DENSE},
    };
    const struct qy_qkv args = {
        .q = qkv, .k = qkv + RIG_K_AT, .v = qkv + RIG_V_AT, .stride = RIG_STRIDE, .out = out};

    for (uint32_t t = 0; t < ROWS; t++) {
        rig_qkv(9, 0, t, qkv + (size_t)t * RIG_STRIDE);
    }
    const long before = n_calls;
    enum qy_status st = qy_step_begin(rig->cache, slices, 3, NULL);
    for (uint32_t layer = 0; st == QY_OK && layer < RIG_LAYERS; layer++) {
        st = qy_step_attend(rig->cache, layer, &args);
    }
    if (st == QY_OK) {
        st = qy_step_end(rig->cache);
    }
    const long calls = n_calls - before;

    assert_int_equal(st, QY_OK);
    return calls;
}

/* An estimate of nothing in particular, to be merged. */
static void estimate_something(const struct qy_select_item *item)
{
    item->ids[0] = item->lo;
    *item->n_ids = 1;
    for (uint32_t i = 0; i < item->group * RIG_D; i++) {
        item->part_out[i] = 1.0F;
    }
    item->part_lse[0] = 0.5F;
}

static void count_of_steps(const struct rig_options *given)
{
    float *qkv = malloc(sizeof(float) * ROWS * RIG_STRIDE);
    float *out = malloc(sizeof(float) * ROWS * RIG_OUT);
    struct rig_options o = *given;
    struct qy_sequence *seq[3];
    struct rig rig;
    const long before = n_calls;

    assert_true(qkv && out);
    o.max_tokens = 700;
    o.max_step_tokens = 64;
    rig_open(&rig, &o);
    assert_true(n_calls > before); /* the count sees what the library takes */
    if (o.ops && o.ops->caps.partial) {
        probe_of(&rig)->on_select = estimate_something;
    }
    for (int s = 0; s < 3; s++) {
        seq[s] = rig_sequence(&rig);
        assert_int_equal(qy_sequence_fill_random(seq[s], 90, 1), QY_OK);
    }
    for (int step = 0; step < 100; step++) { /* blocks are taken and sealed on the way */
        assert_int_equal(calls_of_step(&rig, seq, qkv, out), 0);
    }
    rig_close(&rig);
    free(out);
    free(qkv);
}

static void steps_use_no_heap(void **state)
{
    static const struct {
        const char *policy, *budget;
    } cases[] = {{"dense", "1.0"},
                 {"window", "1.0"},
                 {"quest", "0.1"},
                 {"exact", "0.1"},
                 {"exact", "p0.9:0.5"}};
    struct qy_retrieval_settings settings = probe_settings();
    struct qy_policy_ops ops = probe_ops();
    (void)state;

    settings.audit_rate = 1.0;
    ops.caps.partial = 1;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        count_of_steps(&(struct rig_options){
            .policy = cases[i].policy, .budget = cases[i].budget, .threads = 2});
        count_of_steps(&(struct rig_options){.policy = cases[i].policy,
                                             .budget = cases[i].budget,
                                             .threads = 2,
                                             .retrieval = &settings});
    }
    count_of_steps(
        &(struct rig_options){.ops = &ops, .budget = "0.1", .threads = 2, .retrieval = &settings});
}

/* Pulls, pushes, two micro-batches, blocks that go home, and what passes through the stages. */
static void steps_on_a_discrete_device_use_no_heap(void **state)
{
    static const char *const policies[] = {"dense", "window", "quest", "exact"};
    static const enum qy_plan_mode plans[] = {QY_PLAN_PULL, QY_PLAN_PUSH, QY_PLAN_AUTO};
    (void)state;

    for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]) * 3; i++) {
        struct rig_options o = {.policy = policies[i / 3],
                                .budget = "0.1",
                                .f16 = 1,
                                .threads = 2,
                                .max_tokens = 700,
                                .max_step_tokens = 64,
                                .device = "host-discrete:64M",
                                .plan = QY_PLAN_PUSH, /* of which auto needs as much */
                                .micro_batches = 2};

        o.device_bytes = tier_least_bytes(&o);
        o.device_bytes += o.device_bytes / 4;
        o.plan = plans[i % 3];
        count_of_steps(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_use_no_heap),
        cmocka_unit_test(steps_on_a_discrete_device_use_no_heap),
    };
    return cmocka_run_group_tests_name("fault.offload.heap", tests, NULL, NULL);
}
