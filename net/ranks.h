/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Part of net.h, not to be included alone: the ranks of a job. MPI starts them, exchanges what they must
 * know of each other, and ends them; nothing else crosses MPI, and no wait lacks a deadline.
 *
 * All ranks call the same functions in the same order, each from the thread that opened. After a
 * QY_ERR_TIMEOUT only abort and close are left, because MPI cannot take back what it began.
 */
#ifndef QY_NET_RANKS_H
#define QY_NET_RANKS_H

#ifndef QY_NET_H
#error "include net/net.h"
#endif

/* What the launcher says in the environment (OMPI_COMM_WORLD_RANK, PMIX_RANK, PMI_RANK, SLURM_PROCID; the
 * number of ranks likewise), before MPI_Init and without it. rank -1: no launcher, a single process.
 * Values that are no numbers count as not set; SLURM_PROCID counts in a step of several tasks only, for
 * batch scripts and shells have it as well. [any] */
struct qy_launch {
    int rank, n_ranks; /* n_ranks 0: not told */
    int local_rank;    /* on this host; -1: not told */
    const char *by;    /* the variable that told, a literal; NULL: none */
};
void qy_launch_read(struct qy_launch *launch);

struct qy_ranks;

/* Joins the job: MPI_Init with threads funneled; once in a process, and only in one that a launcher
 * started (else QY_ERR_INVALID). QY_ERR_UNSUPPORTED: this build has no MPI. QY_ERR_CONFIG: MPI and the
 * launcher do not agree. rt is kept. When the others do not come within timeout_ns nothing can return
 * from MPI_Init: the process ends then, with exit code 1 after a line in the log, and the launcher ends
 * the job. [setup] [alloc] */
QY_MUST enum qy_status qy_ranks_open(const struct qy_runtime *rt, uint64_t timeout_ns,
                                     struct qy_ranks **ranks, struct qy_error *err);
/* Leaves it: waits at most timeout_ns for the others. 0: all left. Otherwise (a line in the log says why) MPI is
 * left as it is, and the process should end soon: the launcher then ends the rest of the job and
 * returns a code other than 0, whatever this process returns. Should the others come and then hang
 * on their way out, this process ends with exit code 1: flush before. [owner] */
int qy_ranks_close(struct qy_ranks *ranks, uint64_t timeout_ns);
int qy_ranks_rank(const struct qy_ranks *ranks);
int qy_ranks_count(const struct qy_ranks *ranks);
/* Every rank gives `bytes` bytes (1 .. INT_MAX, the same at all) and gets all: all [count][bytes], by rank.
 * What is exchanged may be secret: no copy of it stays here, but MPI's own are not ours to clear.
 * QY_ERR_TIMEOUT: somebody did not come in time; err names nobody, for MPI does not tell.
 * QY_ERR_INVALID: sizes differ; err names two ranks. [owner] [setup] [alloc] */
QY_MUST enum qy_status qy_ranks_exchange(struct qy_ranks *ranks, const void *mine, size_t bytes,
                                         void *all, uint64_t timeout_ns, struct qy_error *err);
/* Waits until all ranks are here. [owner] [setup] */
QY_MUST enum qy_status qy_ranks_barrier(struct qy_ranks *ranks, uint64_t timeout_ns,
                                        struct qy_error *err);
/* The same in two parts, for a rank that has other work meanwhile: begin, then test now and then, and sleep in
 * between; others may come by qy_ranks_barrier. From begin until test has said QY_OK no exchange and no
 * barrier may be begun, and a close leaves without the others. test never waits. QY_PENDING: not all are
 * here. QY_ERR_INVALID: none was begun. [owner] */
QY_MUST enum qy_status qy_ranks_barrier_begin(struct qy_ranks *ranks, struct qy_error *err);
QY_MUST enum qy_status qy_ranks_barrier_test(struct qy_ranks *ranks, struct qy_error *err);
/* Ends the whole job, now, with this exit code, 1 .. 125; with ranks NULL this process alone. [owner] */
__attribute__((noreturn)) void qy_ranks_abort(struct qy_ranks *ranks, int code);

#endif
