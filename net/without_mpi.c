/* SPDX-License-Identifier: Apache-2.0 */
/* The ranks of a job in a build without MPI: there are none, and opening says how to get them. */
#include "net/net.h"

#include <unistd.h>

enum qy_status qy_ranks_open(const struct qy_runtime *rt, uint64_t timeout_ns,
                             struct qy_ranks **ranks, struct qy_error *err)
{
    struct qy_launch launch;

    (void)rt;
    (void)timeout_ns;
    (void)ranks;
    qy_launch_read(&launch);
    if (launch.rank < 0) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "job: this build has no MPI; to run several ranks install UCX and Open "
                            "MPI (scripts/setup net) and configure with -DQY_NET=ON");
    }
    return qy_error_set(err, QY_ERR_UNSUPPORTED,
                        "job: %s says that this is rank %d, but this build has no MPI; install UCX "
                        "and Open MPI (scripts/setup net) and configure with -DQY_NET=ON, or start "
                        "the program without a launcher",
                        launch.by, launch.rank);
}

/* No rank was ever opened: the functions below are there so that callers link. */
int qy_ranks_close(struct qy_ranks *ranks, uint64_t timeout_ns)
{
    (void)timeout_ns;
    return ranks == NULL ? 0 : -1;
}

int qy_ranks_rank(const struct qy_ranks *ranks)
{
    (void)ranks;
    return 0;
}

int qy_ranks_count(const struct qy_ranks *ranks)
{
    (void)ranks;
    return 1;
}

static enum qy_status no_mpi(const char *what, struct qy_error *err)
{
    return qy_error_set(err, QY_ERR_UNSUPPORTED, "%s of the ranks: this build has no MPI", what);
}

enum qy_status qy_ranks_exchange(struct qy_ranks *ranks, const void *mine, size_t bytes, void *all,
                                 uint64_t timeout_ns, struct qy_error *err)
{
    (void)ranks;
    (void)mine;
    (void)bytes;
    (void)all;
    (void)timeout_ns;
    return no_mpi("exchange", err);
}

enum qy_status qy_ranks_barrier(struct qy_ranks *ranks, uint64_t timeout_ns, struct qy_error *err)
{
    (void)ranks;
    (void)timeout_ns;
    return no_mpi("barrier", err);
}

enum qy_status qy_ranks_barrier_begin(struct qy_ranks *ranks, struct qy_error *err)
{
    (void)ranks;
    return no_mpi("barrier", err);
}

enum qy_status qy_ranks_barrier_test(struct qy_ranks *ranks, struct qy_error *err)
{
    (void)ranks;
    return no_mpi("barrier", err);
}

void qy_ranks_abort(struct qy_ranks *ranks, int code)
{
    (void)ranks;
    _exit(code);
}
