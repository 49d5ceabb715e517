/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ranks of a job over MPI; the only file that knows MPI. Its collectives are the nonblocking
 * ones, polled here under a deadline: MPI never reports a rank that stopped or a cable that was cut.
 *
 * How a job ends, with Open MPI 4.1 (tests/dist/ranks.py holds it to this):
 *   - MPI_Init and MPI_Finalize wait for all ranks and can be neither polled nor left. A guard stands
 *     beside each, and a barrier under our own deadline before MPI_Finalize.
 *   - A rank that ends without MPI_Finalize, whatever its exit code, makes mpirun end all others and
 *     return that code, or 1 where it was 0. chosen: a close that waited in vain leaves MPI as it is
 *     and has its process do just that: nothing hangs, and nothing looks like success. Options that
 *     keep a job going (--enable-recovery) must stay off.
 *   - The layer below should be ob1 (--mca pml ob1): it carries a few hundred bytes at the start, and
 *     others take hold of the hardware that net/ uses by itself.
 */
#include "net/guard.h"
#include "net/net.h"

#include <inttypes.h>
#include <limits.h>
#include <mpi.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    /* chosen: polls without a pause, for ranks that are there already; then pauses, for ranks share
     * cores with those that they wait for. */
    POLLS = 100,
    PAUSE_NS = 20000,
    LONGEST_PAUSE_NS = 1000000
};
static const uint64_t abort_ns = 5000000000u; /* chosen: for mpirun to end us */

struct qy_ranks {
    const struct qy_runtime *rt;
    int rank, count;
    int stuck; /* a collective was given up: no other may follow it */
    int begun; /* a barrier, that `barrier` is of */
    MPI_Request barrier;
};

static enum qy_status mpi_error(const char *what, int code, struct qy_error *err)
{
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int n = 0;

    MPI_Error_string(code, text, &n);
    return qy_error_set(err, QY_ERR_PEER, "%s: MPI failed: %s", what, text);
}

static uint64_t deadline_after(uint64_t timeout_ns)
{
    const uint64_t now = qy_clock_ns();

    return timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
}

/* ---- joining ------------------------------------------------------------------------------- */

static enum qy_status init_mpi(const struct qy_runtime *rt, uint64_t timeout_ns,
                               struct qy_error *err)
{
    struct qyi_guard guard = {.log = &rt->log,
                              .message = "MPI_Init: the other ranks of the job did not come",
                              .timeout_ns = timeout_ns,
                              .code = 1};
    int provided = MPI_THREAD_SINGLE;
    int code;
    enum qy_status st = qyi_guard_begin(&guard, err);

    if (st != QY_OK) {
        return st;
    }
    code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    qyi_guard_end(&guard);
    if (code != MPI_SUCCESS) {
        return mpi_error("MPI_Init", code, err);
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (provided < MPI_THREAD_FUNNELED) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "MPI_Init: this MPI does not bear threads beside the one that calls "
                            "it; install one that was built with threads");
    }
    return QY_OK;
}

static enum qy_status agree(struct qy_ranks *ranks, const struct qy_launch *launch,
                            struct qy_error *err)
{
    MPI_Comm_rank(MPI_COMM_WORLD, &ranks->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks->count);
    if (ranks->rank == launch->rank && (launch->n_ranks == 0 || launch->n_ranks == ranks->count)) {
        return QY_OK;
    }
    return qy_error_set(err, QY_ERR_CONFIG,
                        "job: %s says rank %d of %d, MPI says rank %d of %d; start the program "
                        "with the mpirun of the MPI that it was built with, or with srun "
                        "--mpi=pmix",
                        launch->by, launch->rank, launch->n_ranks, ranks->rank, ranks->count);
}

enum qy_status qy_ranks_open(const struct qy_runtime *rt, uint64_t timeout_ns,
                             struct qy_ranks **ranks, struct qy_error *err)
{
    struct qy_launch launch;
    struct qy_ranks *r;
    int before = 0;
    enum qy_status st;

    qy_launch_read(&launch);
    if (launch.rank < 0) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "job: no launcher started this process; start it with mpirun -n RANKS, "
                            "or with srun --mpi=pmix");
    }
    MPI_Initialized(&before);
    if (before) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "job: MPI was initialised in this process before; a process joins one "
                            "job, once");
    }
    r = qy_alloc_zero(&rt->mem, sizeof(*r));
    if (r == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "job: no memory for the ranks");
    }
    r->rt = rt;
    st = init_mpi(rt, timeout_ns, err);
    if (st == QY_OK) {
        st = agree(r, &launch, err);
    }
    if (st != QY_OK) {
        qy_free(&rt->mem, r);
        return st;
    }
    *ranks = r;
    return QY_OK;
}

