/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fixed set of threads that run one function together. No queue, no work stealing, no nesting.
 *
 *   run:     caller writes fn and arg -> epoch + 1 -> wakes who sleeps -> works as thread 0
 *            -> waits until pending is 0
 *   worker:  waits until epoch differs from the one it has run -> fn -> pending - 1
 *
 * Every wait spins for spin_ns and then sleeps on a futex. No wake-up is lost, because each side
 * first writes its own word and then reads the other's, all four sequentially consistent: a sleeper
 * raises `sleepers` and then looks at the word (the kernel looks once more), a waker changes the
 * word and then looks at `sleepers`. At least one of them sees the other.
 */
#include "runtime/runtime.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_THREADS = 256, LINE_BYTES = 64, POLLS_PER_CLOCK = 64 };

/* A word that changes and the number of threads that sleep until it does, on its own line so that
 * spinning on one does not disturb another. */
struct wait_word {
    _Alignas(LINE_BYTES) _Atomic uint32_t value;
    _Atomic uint32_t sleepers;
};

struct worker {
    struct qy_team *team;
    pthread_t thread;
    struct qy_place place;
    uint32_t index;
};

struct qy_team {
    struct wait_word epoch;   /* number of runs started                                  */
    struct wait_word pending; /* workers that have not finished this run                 */
    struct wait_word passed;  /* number of barriers passed                               */
    _Alignas(LINE_BYTES) _Atomic uint32_t arrived; /* threads that wait at this barrier  */
    /* Written by the caller before epoch changes, read by workers after: no lock needed. */
    _Alignas(LINE_BYTES) qy_team_fn fn;
    void *arg;
    int stop;
    uint32_t n_threads, n_started;
    uint64_t spin_ns;
    struct qy_topology *topology;
    struct qy_allocator mem;
    struct worker workers[]; /* [n_threads]; 0 is the caller and unused                  */
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Returns the value once it differs from old; what was written before the change is then visible.
 * A spurious return of the futex is harmless: the loop looks again. */
static uint32_t wait_change(struct wait_word *word, uint32_t old, uint64_t spin_ns)
{
    uint64_t start = 0;
    uint32_t now;

    for (unsigned poll = 0; spin_ns > 0; poll++) {
        /* acquire: pairs with the release half of the writer's change */
        now = atomic_load_explicit(&word->value, memory_order_acquire);
        if (now != old) {
            return now;
        }
        if (poll % POLLS_PER_CLOCK == 0) {
            uint64_t time = qy_clock_ns();

            start = poll == 0 ? time : start;
            if (time - start >= spin_ns) {
                break;
            }
        }
        if (poll % POLLS_PER_CLOCK == POLLS_PER_CLOCK - 1) {
            /* Whom we wait for may want this very processor: on a busy machine a run took 40 us
             * without this and 8 us with it. On an idle one it returns at once. */
            sched_yield();
        } else {
            relax();
        }
    }
    /* seq_cst: must be seen by a waker that does not see us look; see the top of the file */
    atomic_fetch_add_explicit(&word->sleepers, 1, memory_order_seq_cst);
    while ((now = atomic_load_explicit(&word->value, memory_order_seq_cst)) == old) {
        syscall(SYS_futex, &word->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    }
    /* relaxed: a waker that still counts us makes one needless wake-up, nothing else */
    atomic_fetch_sub_explicit(&word->sleepers, 1, memory_order_relaxed);
    return now;
}

/* To be called after a seq_cst change of the word. */
static void wake_all(struct wait_word *word)
{
    if (atomic_load_explicit(&word->sleepers, memory_order_seq_cst) > 0) {
        syscall(SYS_futex, &word->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    struct qy_team *team = worker->team;
    uint32_t seen = 0;
    char name[16];

    snprintf(name, sizeof(name), "qy-team-%u", worker->index);
    pthread_setname_np(pthread_self(), name);
    if (team->topology != NULL) {
        /* A container may refuse; the thread then runs where the kernel puts it. */
        enum qy_status refused = qy_topology_bind_thread(team->topology, &worker->place);
        (void)refused;
    }
    for (;;) {
        seen = wait_change(&team->epoch, seen, team->spin_ns);
        if (team->stop) {
            return NULL;
        }
        team->fn(team->arg, worker->index, team->n_threads);
        /* seq_cst: releases our results to the caller, and orders us before the look at sleepers */
        if (atomic_fetch_sub_explicit(&team->pending.value, 1, memory_order_seq_cst) == 1) {
            wake_all(&team->pending);
        }
    }
}

static void start_epoch(struct qy_team *team)
{
    /* seq_cst: releases fn, arg and stop to the workers, and orders us before the look at sleepers
     */
    atomic_fetch_add_explicit(&team->epoch.value, 1, memory_order_seq_cst);
    wake_all(&team->epoch);
}

static void stop_workers(struct qy_team *team)
{
    team->stop = 1;
    start_epoch(team);
    for (uint32_t i = 1; i <= team->n_started; i++) {
        pthread_join(team->workers[i].thread, NULL);
    }
}

/* Starts the workers with all signals blocked: Ctrl-C is for the program's own threads. */
static enum qy_status start_workers(struct qy_team *team, struct qy_error *err)
{
    sigset_t all, before;
    int rc = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (uint32_t i = 1; i < team->n_threads && rc == 0; i++) {
        rc = pthread_create(&team->workers[i].thread, NULL, worker_main, &team->workers[i]);
        team->n_started += rc == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "team of %u threads: the system started only %u (%s); lower "
                            "runtime.threads or raise the limit of processes",
                            team->n_threads, team->n_started + 1, strerror(rc));
    }
    return QY_OK;
}

enum qy_status qy_team_open(const struct qy_allocator *mem, const struct qy_team_params *params,
                            struct qy_team **out, struct qy_error *err)
{
    const struct qy_place nowhere = {.pu = -1, .node = -1};
    uint32_t n = params->n_threads;
    struct qy_team *team;
    enum qy_status st;

    if (n < 1 || n > MAX_THREADS) {
        return qy_error_set(err, QY_ERR_INVALID, "team of %u threads: 1 to %d are accepted", n,
                            MAX_THREADS);
    }
    if (params->places != NULL && params->topology == NULL) {
        return qy_error_set(err, QY_ERR_INVALID, "team: places without a topology");
    }
    team = qy_alloc_zero(mem, sizeof(*team) + n * sizeof(team->workers[0]));
    if (team == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "team of %u threads: no memory", n);
    }
    team->mem = *mem;
    team->n_threads = n;
    team->spin_ns = (uint64_t)params->spin_us * 1000;
    team->topology = params->places == NULL ? NULL : params->topology;
    for (uint32_t i = 0; i < n; i++) {
        team->workers[i].team = team;
        team->workers[i].index = i;
        team->workers[i].place = params->places == NULL ? nowhere : params->places[i];
    }
    st = start_workers(team, err);
    if (st != QY_OK) {
        stop_workers(team);
        qy_free(mem, team);
        return st;
    }
    if (team->topology != NULL) {
        /* last, so that a failed open leaves the caller where it was; a refusal is not fatal */
        enum qy_status refused = qy_topology_bind_thread(team->topology, &team->workers[0].place);
        (void)refused;
    }
    *out = team;
    return QY_OK;
}

void qy_team_close(struct qy_team *team)
{
    if (team != NULL) {
        struct qy_allocator mem = team->mem;

        stop_workers(team);
        qy_free(&mem, team);
    }
}

uint32_t qy_team_size(const struct qy_team *team)
{
    return team == NULL ? 1 : team->n_threads;
}

void qy_team_run(struct qy_team *team, qy_team_fn fn, void *arg)
{
    uint32_t left;

    if (team == NULL || team->n_threads == 1) {
        fn(arg, 0, 1);
        return;
    }
    team->fn = fn;
    team->arg = arg;
    /* relaxed: no worker looks at it before the epoch changes, which releases it */
    atomic_store_explicit(&team->pending.value, team->n_threads - 1, memory_order_relaxed);
    start_epoch(team);
    fn(arg, 0, team->n_threads);
    /* acquire: the workers' results are ours once it reads 0 */
    left = atomic_load_explicit(&team->pending.value, memory_order_acquire);
    while (left != 0) {
        left = wait_change(&team->pending, left, team->spin_ns);
    }
}

void qy_team_barrier(struct qy_team *team)
{
    uint32_t passed;

    if (team == NULL || team->n_threads == 1) {
        return;
    }
    /* relaxed: it cannot change before this thread arrives, and we saw its last change */
    passed = atomic_load_explicit(&team->passed.value, memory_order_relaxed);
    /* acq_rel: gives our writes to the last one to arrive, who gives everybody's on */
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 == team->n_threads) {
        /* relaxed: nobody arrives at the next barrier before `passed` changes, which releases it */
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        /* seq_cst: releases all writes before the barrier; then the look at sleepers */
        atomic_fetch_add_explicit(&team->passed.value, 1, memory_order_seq_cst);
        wake_all(&team->passed);
        return;
    }
    wait_change(&team->passed, passed, team->spin_ns);
}
