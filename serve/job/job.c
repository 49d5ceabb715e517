/* SPDX-License-Identifier: Apache-2.0 */
/* The life of one rank of a job: job.h has it as a picture. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "serve/job/job.h"
#include "serve/job/job_answers.h"
#include "serve/memory/memory_link.h"

static const uint64_t second_ns = 1000000000u;

/* chosen: hosts of a job may start far apart; after that all are there, but one may be slow, and several workers
 * read their model's file first. A memory server has LISTEN_MS (job_memory.c) to listen, and as long as that
 * to end; workers have MEET_S (job_collect.c) to connect. */
enum { JOIN_S = 120, EXCHANGE_S = 60, READ_S = 600, LISTEN_S = 120, LEAVE_S = 60 };

int qyi_job_wanted(const struct qyi_args *args)
{
    struct qy_launch launch;
    const int decode =
        args->command == QYI_BENCH && args->topic != NULL && strcmp(args->topic, "decode") == 0;
    qy_launch_read(&launch);
    return launch.rank >= 0 && launch.n_ranks != 1 &&
           (args->command == QYI_GENERATE || args->command == QYI_EVAL || decode);
}

/* ---- what a rank is and has -------------------------------------------------------------------- */

static void write_with_rank(void *ctx, enum qy_log_level level, const char *module,
                            const char *text)
{
    const struct qyi_job *job = ctx;
    char who[64];
    snprintf(who, sizeof who, "rank %d %.40s", job->rank, module);
    job->plain.write(job->plain.ctx, level, who, text);
}

static void open_runtime(struct qyi_job *job)
{
    job->rt.mem = qy_allocator_system();
    job->plain = qy_log_stderr(QY_LOG_WARN);
    if (job->app->config != NULL) { /* what is wrong with its text the worker says */
        (void)!qy_log_parse(job->app->runtime.log, &job->plain, NULL);
    }
    job->rt.log = job->plain;
    job->rt.log.ctx = job;
    job->rt.log.write = write_with_rank;
}

static int is_worker(const struct qyi_job *job)
{
    return job->rank < job->workers;
}

/* What of several workers cannot be. */
static enum qy_status check_workers(const struct qyi_job *job, struct qy_error *err)
{
    const struct qyi_args *args = job->app->args;
    if (job->workers == 1) {
        return QY_OK;
    }
    if (args->command != QYI_GENERATE || args->prompts == NULL) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "job.workers '%d': several workers answer the prompts of 'quarry "
                            "generate --prompts FILE', and do nothing else; start one",
                            job->workers);
    }
    if (strcmp(args->prompts, "-") == 0) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "option '--prompts -': every worker reads the list, and rank 0 alone has "
            "stdin; give a file that all reach");
    }
    if (args->trace != NULL) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "option '--trace': every worker would write this file; start one worker");
    }
    return QY_OK;
}

/* What of the settings cannot be in a job. */
static enum qy_status check(const struct qyi_job *job, struct qy_error *err)
{
    if (job->args->shape != NULL) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--shape': its cache keeps no blocks on memory ranks; start "
                            "one rank");
    }
    if (!is_worker(job) && job->app->net.memory[0] == '\0' && job->app->net.bytes == 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "net.bytes '0': this rank keeps blocks of the KV cache in memory; say "
                            "in how much, as in --set net.bytes=8G");
    }
    return check_workers(job, err);
}