int qy_ranks_rank(const struct qy_ranks *ranks)
{
    return ranks->rank;
}

int qy_ranks_count(const struct qy_ranks *ranks)
{
    return ranks->count;
}

/* ---- together ------------------------------------------------------------------------------ */

static enum qy_status usable(const struct qy_ranks *ranks, const char *what, struct qy_error *err)
{
    if (ranks->stuck) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "%s of the ranks: one before it failed, and MPI is still in the middle "
                            "of that; end the job",
                            what);
    }
    if (ranks->begun) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "%s of the ranks: a barrier was begun before it, and is not over",
                            what);
    }
    return QY_OK;
}

/* Polls a collective that was begun. What fails here stays begun, and its memory stays MPI's. */
static enum qy_status finish(struct qy_ranks *ranks, MPI_Request *request, const char *what,
                             uint64_t timeout_ns, uint64_t deadline_ns, struct qy_error *err)
{
    struct timespec pause = {.tv_sec = 0, .tv_nsec = PAUSE_NS};

    for (int polls = 0;; polls += polls < POLLS) {
        int done = 0;
        const int code = MPI_Test(request, &done, MPI_STATUS_IGNORE);

        if (code != MPI_SUCCESS) {
            ranks->stuck = 1;
            return mpi_error(what, code, err);
        }
        if (done) {
            return QY_OK;
        }
        if (qy_clock_ns() >= deadline_ns) {
            ranks->stuck = 1;
            return qy_error_set(err, QY_ERR_TIMEOUT,
                                "%s of %d ranks: not all came within %" PRIu64
                                " ms; see whether every rank still runs and every host is reached",
                                what, ranks->count, timeout_ns / 1000000u);
        }
        if (polls >= POLLS) {
            nanosleep(&pause, NULL);
            if (pause.tv_nsec < LONGEST_PAUSE_NS) {
                pause.tv_nsec *= 2;
            }
        }
    }
}

static enum qy_status gather(struct qy_ranks *ranks, const void *mine, size_t bytes, void *all,
                             uint64_t timeout_ns, uint64_t deadline_ns, struct qy_error *err)
{
    MPI_Request request = MPI_REQUEST_NULL;
    const int code = MPI_Iallgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE,
                                    MPI_COMM_WORLD, &request);

    if (code != MPI_SUCCESS) {
        ranks->stuck = 1;
        return mpi_error("exchange", code, err);
    }
    return finish(ranks, &request, "exchange", timeout_ns, deadline_ns, err);
}

/* sizes [count]. All ranks see the same list and come to the same end. */
static enum qy_status same_sizes(const struct qy_ranks *ranks, const uint64_t *sizes,
                                 struct qy_error *err)
{
    for (int i = 1; i < ranks->count; i++) {
        if (sizes[i] != sizes[0]) {
            return qy_error_set(err, QY_ERR_INVALID,
                                "exchange: rank %d gives %" PRIu64 " bytes, rank 0 gives %" PRIu64
                                "; all ranks must run the same program: compare their versions",
                                i, sizes[i], sizes[0]);
        }
    }
    return QY_OK;
}

/* The sizes first: MPI does not compare them, and truncates or waits where they differ. */
enum qy_status qy_ranks_exchange(struct qy_ranks *ranks, const void *mine, size_t bytes, void *all,
                                 uint64_t timeout_ns, struct qy_error *err)
{
    const uint64_t deadline_ns = deadline_after(timeout_ns);
    const size_t n = (size_t)ranks->count;
    const size_t each = bytes < sizeof(uint64_t) ? sizeof(uint64_t) : bytes;
    uint8_t *memory;
    enum qy_status st = usable(ranks, "exchange", err);

    if (st != QY_OK) {
        return st;
    }
    if (bytes == 0 || bytes > INT_MAX) {
        return qy_error_set(err, QY_ERR_INVALID, "exchange of %zu bytes; 1 to %d are accepted",
                            bytes, INT_MAX);
    }
    /* Not the caller's memory: after a timeout MPI goes on with what it was given. */
    memory = qy_alloc_zero(&ranks->rt->mem, each * (n + 1)); /* below 2^62 */
    if (memory == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "exchange of %zu bytes among %d ranks: no memory",
                            bytes, ranks->count);
    }
    memcpy(memory, &(uint64_t){bytes}, sizeof(uint64_t));
    st = gather(ranks, memory, sizeof(uint64_t), memory + sizeof(uint64_t), timeout_ns, deadline_ns,
                err);
    if (st == QY_OK) {
        st = same_sizes(ranks, (const uint64_t *)(const void *)memory + 1, err);
    }
    if (st == QY_OK) {
        memcpy(memory, mine, bytes);
        st = gather(ranks, memory, bytes, memory + bytes, timeout_ns, deadline_ns, err);
    }
    if (st == QY_OK) {
        memcpy(all, memory + bytes, bytes * n);
    }
    if (!ranks->stuck) {
        explicit_bzero(memory, each * (n + 1));
        qy_free(&ranks->rt->mem, memory);
    }
    return st;
}

