/* SPDX-License-Identifier: Apache-2.0 */
/* Runs, shares and barriers, with spinning and with sleeping threads. Plain (not atomic) data is
 * passed between threads on purpose: ThreadSanitizer then proves the ordering. */
#include "runtime/runtime.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/test.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

enum { MAX_N = 256, N_PHASES = 20 };

struct work {
    struct qy_team *team;
    uint32_t calls[MAX_N]; /* by thread */
    uint32_t n_seen[MAX_N];
    uint32_t slots[MAX_N]; /* what a thread wrote in this phase */
    uint32_t wrong_of[MAX_N];
    int nap; /* thread 0 sleeps, so that the others reach their futex */
};

static struct qy_team *open_team(uint32_t n, uint32_t spin_us)
{
    struct qy_allocator mem = qy_allocator_system();
    struct qy_team_params params = {.n_threads = n, .spin_us = spin_us};
    struct qy_team *team = NULL;
    struct qy_error err;

    assert_int_equal(qy_team_open(&mem, &params, &team, &err), QY_OK);
    return team;
}

static void nap_us(long us)
{
    struct timespec pause = {.tv_sec = 0, .tv_nsec = us * 1000};

    nanosleep(&pause, NULL);
}

static void count_call(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct work *work = arg;

    work->calls[thread]++;
    work->n_seen[thread] = n_threads;
}

static void check_runs(uint32_t n, uint32_t spin_us, uint32_t n_runs, int nap)
{
    struct work work = {0};
    struct qy_team *team = open_team(n, spin_us);

    assert_int_equal(qy_team_size(team), n);
    for (uint32_t run = 0; run < n_runs; run++) {
        qy_team_run(team, count_call, &work);
        for (uint32_t t = 0; t < n; t++) { /* all are done when run returns */
            assert_int_equal(work.calls[t], run + 1);
            assert_int_equal(work.n_seen[t], n);
        }
        if (nap) {
            nap_us(200);
        }
    }
    qy_team_close(team);
}

static void team_runs_on_every_thread_each_time(void **state)
{
    (void)state;
    check_runs(2, 50, 3000, 0);
    check_runs(4, 20, 500, 0);
}

static void team_that_sleeps_at_once_loses_no_run(void **state)
{
    (void)state;
    check_runs(2, 0, 3000, 0);
    check_runs(3, 0, 500, 0);
    check_runs(3, 1, 100, 1);
}

static void team_of_one_runs_on_the_caller(void **state)
{
    (void)state;
    check_runs(1, 50, 5, 0);
}

static void team_null_is_the_caller_alone(void **state)
{
    struct work work = {0};

    (void)state;
    assert_int_equal(qy_team_size(NULL), 1);
    qy_team_run(NULL, count_call, &work);
    assert_int_equal(work.calls[0], 1);
    assert_int_equal(work.n_seen[0], 1);
    qy_team_barrier(NULL);
    qy_team_close(NULL);
}

static void phases(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct work *work = arg;

    for (uint32_t phase = 1; phase <= N_PHASES; phase++) {
        work->slots[thread] = phase * 1000 + thread;
        if (work->nap && thread == phase % n_threads) {
            nap_us(100);
        }
        qy_team_barrier(work->team);
        for (uint32_t t = 0; t < n_threads; t++) {
            work->wrong_of[thread] += work->slots[t] != phase * 1000 + t;
        }
        qy_team_barrier(work->team);
    }
}

static void check_barrier(uint32_t n, uint32_t spin_us, int nap)
{
    struct work work = {.team = open_team(n, spin_us), .nap = nap};

    for (int run = 0; run < 20; run++) {
        qy_team_run(work.team, phases, &work);
    }
    for (uint32_t t = 0; t < n; t++) {
        assert_int_equal(work.wrong_of[t], 0);
        assert_int_equal(work.slots[t], N_PHASES * 1000 + t);
    }
    qy_team_close(work.team);
}

static void team_barrier_shows_everybodys_writes(void **state)
{
    (void)state;
    check_barrier(1, 50, 0);
    check_barrier(2, 50, 0);
    check_barrier(4, 5, 0);
}

static void team_barrier_works_asleep(void **state)
{
    (void)state;
    check_barrier(2, 0, 0);
    check_barrier(3, 0, 1);
}

static void team_of_many_threads_opens_and_closes(void **state)
{
    (void)state;
    check_runs(MAX_N, 0, 3, 0);
}

