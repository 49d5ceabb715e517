/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One rank of the jobs that ranks.py starts. The first argument names the case; every other rank than the
 * one that misbehaves checks what it sees, says so on stdout, and ends with the code asked for.
 *
 * usage: ranks CASE [ARGUMENT...]
 */
#include "net/net.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MS = 1000000, LONG_MS = 30000 };

struct rank {
    struct qy_runtime rt;
    struct qy_ranks *ranks;
    int me, count;
};

static uint64_t ms(uint64_t n)
{
    return n * MS;
}

__attribute__((noreturn)) static void fail(const char *what, const char *why)
{
    fprintf(stderr, "ranks: %s: %s\n", what, why);
    exit(99);
}

static void expect_status(const char *what, enum qy_status have, enum qy_status want,
                          const struct qy_error *err)
{
    if (have != want) {
        fprintf(stderr, "ranks: %s: %s (%s), not %s\n", what, qy_status_name(have),
                have < 0 ? err->text : "", qy_status_name(want));
        exit(99);
    }
}

/* What has no end: the launcher ends it, or this alarm where the launcher does not. */
__attribute__((noreturn)) static void sleep_for_ever(void)
{
    for (;;) {
        pause();
    }
}

static void join(struct rank *r, uint64_t timeout_ms)
{
    struct qy_error err;

    expect_status("open", qy_ranks_open(&r->rt, ms(timeout_ms), &r->ranks, &err), QY_OK, &err);
    r->me = qy_ranks_rank(r->ranks);
    r->count = qy_ranks_count(r->ranks);
}

static void leave(struct rank *r)
{
    if (qy_ranks_close(r->ranks, ms(LONG_MS)) != 0) {
        fail("close", "the others did not come");
    }
}

static uint8_t byte_of(int rank, size_t i, int round)
{
    return (uint8_t)((size_t)rank * 31 + i * 7 + (size_t)round * 13 + (i >> 8));
}

static void exchange(struct rank *r, size_t bytes, int round)
{
    uint8_t *mine = malloc(bytes), *all = malloc(bytes * (size_t)r->count);
    struct qy_error err;

    if (mine == NULL || all == NULL) {
        fail("exchange", "no memory");
    }
    for (size_t i = 0; i < bytes; i++) {
        mine[i] = byte_of(r->me, i, round);
    }
    expect_status("exchange", qy_ranks_exchange(r->ranks, mine, bytes, all, ms(LONG_MS), &err),
                  QY_OK, &err);
    for (int rank = 0; rank < r->count; rank++) {
        for (size_t i = 0; i < bytes; i++) {
            if (all[(size_t)rank * bytes + i] != byte_of(rank, i, round)) {
                fail("exchange", "a byte is not its rank's");
            }
        }
    }
    free(mine);
    free(all);
}

static void sleep_ms(long n)
{
    const struct timespec pause = {.tv_nsec = n * MS};

    nanosleep(&pause, NULL);
}

/* A barrier: rank 0 waits in it, the others begin it and look for it. */
static void together(struct rank *r)
{
    struct qy_error err;
    enum qy_status st;

    if (r->me == 0) {
        expect_status("barrier", qy_ranks_barrier(r->ranks, ms(LONG_MS), &err), QY_OK, &err);
        return;
    }
    expect_status("barrier_begin", qy_ranks_barrier_begin(r->ranks, &err), QY_OK, &err);
    while ((st = qy_ranks_barrier_test(r->ranks, &err)) == QY_PENDING) {
        sleep_ms(1);
    }
    expect_status("barrier_test", st, QY_OK, &err);
    expect_status("barrier_test of none", qy_ranks_barrier_test(r->ranks, &err), QY_ERR_INVALID,
                  &err);
}

/* exchange ROUNDS BYTES...: everything goes well. */
static int case_exchange(struct rank *r, int argc, char **argv)
{
    struct qy_launch launch;

    qy_launch_read(&launch);
    join(r, LONG_MS);
    if (launch.rank != r->me || launch.n_ranks != r->count) {
        fail("launch", "the environment and MPI do not agree");
    }
    for (int round = 0; round < atoi(argv[0]); round++) {
        for (int i = 1; i < argc; i++) {
            exchange(r, (size_t)atol(argv[i]), round);
        }
    }
    together(r);
    printf("rank %d of %d: done\n", r->me, r->count);
    leave(r);
    return 0;
}

