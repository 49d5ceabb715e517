/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several ranks of one program (mpirun -n 3 quarry generate ...). Rank 0 is the worker and runs the command; every
 * other is a memory rank, which watches a memory server, its child, that keeps the worker's blocks.
 *
 *   worker                    memory rank
 *                             starts its child, which waits
 *   joins                     joins
 *     --- exchange: version, settings, the key, what failed so far ---
 *                             tells its child settings and key
 *     --- exchange: where the children listen, and what failed since ---
 *   runs the command          watches its child, starts it again when it dies
 *     --- barrier ---
 *                             ends its child
 *   leaves                    leaves
 *
 * What fails before the command is known to all ranks: rank 0 says it, once, and all leave in good order.
 * A rank that dies ends the job; a child that dies does not, which is what children are for.
 */
#ifndef QY_SERVE_JOB_H
#define QY_SERVE_JOB_H

#include "net/net.h"
#include "serve/job/supervisor.h"
#include "serve/serve.h"

/* One memory rank's server. */
struct qyi_job_server {
    char name[32]; /* "rank 1" */
    char address[QY_NET_ADDRESS_BYTES];
};

struct qyi_job {
    struct qy_runtime rt; /* memory and log alone, for there are no threads yet */
    struct qy_log plain;  /* rt.log, without the rank in front */
    const struct qyi_args *args;
    struct qyi_app *app;
    struct qy_ranks *ranks;
    int rank, count;
    int one_host;                      /* all ranks are on one */
    int said;                          /* what failed is known to all ranks: rank 0 says it */
    struct qyi_supervisor *supervisor; /* of a memory rank */
    uint8_t key[QY_NET_KEY_BYTES];
    struct qyi_job_server *servers; /* [n_servers] */
    uint32_t n_servers;
};

/* Whether a launcher started this process as one of several ranks, for a command that takes several. The
 * command line may be one that was refused. */
int qyi_job_wanted(const struct qyi_args *args);
/* All that such a process does: the exit code. app has its settings and nothing else; failed: what was wrong with
 * them or the command line, NULL: nothing. work runs the command on rank 0, with app->job set, and
 * closes app. */
int qyi_job_main(const struct qyi_args *args, struct qyi_app *app, const struct qy_error *failed,
                 int (*work)(struct qyi_app *app));

/* ---- what ranks tell each other (job_compare.c) ------------------------------------------------- */

/* The first exchange. Several workers would compare their model and codebook here as well: a memory rank has
 * neither. version and build stay in front, where other versions find them. */
struct qyi_job_rank {
    char version[16];
    uint64_t build;    /* checksum of the program's file */
    char command[64];  /* "bench decode" */
    uint64_t settings; /* checksum of those that all ranks must share */
    uint64_t host;     /* which host, or container with a network of its own */
    char host_name[64];
    uint8_t key[QY_NET_KEY_BYTES]; /* of rank 0: the job's */
    int32_t failed;                /* enum qy_status; QY_OK: nothing did */
    char why[sizeof(((struct qy_error *)0)->text)];
};

/* Fills all but key and host; failed may be NULL, and app be without settings when it is not. */
void qyi_job_describe(const struct qyi_args *args, const struct qyi_app *app,
                      const struct qy_error *failed, struct qyi_job_rank *rank);
/* Fills host and host_name. */
void qyi_job_describe_host(struct qyi_job_rank *rank);
/* The first failure of any rank, in words that name it; QY_OK: there is none. whys [n]. */
struct qyi_job_failure {
    int32_t failed;
    char why[sizeof(((struct qy_error *)0)->text)];
};
enum qy_status qyi_job_failures(const struct qyi_job_failure *failures, int n,
                                struct qy_error *err);
/* Whether ranks [n] run the same program and command, and none failed. QY_ERR_CONFIG, or the status of what
 * failed. *settings_differ: all that is right, but their settings are not the same. */
QY_MUST enum qy_status qyi_job_compare(const struct qyi_job_rank *ranks, int n,
                                       int *settings_differ, struct qy_error *err);
/* May ranks have different values of this setting? */
int qyi_job_setting_is_own(const char *name);

/* Values of all settings of a rank: [n_settings] texts of QY_SETTING_TEXT_BYTES. */
size_t qyi_job_values_bytes(const struct qyi_app *app);
void qyi_job_values(const struct qyi_app *app, char *values);
/* Names the first setting that differs, with values and ranks: all [n][n_settings]. QY_ERR_CONFIG. */
enum qy_status qyi_job_different(const struct qyi_app *app, const char *all, int n,
                                 struct qy_error *err);

/* ---- a memory rank (job_memory.c) ----------------------------------------------------------------- */

/* Starts the child, which then waits for settings and key. Before MPI and any thread. [setup] */
QY_MUST enum qy_status qyi_job_memory_start(struct qyi_job *job, struct qy_error *err);
/* Tells it both and waits until it listens: address [QYI_CHILD_ADDRESS_BYTES]. [setup] */
QY_MUST enum qy_status qyi_job_memory_listen(struct qyi_job *job, char *address,
                                             struct qy_error *err);
/* Watches it until all ranks come to the end: the exit code. */
int qyi_job_memory_watch(struct qyi_job *job);

/* Where the child is to listen, as net.listen, net.device and this host say: "10.0.0.2:0". QY_ERR_CONFIG: it is
 * not clear over which network other hosts reach this one. [any] */
QY_MUST enum qy_status qyi_job_listen_at(const struct qyi_net_settings *net, int one_host, char *at,
                                         size_t at_bytes, struct qy_error *err);

#endif