static enum qy_status begin_barrier(struct qy_ranks *ranks, MPI_Request *request,
                                    struct qy_error *err)
{
    const enum qy_status st = usable(ranks, "barrier", err);
    int code;

    if (st != QY_OK) {
        return st;
    }
    code = MPI_Ibarrier(MPI_COMM_WORLD, request);
    if (code != MPI_SUCCESS) {
        ranks->stuck = 1;
        return mpi_error("barrier", code, err);
    }
    return QY_OK;
}

enum qy_status qy_ranks_barrier(struct qy_ranks *ranks, uint64_t timeout_ns, struct qy_error *err)
{
    const uint64_t deadline_ns = deadline_after(timeout_ns);
    MPI_Request request = MPI_REQUEST_NULL;
    const enum qy_status st = begin_barrier(ranks, &request, err);

    return st == QY_OK ? finish(ranks, &request, "barrier", timeout_ns, deadline_ns, err) : st;
}

enum qy_status qy_ranks_barrier_begin(struct qy_ranks *ranks, struct qy_error *err)
{
    const enum qy_status st = begin_barrier(ranks, &ranks->barrier, err);

    ranks->begun = ranks->begun || st == QY_OK;
    return st;
}

enum qy_status qy_ranks_barrier_test(struct qy_ranks *ranks, struct qy_error *err)
{
    int done = 0, code;

    if (!ranks->begun) {
        return qy_error_set(err, QY_ERR_INVALID, "barrier of the ranks: none was begun");
    }
    code = MPI_Test(&ranks->barrier, &done, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) {
        ranks->begun = 0;
        ranks->stuck = 1;
        return mpi_error("barrier", code, err);
    }
    ranks->begun = !done;
    return done ? QY_OK : QY_PENDING;
}

/* ---- leaving ------------------------------------------------------------------------------- */

static enum qy_status finalize(struct qy_ranks *ranks, uint64_t timeout_ns, struct qy_error *err)
{
    struct qyi_guard guard = {.log = &ranks->rt->log,
                              .message = "MPI_Finalize: the other ranks of the job did not leave",
                              .timeout_ns = timeout_ns,
                              .code = 1};
    enum qy_status st = qyi_guard_begin(&guard, err);
    int code;

    if (st != QY_OK) {
        return st;
    }
    code = MPI_Finalize();
    qyi_guard_end(&guard);
    return code == MPI_SUCCESS ? QY_OK : mpi_error("MPI_Finalize", code, err);
}

int qy_ranks_close(struct qy_ranks *ranks, uint64_t timeout_ns)
{
    struct qy_error err;
    enum qy_status st;

    if (ranks == NULL) {
        return 0;
    }
    st = qy_ranks_barrier(ranks, timeout_ns, &err);
    if (st == QY_OK) {
        st = finalize(ranks, timeout_ns, &err);
    }
    if (st != QY_OK) {
        qy_log_write(&ranks->rt->log, QY_LOG_ERROR, "net", "rank %d leaves without the others: %s",
                     ranks->rank, err.text);
    }
    qy_free(&ranks->rt->mem, ranks);
    return st == QY_OK ? 0 : -1;
}

void qy_ranks_abort(struct qy_ranks *ranks, int code)
{
    if (ranks != NULL) {
        struct qyi_guard guard = {.log = &ranks->rt->log,
                                  .message = "MPI_Abort: the launcher did not end the job",
                                  .timeout_ns = abort_ns,
                                  .code = code};

        if (qyi_guard_begin(&guard, NULL) == QY_OK) {
            MPI_Abort(MPI_COMM_WORLD, code);
        }
    }
    _exit(code);
}