/* The same when the number of ranks is known. */
static enum qy_status check_counts(const struct qyi_job *job, struct qy_error *err)
{
    const char *memory = job->app->net.memory;
    const int servers = job->count - job->workers;
    if (memory[0] != '\0' && servers > 0) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "net.memory '%.100s': a job of several ranks keeps its blocks on its "
            "own memory ranks; leave net.memory empty, or make all %d ranks workers "
            "(job.workers)",
            memory, job->count);
    }
    if (servers < 0 || (servers == 0 && memory[0] == '\0' && job->count > 1)) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "job.workers '%d': of %d ranks at least one keeps blocks; start more, "
            "lower it, or name memory servers in net.memory and start as many ranks",
            job->workers, job->count);
    }
    return servers <= QYI_MEMORY_SERVERS
               ? QY_OK
               : qy_error_set(err, QY_ERR_CONFIG,
                              "job: %d ranks, %d of them workers; at most %d memory ranks are "
                              "accepted",
                              job->count, job->workers, QYI_MEMORY_SERVERS);
}

enum qy_status qyi_job_alone(const struct qyi_app *app, struct qy_error *err)
{
    if (app->net.workers == 1 || (app->args->command & QYI_ENGINE) == 0) {
        return QY_OK;
    }
    return qy_error_set(err, QY_ERR_CONFIG,
                        "job.workers '%lld': this is a single process; start it with mpirun -n "
                        "RANKS, or leave it at 1",
                        (long long)app->net.workers);
}

/* ---- the exchanges ----------------------------------------------------------------------------- */

/* st and err are the same on all ranks from here on: rank 0 says them. */
static enum qy_status agreed(struct qyi_job *job, enum qy_status st)
{
    job->said = st != QY_OK;
    return st;
}

static enum qy_status compare_settings(struct qyi_job *job, struct qy_error *err)
{
    const size_t bytes = qyi_job_values_bytes(job->app);
    char *values = malloc(bytes * ((size_t)job->count + 1));
    if (values == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "job: out of memory for settings of %d ranks",
                            job->count);
    }
    qyi_job_values(job->app, values);
    enum qy_status st =
        qy_ranks_exchange(job->ranks, values, bytes, values + bytes, EXCHANGE_S * second_ns, err);
    if (st == QY_OK) {
        st = agreed(job, qyi_job_different(job->app, values + bytes, job->count, err));
    }
    free(values);
    return st;
}

/* all [count] */
static enum qy_status meet(struct qyi_job *job, const struct qyi_job_rank *mine,
                           struct qyi_job_rank *all, struct qy_error *err)
{
    const uint64_t wait_s = job->workers > 1 ? READ_S : EXCHANGE_S;
    int differ = 0;
    enum qy_status st =
        qy_ranks_exchange(job->ranks, mine, sizeof *mine, all, wait_s * second_ns, err);
    if (st == QY_ERR_INVALID) { /* sizes: another version of quarry */
        st = agreed(job, qy_error_wrap(err, QY_ERR_CONFIG, "job"));
    } else if (st == QY_OK) {
        st = agreed(job, qyi_job_compare(all, job->count, &differ, err));
    }
    if (st == QY_OK && differ) {
        st = compare_settings(job, err);
    }
    if (st == QY_OK) { /* settings are the same, and so is job.workers */
        st = agreed(job, qyi_job_same_work(all, job->workers, err));
    }
    if (st != QY_OK) {
        return st;
    }
    memcpy(job->key, all[0].key, sizeof job->key);
    job->one_host = 1;
    for (int i = 0; i < job->count; i++) {
        job->one_host &= all[i].host == all[0].host;
        job->app->n_neighbours += i < job->workers && i != job->rank && all[i].host == mine->host;
    }
    return QY_OK;
}

static enum qy_status introduce(struct qyi_job *job, const struct qy_error *failed,
                                struct qy_error *err)
{
    struct qyi_job_rank mine;
    struct qyi_job_rank *all = calloc((size_t)job->count, sizeof *all);
    if (all == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "job: out of memory for %d ranks", job->count);
    }
    qyi_job_describe(job->args, job->app, failed, &mine);
    qyi_job_describe_host(&mine);
    if (failed == NULL && job->workers > 1 && is_worker(job)) {
        qyi_job_describe_worker(job->app, &mine);
    }
    if (job->rank == 0 && getrandom(mine.key, sizeof mine.key, 0) != (ssize_t)sizeof mine.key) {
        mine.failed = QY_ERR_UNSUPPORTED;
        snprintf(mine.why, sizeof mine.why, "the system gives no random bytes (getrandom)");
    }
    const enum qy_status st = meet(job, &mine, all, err);
    explicit_bzero(&mine, sizeof mine);
    explicit_bzero(all, (size_t)job->count * sizeof *all);
    free(all);
    return st;
}