/* code RANK CODE: all leave in good order, then one returns a code of its own. */
static int case_code(struct rank *r, int argc, char **argv)
{
    const int me = (join(r, LONG_MS), r->me);

    (void)argc;
    leave(r);
    return me == atoi(argv[0]) ? atoi(argv[1]) : 0;
}

/* sizes: the last rank gives more bytes than the others. All are told, and can go on. */
static int case_sizes(struct rank *r, int argc, char **argv)
{
    uint8_t mine[64] = {0}, all[64 * 64];
    struct qy_error err;
    char want[64];

    (void)argc;
    (void)argv;
    join(r, LONG_MS);
    snprintf(want, sizeof(want), "rank %d gives 64 bytes", r->count - 1);
    expect_status(
        "exchange of different sizes",
        qy_ranks_exchange(r->ranks, mine, r->me == r->count - 1 ? 64 : 40, all, ms(LONG_MS), &err),
        QY_ERR_INVALID, &err);
    if (strstr(err.text, want) == NULL) {
        fail("exchange of different sizes", err.text);
    }
    exchange(r, 64, 0);
    printf("rank %d of %d: done\n", r->me, r->count);
    leave(r);
    return 0;
}

/* absent RANK MS CODE: that rank does not come to an exchange. The others time out at their deadline,
 * learn that nothing more can be exchanged, and the first of them aborts the job. */
static int case_absent(struct rank *r, int argc, char **argv)
{
    const int absent = atoi(argv[0]);
    const uint64_t timeout_ns = ms((uint64_t)atol(argv[1]));
    uint8_t mine[100] = {0}, all[100 * 64];
    struct qy_error err;
    uint64_t began;

    (void)argc;
    join(r, LONG_MS);
    if (r->me == absent) {
        sleep_for_ever();
    }
    began = qy_clock_ns();
    expect_status("exchange without a rank",
                  qy_ranks_exchange(r->ranks, mine, sizeof(mine), all, timeout_ns, &err),
                  QY_ERR_TIMEOUT, &err);
    if (qy_clock_ns() - began < timeout_ns) {
        fail("exchange without a rank", "it gave up before its deadline");
    }
    expect_status("exchange after a timeout",
                  qy_ranks_exchange(r->ranks, mine, sizeof(mine), all, timeout_ns, &err),
                  QY_ERR_INVALID, &err);
    expect_status("barrier after a timeout", qy_ranks_barrier(r->ranks, timeout_ns, &err),
                  QY_ERR_INVALID, &err);
    printf("rank %d: timed out\n", r->me);
    fflush(stdout);
    if (r->me != (absent == 0 ? 1 : 0)) {
        sleep_for_ever(); /* the abort ends it */
    }
    sleep(1); /* for the others to say that they timed out */
    qy_ranks_abort(r->ranks, atoi(argv[2]));
}

/* begun RANK MS CODE: that rank does not come to a barrier that the others have begun. It stays pending, nothing
 * else can be begun, and their close leaves without it. */
static int case_begun(struct rank *r, int argc, char **argv)
{
    const uint64_t until = qy_clock_ns() + ms((uint64_t)atol(argv[1]));
    uint8_t mine[8] = {0}, all[8 * 64];
    struct qy_error err;

    (void)argc;
    join(r, LONG_MS);
    if (r->me == atoi(argv[0])) {
        sleep_for_ever();
    }
    expect_status("barrier_begin", qy_ranks_barrier_begin(r->ranks, &err), QY_OK, &err);
    do {
        expect_status("barrier_test", qy_ranks_barrier_test(r->ranks, &err), QY_PENDING, &err);
        sleep_ms(1);
    } while (qy_clock_ns() < until);
    expect_status("exchange in a barrier",
                  qy_ranks_exchange(r->ranks, mine, sizeof(mine), all, ms(LONG_MS), &err),
                  QY_ERR_INVALID, &err);
    expect_status("second barrier", qy_ranks_barrier_begin(r->ranks, &err), QY_ERR_INVALID, &err);
    if (qy_ranks_close(r->ranks, ms(LONG_MS)) == 0) {
        fail("close", "it left in the middle of a barrier");
    }
    printf("rank %d: left alone\n", r->me);
    return atoi(argv[2]);
}

