/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry doctor under a launcher (mpirun -n N quarry doctor): what its ranks are, where they differ, and how each
 * of them reaches every other. All ranks do the same, and rank 0 tells.
 *
 *   joins
 *     --- exchange: version, settings, host, the key ---
 *   opens a node that listens
 *     --- exchange: where, and what this rank has ---
 *   asks the others, round by round, with a barrier after each (doctor_pairs.c)
 *     --- exchange: what came of it ---
 *   rank 0 prints its own host's report, and what was found (doctor_ranks.c)
 *   leaves
 */
#ifndef QY_SERVE_DOCTOR_RANKS_H
#define QY_SERVE_DOCTOR_RANKS_H

#include "serve/doctor/doctor.h"
#include "serve/job/job.h"

/* chosen: what ranks tell each other grows with the square of their number, to 13 MB here */
enum { QYI_DOCTOR_RANKS = 256, QYI_DOCTOR_WHY = 176 };
enum { QYI_DOCTOR_PIECE = 1 << 20, QYI_DOCTOR_AT_ONCE = 4 }; /* questions with bytes */

/* What a rank has, beside struct qyi_job_rank; crosses MPI as it is. */
struct qyi_doctor_facts {
    char address[QY_NET_ADDRESS_BYTES]; /* where it listens; "": `failed` says why not */
    char failed[QYI_DOCTOR_WHY];
    char ucx[16], transports[48], devices[48]; /* in force; "": as UCX has it           */
    uint64_t usable_bytes;                     /* of memory, that may still be taken    */
    uint64_t model,
        codebook; /* checksums of their ends and sizes; 0: not given, or not to be read */
};

/* From one rank to another. */
struct qyi_doctor_link {
    int32_t status; /* enum qy_status; QY_PENDING: it was not tried             */
    uint64_t round_trip_ns;
    double gbps; /* 10^9 bytes a second, from the one that asks to the other */
    char why[QYI_DOCTOR_WHY];
};

struct qyi_doctor_ranks {
    int count, hosts;
    struct qyi_job_rank *ranks;     /* [count], keys are cleared              */
    struct qyi_doctor_facts *facts; /* [count]                                */
    struct qyi_doctor_link *links;  /* [count][count]: from, to               */
    uint64_t pairs_ns;              /* that all pairs took                    */
    struct qy_error differ; /* of program, command or settings; status QY_OK: nothing does */
};

/* doctor_job.c. Is this one of several ranks of quarry doctor? */
int qyi_doctor_job_wanted(const struct qyi_args *args);
/* All that such a process does: the exit code. As qyi_job_main; work runs the command on rank 0, with app->doctor
 * set, and closes app. */
int qyi_doctor_job_main(const struct qyi_args *args, struct qyi_app *app,
                        const struct qy_error *failed, int (*work)(struct qyi_app *app));

/* doctor_pairs.c. Whom a rank meets in a round, -1: nobody. In rounds 0 .. qyi_doctor_rounds - 1 all meet all
 * others, each once, and nobody meets two at a time. [any] */
int qyi_doctor_rounds(int count);
int qyi_doctor_partner(int rank, int count, int round);
/* What answers those who measure. */
extern const struct qy_service qyi_doctor_service;
/* Asks all others, one at a time, and answers them; fills mine [count]. node: NULL: this rank has none. timeout_ns:
 * the node's. QY_ERR_TIMEOUT, QY_ERR_PEER: not all ranks came to the end of a round; what is wrong with one link is
 * in mine alone. [owner] [alloc] */
QY_MUST enum qy_status qyi_doctor_pairs(struct qy_ranks *ranks, struct qy_node *node,
                                        uint64_t timeout_ns, const struct qyi_doctor_ranks *all,
                                        struct qyi_doctor_link *mine, struct qy_error *err);

/* doctor_ranks.c. Fills `ranks` and `links` of the report; all NULL: empty ones. How many pairs failed. */
int qyi_doctor_ranks_report(struct qyi_doctor *doctor, const struct qyi_doctor_ranks *all);

#endif