/* The second exchange. */
struct listens {
    struct qyi_job_failure failure;
    char address[QYI_CHILD_ADDRESS_BYTES];
};

static void keep_servers(struct qyi_job *job, const struct listens *all)
{
    const uint32_t first = (uint32_t)job->workers;
    job->n_servers = (uint32_t)job->count - first;
    for (uint32_t i = 0; i < job->n_servers; i++) {
        struct qyi_job_server *server = &job->servers[i];
        snprintf(server->name, sizeof server->name, "rank %u", first + i);
        snprintf(server->address, sizeof server->address, "%s", all[first + i].address);
    }
}

/* Where this rank is to be found, if others look for it. */
static enum qy_status listen_here(struct qyi_job *job, char *address, struct qy_error *err)
{
    if (!is_worker(job)) {
        return qyi_job_memory_listen(job, address, err);
    }
    return job->rank == 0 && job->workers > 1 ? qyi_job_answers_listen(job, address, err) : QY_OK;
}

static enum qy_status share_addresses(struct qyi_job *job, struct qy_error *err)
{
    struct listens mine;
    struct qy_error failed = {0};
    const size_t n = (size_t)job->count;
    struct listens *all = calloc(n, sizeof *all);
    struct qyi_job_failure *failures = calloc(n, sizeof *failures);
    job->servers = calloc(n, sizeof *job->servers);
    enum qy_status st = QY_OK;
    if (all == NULL || failures == NULL || job->servers == NULL) {
        st = qy_error_set(err, QY_ERR_NOMEM, "job: out of memory for %d ranks", job->count);
    } else {
        memset(&mine, 0, sizeof mine);
        mine.failure.failed = listen_here(job, mine.address, &failed);
        snprintf(mine.failure.why, sizeof mine.failure.why, "%s", failed.text);
        st = qy_ranks_exchange(job->ranks, &mine, sizeof mine, all, LISTEN_S * second_ns, err);
    }
    if (st == QY_OK) {
        for (size_t i = 0; i < n; i++) {
            failures[i] = all[i].failure;
        }
        st = agreed(job, qyi_job_failures(failures, job->count, err));
    }
    if (st == QY_OK) {
        keep_servers(job, all);
        snprintf(job->first_address, sizeof job->first_address, "%s", all[0].address);
    }
    free(all);
    free(failures);
    return st;
}

/* The third exchange, of several workers, who connect to rank 0 before it. */
static enum qy_status connect_workers(struct qyi_job *job, struct qy_error *err)
{
    struct qyi_job_failure mine, *all;
    struct qy_error failed = {0};
    enum qy_status st = QY_OK;
    if (job->workers == 1) {
        return QY_OK;
    }
    memset(&mine, 0, sizeof mine);
    if (is_worker(job)) {
        st = job->rank > 0 ? qyi_job_answers_connect(job, job->first_address, &failed) : QY_OK;
        st = st == QY_OK ? qyi_job_answers_meet(job->answers, &failed) : st;
        mine.failed = st;
        snprintf(mine.why, sizeof mine.why, "%s", failed.text);
    }
    all = calloc((size_t)job->count, sizeof *all);
    if (all == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "job: out of memory for %d ranks", job->count);
    }
    st = qy_ranks_exchange(job->ranks, &mine, sizeof mine, all, LISTEN_S * second_ns, err);
    if (st == QY_OK) {
        st = agreed(job, qyi_job_failures(all, job->count, err));
    }
    free(all);
    return st;
}

