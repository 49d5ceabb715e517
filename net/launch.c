/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which rank of a job this process is, by what its launcher left in the environment: a process has to
 * know before MPI_Init, for what it starts first, and a process without a launcher never calls it.
 */
#include "net/environ.h"
#include "net/net.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

/* The variables of one launcher; NULL: it has none. */
struct launcher {
    const char *rank, *count, *local;
    int also_in_shells; /* the rank alone proves nothing: a count above 1 is needed */
};

/* In the order in which they are believed: mpirun may run inside a step of Slurm. */
static const struct launcher launchers[] = {
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", 0},
    /* PMIx has no variable for the count; `srun --mpi=pmix` leaves Slurm's beside it. */
    {"PMIX_RANK", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", 0},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", 0},
    /* Batch scripts have SLURM_PROCID without being a step, interactive shells are a step of one. */
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", 1},
};

/* -1: not set, or no number from 0 to INT_MAX. */
static int number(const char *name)
{
    const char *text = name == NULL ? NULL : qyi_environ(name);
    char *end;
    long value;

    if (text == NULL || !isdigit((unsigned char)text[0])) {
        return -1;
    }
    errno = 0;
    value = strtol(text, &end, 10);
    return *end != '\0' || errno != 0 || value > INT_MAX ? -1 : (int)value;
}

void qy_launch_read(struct qy_launch *launch)
{
    *launch = (struct qy_launch){.rank = -1, .n_ranks = 0, .local_rank = -1, .by = NULL};
    for (size_t i = 0; i < sizeof(launchers) / sizeof(launchers[0]); i++) {
        const int rank = number(launchers[i].rank);
        int count = number(launchers[i].count);

        if (count <= rank) { /* among them: not set */
            count = 0;
        }
        if (rank >= 0 && (!launchers[i].also_in_shells || count > 1)) {
            launch->rank = rank;
            launch->n_ranks = count;
            launch->local_rank = number(launchers[i].local);
            launch->by = launchers[i].rank;
            return;
        }
    }
}