/* stuck RANK HOW MS CODE: that rank does not come to the close: it sleeps, or is stopped. The others wait
 * in vain and return a code. */
static int case_stuck(struct rank *r, int argc, char **argv)
{
    (void)argc;
    join(r, LONG_MS);
    exchange(r, 64, 0);
    if (r->me == atoi(argv[0])) {
        if (strcmp(argv[1], "stopped") == 0) {
            raise(SIGSTOP);
        }
        sleep_for_ever();
    }
    if (qy_ranks_close(r->ranks, ms((uint64_t)atol(argv[2]))) == 0) {
        fail("close", "a rank that hangs left");
    }
    printf("rank %d: left alone\n", r->me);
    return atoi(argv[3]);
}

/* late RANK HOW MS: that rank never opens: it sleeps, or returns 0. The guard of MPI_Init ends the others. */
static int case_late(struct rank *r, int argc, char **argv)
{
    struct qy_launch launch;

    (void)argc;
    qy_launch_read(&launch);
    if (launch.rank == atoi(argv[0])) {
        if (strcmp(argv[1], "leaves") == 0) {
            return 0;
        }
        sleep_for_ever();
    }
    join(r, (uint64_t)atol(argv[2]));
    fail("open", "it returned without all ranks");
}

/* The linker puts this in the place of MPI_Finalize (--wrap). */
int __wrap_MPI_Finalize(void);
int __real_MPI_Finalize(void);
static int never_finalizes;

int __wrap_MPI_Finalize(void)
{
    if (never_finalizes) {
        sleep_for_ever();
    }
    return __real_MPI_Finalize();
}

/* finalize RANK MS: that rank comes to the close, and hangs on its way out. The guard of MPI_Finalize ends the
 * others. */
static int case_finalize(struct rank *r, int argc, char **argv)
{
    (void)argc;
    join(r, LONG_MS);
    never_finalizes = r->me == atoi(argv[0]);
    (void)qy_ranks_close(r->ranks, ms((uint64_t)atol(argv[1])));
    fail("close", "it returned though a rank hangs in MPI_Finalize");
}

/* dies RANK SIGNAL: that rank is killed while the others wait for it. */
static int case_dies(struct rank *r, int argc, char **argv)
{
    struct qy_error err;

    (void)argc;
    join(r, LONG_MS);
    if (r->me == atoi(argv[0])) {
        raise(atoi(argv[1]));
    }
    (void)!qy_ranks_barrier(r->ranks, ms(LONG_MS), &err);
    fail("barrier", "it returned though a rank is dead");
}

/* twice: a second open in one process is refused, before and after the close of the first. */
static int case_twice(struct rank *r, int argc, char **argv)
{
    struct qy_ranks *second = NULL;
    struct qy_error err;

    (void)argc;
    (void)argv;
    join(r, LONG_MS);
    expect_status("second open", qy_ranks_open(&r->rt, ms(LONG_MS), &second, &err), QY_ERR_INVALID,
                  &err);
    leave(r);
    expect_status("open after close", qy_ranks_open(&r->rt, ms(LONG_MS), &second, &err),
                  QY_ERR_INVALID, &err);
    printf("rank %d of %d: done\n", r->me, r->count);
    return 0;
}

static const struct {
    const char *name;
    int n_args; /* at least */
    int (*run)(struct rank *r, int argc, char **argv);
} cases[] = {
    {"exchange", 2, case_exchange}, {"code", 2, case_code},   {"sizes", 0, case_sizes},
    {"absent", 3, case_absent},     {"stuck", 4, case_stuck}, {"late", 3, case_late},
    {"finalize", 2, case_finalize}, {"dies", 2, case_dies},   {"twice", 0, case_twice},
    {"begun", 3, case_begun},
};

int main(int argc, char **argv)
{
    struct rank r = {
        .rt = {.mem = qy_allocator_system(), .log = qy_log_stderr(QY_LOG_WARN)},
    };

    alarm(120);
    for (size_t i = 0; argc > 1 && i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (strcmp(argv[1], cases[i].name) == 0 && argc - 2 >= cases[i].n_args) {
            return cases[i].run(&r, argc - 2, argv + 2);
        }
    }
    fprintf(stderr, "usage: ranks CASE [ARGUMENT...]: see the comments in tests/dist/ranks.c\n");
    return 2;
}
