/* SPDX-License-Identifier: Apache-2.0 */
/* What a process learns of its job from the launcher's variables: each launcher's, and nonsense. */
#include "net/net.h"
#include "tests/support/test.h"

#include <stdlib.h>

static const char *const known[] = {
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "PMIX_RANK",
    "PMI_RANK",
    "PMI_SIZE",
    "MPI_LOCALRANKID",
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
    "SLURM_NTASKS",
};

/* vars: names and values in turn, then NULL; no other variable of a launcher is set. */
static struct qy_launch launch_with(const char *const *vars)
{
    struct qy_launch launch;

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        unsetenv(known[i]);
    }
    for (; vars[0] != NULL; vars += 2) {
        assert_int_equal(setenv(vars[0], vars[1], 1), 0);
    }
    qy_launch_read(&launch);
    return launch;
}
#define LAUNCH(...) launch_with((const char *const[]){__VA_ARGS__, NULL})

static void expect(struct qy_launch launch, int rank, int n_ranks, int local_rank, const char *by)
{
    assert_int_equal(launch.rank, rank);
    assert_int_equal(launch.n_ranks, n_ranks);
    assert_int_equal(launch.local_rank, local_rank);
    if (by == NULL) {
        assert_null(launch.by);
    } else {
        assert_string_equal(launch.by, by);
    }
}

static void launch_without_variables_is_a_single_process(void **state)
{
    (void)state;
    expect(LAUNCH("OMPI_COMM_WORLD_SIZE", "4"), -1, 0, -1, NULL); /* a size is no rank */
}

static void launch_by_open_mpi_is_read(void **state)
{
    (void)state;
    expect(LAUNCH("OMPI_COMM_WORLD_RANK", "3", "OMPI_COMM_WORLD_SIZE", "4",
                  "OMPI_COMM_WORLD_LOCAL_RANK", "1"),
           3, 4, 1, "OMPI_COMM_WORLD_RANK");
    expect(LAUNCH("OMPI_COMM_WORLD_RANK", "0"), 0, 0, -1, "OMPI_COMM_WORLD_RANK");
}

static void launch_by_pmix_is_read(void **state)
{
    (void)state;
    expect(LAUNCH("PMIX_RANK", "2"), 2, 0, -1, "PMIX_RANK");
    expect(LAUNCH("PMIX_RANK", "2", "SLURM_PROCID", "2", "SLURM_STEP_NUM_TASKS", "8",
                  "SLURM_LOCALID", "0"),
           2, 8, 0, "PMIX_RANK");
}

static void launch_by_pmi_is_read(void **state)
{
    (void)state;
    expect(LAUNCH("PMI_RANK", "5", "PMI_SIZE", "6", "MPI_LOCALRANKID", "2"), 5, 6, 2, "PMI_RANK");
}

static void launch_by_slurm_is_read_in_a_step_of_several_tasks(void **state)
{
    (void)state;
    expect(LAUNCH("SLURM_PROCID", "1", "SLURM_STEP_NUM_TASKS", "2", "SLURM_LOCALID", "0"), 1, 2, 0,
           "SLURM_PROCID");
    /* A batch script: no step. A shell under srun: a step of one task. */
    expect(LAUNCH("SLURM_PROCID", "0", "SLURM_NTASKS", "16", "SLURM_LOCALID", "0"), -1, 0, -1,
           NULL);
    expect(LAUNCH("SLURM_PROCID", "0", "SLURM_STEP_NUM_TASKS", "1"), -1, 0, -1, NULL);
}

static void launch_by_mpirun_inside_a_slurm_step_is_mpiruns(void **state)
{
    (void)state;
    expect(LAUNCH("SLURM_PROCID", "0", "SLURM_STEP_NUM_TASKS", "2", "PMI_RANK", "1", "PMIX_RANK",
                  "2", "OMPI_COMM_WORLD_RANK", "3", "OMPI_COMM_WORLD_SIZE", "4"),
           3, 4, -1, "OMPI_COMM_WORLD_RANK");
}

static void launch_with_nonsense_counts_as_not_set(void **state)
{
    static const char *const nonsense[] = {"",
                                           "-1",
                                           "+1",
                                           " 1",
                                           "1 ",
                                           "one",
                                           "0x1",
                                           "1.5",
                                           "1e3",
                                           "2147483648",
                                           "99999999999999999999999",
                                           "1,2,3",
                                           "%d"};

    (void)state;
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        const char *text = nonsense[i];

        expect(LAUNCH("OMPI_COMM_WORLD_RANK", text, "OMPI_COMM_WORLD_SIZE", "4"), -1, 0, -1, NULL);
        expect(LAUNCH("PMIX_RANK", text), -1, 0, -1, NULL);
        expect(LAUNCH("PMI_RANK", text, "PMI_SIZE", "4"), -1, 0, -1, NULL);
        expect(LAUNCH("SLURM_PROCID", text, "SLURM_STEP_NUM_TASKS", "4"), -1, 0, -1, NULL);
        expect(LAUNCH("SLURM_PROCID", "1", "SLURM_STEP_NUM_TASKS", text), -1, 0, -1, NULL);
        /* One variable of nonsense does not hide another launcher's. */
        expect(LAUNCH("OMPI_COMM_WORLD_RANK", text, "PMI_RANK", "1"), 1, 0, -1, "PMI_RANK");
        expect(LAUNCH("PMI_RANK", "1", "PMI_SIZE", text, "MPI_LOCALRANKID", text), 1, 0, -1,
               "PMI_RANK");
    }
}

static void launch_with_a_count_below_the_rank_is_not_told_the_count(void **state)
{
    (void)state;
    expect(LAUNCH("OMPI_COMM_WORLD_RANK", "4", "OMPI_COMM_WORLD_SIZE", "4"), 4, 0, -1,
           "OMPI_COMM_WORLD_RANK");
    expect(LAUNCH("SLURM_PROCID", "4", "SLURM_STEP_NUM_TASKS", "4"), -1, 0, -1, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(launch_without_variables_is_a_single_process),
        cmocka_unit_test(launch_by_open_mpi_is_read),
        cmocka_unit_test(launch_by_pmix_is_read),
        cmocka_unit_test(launch_by_pmi_is_read),
        cmocka_unit_test(launch_by_slurm_is_read_in_a_step_of_several_tasks),
        cmocka_unit_test(launch_by_mpirun_inside_a_slurm_step_is_mpiruns),
        cmocka_unit_test(launch_with_nonsense_counts_as_not_set),
        cmocka_unit_test(launch_with_a_count_below_the_rank_is_not_told_the_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
