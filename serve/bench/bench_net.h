/* SPDX-License-Identifier: Apache-2.0 */
/* quarry bench net: what its parts share. */
#ifndef QY_SERVE_BENCH_NET_H
#define QY_SERVE_BENCH_NET_H

#include "serve/bench/bench.h"
#include "serve/job/supervisor.h"
#include "serve/memory/memory_link.h"

enum {
    QYI_NET_RUNS = 7,  /* of each case, in turns with the others            */
    QYI_NET_DEPTH = 8, /* questions under way at once, at most               */
    QYI_NET_MAX_ROWS = 1024,
    QYI_NET_CASES = 31,
    QYI_NET_SIZES = 8, /* of messages that ucx_perftest sends, at most       */
    QYI_PERFTEST_RUNS = 5,
    QYI_PERFTEST_FAILURES = 3 /* after which it is given up */
};

/* ---- a server of its own: bench_net_server.c ---------------------------------------------------- */

/* A memory server in a process of its own, on this host, that nobody else knows the key of. */
struct qyi_net_server {
    struct qyi_supervisor *supervisor;
    uint8_t key[QY_NET_KEY_BYTES];
    char address[QYI_CHILD_ADDRESS_BYTES];
};
/* This thread to the i-th of two cores (as runtime.bind has it): a process that it starts stays where it was
 * then. Both ends of what is measured on one host are to run at once. Back to 0 after each. */
void qyi_net_stand_on(const struct qyi_app *app, uint32_t i);
/* It listens when this returns. QY_ERR_UNSUPPORTED: this build has no network; what the server itself says else.
 * [setup] [alloc] */
QY_MUST enum qy_status qyi_net_server_open(const struct qyi_app *app, uint64_t bytes,
                                           struct qyi_net_server *server, struct qy_error *err);
/* Why it does not run any more; QY_OK: it does. To be asked now and then. */
QY_MUST enum qy_status qyi_net_server_check(struct qyi_net_server *server, struct qy_error *err);
void qyi_net_server_close(struct qyi_net_server *server);

/* ---- ucx_perftest: bench_net_perftest.c --------------------------------------------------------- */

/* One message size, measured a few times. */
struct qyi_perftest {
    const char *test; /* "ucp_am_bw", "ucp_am_lat" */
    size_t bytes;
    double results[QYI_PERFTEST_RUNS]; /* 10^9 bytes a second; of _lat us for one way */
    uint32_t n;
};
/* NULL: it can be run; else why not, for people. */
const char *qyi_perftest_missing(void);
/* Runs both ends of it on this host, once, within a few seconds; adds a result. QY_ERR_UNSUPPORTED: it failed,
 * and err has its last words. */
QY_MUST enum qy_status qyi_perftest_run(const struct qyi_app *app, struct qyi_perftest *perftest,
                                        struct qy_error *err);
/* 0: there is none. */
double qyi_perftest_median(const struct qyi_perftest *perftest);

/* ---- cases: bench_net_run.c ---------------------------------------------------------------------- */

/* One kind of question at one depth. */
struct qyi_net_case {
    char name[48];
    struct qy_probe_batch batch;
    uint64_t there[QYI_NET_RUNS],
        here[QYI_NET_RUNS]; /* ns of a question; done here: the work alone */
    uint32_t n_runs;
    uint64_t check_ns; /* checksums of messages here, of all runs that were made */
    uint64_t *each;    /* [QYI_NET_RUNS][batch.n] ns of each question; of runs that were made */
    uint32_t perftest; /* of struct qyi_net_bench; UINT32_MAX: none compares */
};

struct qyi_net_bench {
    struct qyi_app *app;
    struct qyi_app own;           /* as app, but for the address of the server of its own */
    struct qyi_net_server server; /* of its own; supervisor NULL: net.memory's are measured */
    struct qyi_memory_link link;
    struct qy_kv_shape shape;
    uint32_t block_tokens, n_blocks;
    struct qy_runtime solo; /* app's, of one thread: so work is done here */
    struct qy_device *dev;
    struct qyi_net_case cases[QYI_NET_CASES];
    uint32_t n_cases;
    struct qyi_perftest perftests[QYI_NET_SIZES];
    uint32_t n_perftests;
    const char *no_perftest;         /* why ucx_perftest is not run; NULL: it is */
    uint32_t n_failed;               /* of its runs                              */
    struct qy_error perftest_failed; /* the last of them                         */
    cJSON *servers;                  /* results, server by server */
};

/* The table of cases, and memory for them. */
QY_MUST enum qy_status qyi_net_cases_open(struct qyi_net_bench *bench, struct qy_error *err);
void qyi_net_cases_close(struct qyi_net_bench *bench);
/* All cases against server i, in turns; fewer runs, perhaps none, when the program is interrupted. */
QY_MUST enum qy_status qyi_net_cases_run(struct qyi_net_bench *bench, uint32_t i,
                                         struct qy_error *err);

/* ---- bench_net_report.c -------------------------------------------------------------------------- */

/* What is measured, on what: the lines above the tables, when the first server has its blocks. */
void qyi_net_report_begin(const struct qyi_net_bench *bench);
/* Server i: a table, or an entry of bench->servers. */
void qyi_net_report_server(struct qyi_net_bench *bench, uint32_t i);
void qyi_net_report_end(struct qyi_net_bench *bench);

#endif