static void team_closes_without_a_run(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        qy_team_close(open_team(3, i % 2 == 0 ? 0 : 50));
    }
}

static void team_size_out_of_range_is_refused(void **state)
{
    struct qy_allocator mem = qy_allocator_system();
    struct qy_place place = {.pu = -1, .node = -1};
    struct qy_team_params params = {.n_threads = 0};
    struct qy_team *team = NULL;
    struct qy_error err;

    (void)state;
    assert_int_equal(qy_team_open(&mem, &params, &team, &err), QY_ERR_INVALID);
    params.n_threads = MAX_N + 1;
    assert_int_equal(qy_team_open(&mem, &params, &team, &err), QY_ERR_INVALID);
    params.n_threads = 1;
    params.places = &place; /* places without a topology */
    assert_int_equal(qy_team_open(&mem, &params, &team, &err), QY_ERR_INVALID);
    assert_null(team);
}

static void note_cpu(void *arg, uint32_t thread, uint32_t n_threads)
{
    cpu_set_t set;

    (void)n_threads;
    ((int *)arg)[thread] =
        sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) == 1 ? sched_getcpu() : -1;
}

/* In a thread of its own: places[0] binds whoever opens the team. */
static void *run_bound(void *arg)
{
    struct qy_allocator mem = qy_allocator_system();
    struct qy_place places[2];
    struct qy_team_params params = {.n_threads = 2, .places = places, .spin_us = 10};
    struct qy_topology *topology = NULL;
    struct qy_team *team = NULL;
    int cpus[2] = {-2, -2};
    int *result = arg;

    *result = 0;
    if (qy_topology_open(&mem, NULL, &topology, NULL) != QY_OK) {
        return NULL;
    }
    qy_topology_place(topology, 2, QY_BIND_CORE, places);
    params.topology = topology;
    if (qy_topology_bind_thread(topology, &places[0]) != QY_OK) {
        *result = -1; /* this machine refuses to bind */
    } else if (qy_team_open(&mem, &params, &team, NULL) == QY_OK) {
        qy_team_run(team, note_cpu, cpus);
        *result = cpus[0] == places[0].pu && cpus[1] == places[1].pu;
    }
    qy_team_close(team);
    qy_topology_close(topology);
    return NULL;
}

static void team_threads_run_where_they_are_placed(void **state)
{
    pthread_t thread;
    int result = 0;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, run_bound, &result), 0);
    pthread_join(thread, NULL);
    if (result < 0) {
        skip();
    }
    assert_int_equal(result, 1);
}

static void team_range_covers_each_item_once(void **state)
{
    (void)state;
    for (uint32_t n_threads = 1; n_threads < 9; n_threads++) {
        for (size_t n = 0; n < 40; n++) {
            size_t next = 0;

            for (uint32_t t = 0; t < n_threads; t++) {
                size_t begin, end;

                qy_team_range(n, t, n_threads, &begin, &end);
                assert_int_equal(begin, next);
                assert_true(end - begin <= n / n_threads + 1);
                next = end;
            }
            assert_int_equal(next, n);
        }
    }
}

static void team_open_survives_each_failing_allocation(void **state)
{
    struct qy_team_params params = {.n_threads = 2};
    long n = 0;

    (void)state;
    for (;; n++) {
        struct fail_alloc f = {.fail_at = n};
        struct qy_allocator mem = fail_alloc_make(&f);
        struct qy_team *team = NULL;

        if (qy_team_open(&mem, &params, &team, NULL) == QY_OK) {
            qy_team_close(team);
            assert_int_equal(f.live, 0);
            break;
        }
        assert_null(team);
        assert_int_equal(f.live, 0);
    }
    assert_true(n > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(team_runs_on_every_thread_each_time),
        cmocka_unit_test(team_that_sleeps_at_once_loses_no_run),
        cmocka_unit_test(team_of_one_runs_on_the_caller),
        cmocka_unit_test(team_null_is_the_caller_alone),
        cmocka_unit_test(team_barrier_shows_everybodys_writes),
        cmocka_unit_test(team_barrier_works_asleep),
        cmocka_unit_test(team_of_many_threads_opens_and_closes),
        cmocka_unit_test(team_closes_without_a_run),
        cmocka_unit_test(team_size_out_of_range_is_refused),
        cmocka_unit_test(team_threads_run_where_they_are_placed),
        cmocka_unit_test(team_range_covers_each_item_once),
        cmocka_unit_test(team_open_survives_each_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