/* ---- start, work, end -------------------------------------------------------------------------- */

/* Joins, and agrees with the others. What fails on this rank alone is for all to know. */
static enum qy_status start(struct qyi_job *job, const struct qy_error *failed,
                            struct qy_error *err)
{
    struct qy_launch launch;
    struct qy_error wrong = {0};
    qy_launch_read(&launch);
    job->rank = launch.rank;
    job->workers = failed == NULL ? (int)job->app->net.workers : 1;
    if (failed == NULL && check(job, &wrong) != QY_OK) {
        failed = &wrong;
    }
    if (failed == NULL && !is_worker(job) && job->app->net.memory[0] == '\0' &&
        qyi_job_memory_start(job, &wrong) != QY_OK) {
        failed = &wrong;
    }
    enum qy_status st = qy_ranks_open(&job->rt, JOIN_S * second_ns, &job->ranks, err);
    if (st != QY_OK) {
        return st;
    }
    job->count = qy_ranks_count(job->ranks);
    if (failed == NULL && check_counts(job, &wrong) != QY_OK) {
        failed = &wrong;
    }
    if (job->count == 1) { /* which the launcher had not told */
        return failed == NULL ? QY_OK : qy_error_set(err, failed->status, "%s", failed->text);
    }
    st = introduce(job, failed, err);
    st = st == QY_OK ? share_addresses(job, err) : st;
    return st == QY_OK ? connect_workers(job, err) : st;
}

/* A worker's part. The others wait for its barrier, whatever became of the command. */
static int run(struct qyi_job *job, int (*work)(struct qyi_app *app))
{
    struct qy_error err = {0};
    if (job->app->n_neighbours > 0 && qyi_job_is_default(job->app->config, "runtime.bind")) {
        job->app->runtime.bind = QY_BIND_NONE; /* else all take the first cores */
    }
    job->app->job = job->n_servers > 0 || job->answers != NULL ? job : NULL;
    int code = work(job->app);
    job->app->job = NULL;
    fflush(stdout);
    if (job->answers != NULL) {
        code = qyi_job_answers_end(job->answers, code);
        fflush(stdout);
    }
    if (job->rank > 0) { /* rank 0 may have more to do */
        const int late = qyi_job_memory_watch(job);
        return code != 0 ? code : late;
    }
    if (qy_ranks_barrier(job->ranks, LEAVE_S * second_ns, &err) != QY_OK) {
        qy_log_write(&job->rt.log, QY_LOG_ERROR, "job", "%s", err.text);
        code = code != 0 ? code : 1;
    }
    return code;
}

void qyi_job_poll(struct qyi_job *job)
{
    if (job->answers != NULL) {
        qyi_job_answers_poll(job->answers);
    }
}

int qyi_job_main(const struct qyi_args *args, struct qyi_app *app, const struct qy_error *failed,
                 int (*work)(struct qyi_app *app))
{
    struct qyi_job job;
    struct qy_error err = {0};
    int code;
    memset(&job, 0, sizeof job);
    job.args = args;
    job.app = app;
    open_runtime(&job);
    if (start(&job, failed, &err) != QY_OK) {
        code = err.status == QY_ERR_CONFIG ? 2 : 1;
        if (!job.said || job.rank == 0) {
            (void)!qyi_fail(&err);
        }
    } else {
        code = is_worker(&job) ? run(&job, work) : qyi_job_memory_watch(&job);
    }
    /* In this order: when the last rank has left, nothing of the job runs any more. */
    (void)!qyi_supervisor_close(job.supervisor);
    qyi_job_answers_close(job.answers);
    qyi_app_close(app);
    fflush(stdout);
    if (qy_ranks_close(job.ranks, LEAVE_S * second_ns) != 0 && code == 0) {
        code = 1;
    }
    free(job.servers);
    explicit_bzero(job.key, sizeof job.key);
    return code;
}
