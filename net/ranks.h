/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Part of net.h, not to be included alone: the ranks of a job. MPI starts them, exchanges what they must
 * know of each other, and ends them; nothing else crosses MPI, and no wait lacks a deadline.
 */
#ifndef QY_NET_RANKS_H
#define QY_NET_RANKS_H

#ifndef QY_NET_H
#error "include net/net.h"
#endif

/* What the launcher says in the environment (OMPI_COMM_WORLD_RANK, PMIX_RANK, PMI_RANK, SLURM_PROCID; the
 * number of ranks likewise), before MPI_Init and without it. rank -1: no launcher, a single process.
 * [any] */
struct qy_launch {
    int rank, n_ranks; /* n_ranks 0: not told */
    int local_rank;    /* on this host; -1: not told */
    const char *by;    /* the variable that told, a literal; NULL: none */
};
void qy_launch_read(struct qy_launch *launch);

struct qy_ranks;

/* Joins the job: MPI_Init with threads funneled. QY_ERR_UNSUPPORTED: this build has no MPI.
 * [setup] [alloc] */
QY_MUST enum qy_status qy_ranks_open(const struct qy_runtime *rt, struct qy_ranks **ranks,
                                     struct qy_error *err);
/* Leaves it: waits at most timeout_ns for the others, then ends without them (0: they all left). */
int qy_ranks_close(struct qy_ranks *ranks, uint64_t timeout_ns);
int qy_ranks_rank(const struct qy_ranks *ranks);
int qy_ranks_count(const struct qy_ranks *ranks);
/* Every rank gives `bytes` bytes and gets all: all [count][bytes], by rank. QY_ERR_TIMEOUT: somebody did
 * not come in time; err names nobody, for MPI does not tell. [setup] */
QY_MUST enum qy_status qy_ranks_exchange(struct qy_ranks *ranks, const void *mine, size_t bytes,
                                         void *all, uint64_t timeout_ns, struct qy_error *err);
/* Waits until all ranks are here. */
QY_MUST enum qy_status qy_ranks_barrier(struct qy_ranks *ranks, uint64_t timeout_ns,
                                        struct qy_error *err);
/* Ends the whole job, now, with this exit code. Does not return. */
void qy_ranks_abort(struct qy_ranks *ranks, int code);

#endif
