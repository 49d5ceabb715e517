/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several ranks of one program (mpirun -n 3 quarry generate ...). The first job.workers of them, usually one, are
 * workers and run the command; every other is a memory rank, which watches a memory server, its child, that
 * keeps blocks of all workers.
 *
 *   workers                   memory ranks
 *                             start their children, which wait
 *   join                      join
 *     --- exchange: version, settings, the key, what failed so far; of workers: model, prompts ---
 *   (rank 0 listens)          tell their children settings and key
 *     --- exchange: where rank 0 and the children listen, and what failed since ---
 *   (others connect to rank 0; exchange: what failed since)
 *   run the command           watch their children, start them again when they die
 *     --- barrier ---
 *                             end their children
 *   leave                     leave
 *
 * What is in brackets is of jobs with several workers: rank 0 gets the answers of the others (job_answers.h),
 * and comes to the barrier when it has them; who is done earlier waits there as memory ranks do.
 *
 * What fails before the command is known to all ranks: rank 0 says it, once, and all leave in good order.
 * A rank that dies ends the job; a child that dies does not, which is what children are for.
 */
#ifndef QY_SERVE_JOB_H
#define QY_SERVE_JOB_H

#include "net/net.h"
#include "serve/job/supervisor.h"
#include "serve/serve.h"

struct qyi_job_answers;

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
    int workers;                       /* ranks 0 .. workers - 1 */
    int one_host;                      /* all ranks are on one */
    int said;                          /* what failed is known to all ranks: rank 0 says it */
    struct qyi_supervisor *supervisor; /* of a memory rank */
    uint8_t key[QY_NET_KEY_BYTES];
    struct qyi_job_server *servers;              /* [n_servers] */
    uint32_t n_servers;                          /* 0: workers have those of net.memory */
    char first_address[QYI_CHILD_ADDRESS_BYTES]; /* where rank 0 listens for other workers */
    struct qyi_job_answers *answers;             /* of a worker that is not alone; else NULL */
};

/* Whether a launcher started this process as one of several ranks, for a command that takes several. The
 * command line may be one that was refused. */
int qyi_job_wanted(const struct qyi_args *args);
/* All that such a process does: the exit code. app has its settings and nothing else; failed: what was wrong with
 * them or the command line, NULL: nothing. work runs the command on workers, with app->job set, and
 * closes app. */
int qyi_job_main(const struct qyi_args *args, struct qyi_app *app, const struct qy_error *failed,
                 int (*work)(struct qyi_app *app));
/* May a process that is no rank of a job have these settings? QY_ERR_CONFIG: several workers. */
QY_MUST enum qy_status qyi_job_alone(const struct qyi_app *app, struct qy_error *err);
/* Between two steps of a worker: moves what waits for rank 0, or from others. Never waits. [owner] */
void qyi_job_poll(struct qyi_job *job);

/* ---- what ranks tell each other (job_compare.c) ------------------------------------------------- */

/* What all workers must have the same of. */
enum qyi_job_same {
    QYI_SAME_MODEL,
    QYI_SAME_CODEBOOK,
    QYI_SAME_TEXT,
    QYI_SAME_PROMPTS,
    QYI_SAME_OPTIONS,
    QYI_SAME_COUNT
};

/* The first exchange. version and build stay in front, where other versions find them. */
struct qyi_job_rank {
    char version[16];
    uint64_t build;    /* checksum of the program's file */
    char command[64];  /* "bench decode" */
    uint64_t settings; /* checksum of those that all ranks must share */
    uint64_t host;     /* which host, or container with a network of its own */
    char host_name[64];
    uint64_t
        same[QYI_SAME_COUNT]; /* checksums, of one of several workers; 0: there is no such thing */
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

/* job_worker.c: fills same, and failed and why where something cannot be read. */
void qyi_job_describe_worker(struct qyi_app *app, struct qyi_job_rank *rank);
/* Have workers, the first n_workers of ranks, the same of all? QY_ERR_CONFIG names what and who. */
QY_MUST enum qy_status qyi_job_same_work(const struct qyi_job_rank *ranks, int n_workers,
                                         struct qy_error *err);

/* Values of all settings of a rank: [n_settings] texts of QY_SETTING_TEXT_BYTES. */
size_t qyi_job_values_bytes(const struct qyi_app *app);
void qyi_job_values(const struct qyi_app *app, char *values);
/* Is a setting as it is when nobody sets it? */
int qyi_job_is_default(const struct qy_config *config, const char *name);
/* Names the first setting that differs, with values and ranks: all [n][n_settings]. QY_ERR_CONFIG. */
enum qy_status qyi_job_different(const struct qyi_app *app, const char *all, int n,
                                 struct qy_error *err);

/* ---- a memory rank (job_memory.c) ----------------------------------------------------------------- */

/* Starts the child, which then waits for settings and key. Before MPI and any thread. [setup] */
QY_MUST enum qy_status qyi_job_memory_start(struct qyi_job *job, struct qy_error *err);
/* Tells it both and waits until it listens: address [QYI_CHILD_ADDRESS_BYTES]. [setup] */
QY_MUST enum qy_status qyi_job_memory_listen(struct qyi_job *job, char *address,
                                             struct qy_error *err);
/* Until all ranks come to the end; a memory rank watches its child meanwhile, a worker has none. The exit code,
 * 0 or 1. */
int qyi_job_memory_watch(struct qyi_job *job);

/* Where the child is to listen, as net.listen, net.device and this host say: "10.0.0.2:0". QY_ERR_CONFIG: it is
 * not clear over which network other hosts reach this one. [any] */
QY_MUST enum qy_status qyi_job_listen_at(const struct qyi_net_settings *net, int one_host, char *at,
                                         size_t at_bytes, struct qy_error *err);

#endif
