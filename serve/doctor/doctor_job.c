/* SPDX-License-Identifier: Apache-2.0 */
/* The life of one rank of quarry doctor: doctor_ranks.h has it as a picture. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve/doctor/doctor_ranks.h"

static const uint64_t second_ns = 1000000000u;
/* chosen: as in a job; the report of rank 0, which tries this host's kernels, comes before the end. */
enum { JOIN_S = 120, EXCHANGE_S = 60, LEAVE_S = 300 };
enum { SPARE_PEERS = 4 }; /* that left, and are not known to have */

struct doctor_job {
    struct qy_runtime rt; /* memory and log alone, for there are no threads yet */
    const struct qyi_args *args;
    struct qyi_app *app;
    struct qy_ranks *ranks;
    struct qy_node *node;
    uint8_t key[QY_NET_KEY_BYTES];
    struct qyi_doctor_ranks all;
    int said; /* what failed is known to all ranks: rank 0 says it */
};

int qyi_doctor_job_wanted(const struct qyi_args *args)
{
    struct qy_launch launch;
    qy_launch_read(&launch);
    return launch.rank >= 0 && launch.n_ranks != 1 && args->command == QYI_DOCTOR;
}

/* ---- what a rank has ----------------------------------------------------------------------------- */

/* A file's size, and its first and last bytes: enough to tell two models apart, and quick where they are large.
 * 0: there is none. */
static uint64_t ends_checksum(const char *path)
{
    enum { END_BYTES = 1 << 20 };
    const int fd = path[0] != '\0' ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    uint8_t *bytes = fd >= 0 ? malloc(END_BYTES) : NULL;
    struct stat info;
    uint64_t sum = 0;
    if (bytes != NULL && fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
        const off_t ends[] = {0, info.st_size > END_BYTES ? info.st_size - END_BYTES : 0};
        sum = qy_checksum(&info.st_size, sizeof info.st_size, 0);
        for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
            const ssize_t got = pread(fd, bytes, END_BYTES, ends[i]);
            sum = got > 0 ? qy_checksum(bytes, (size_t)got, sum) : sum;
        }
    }
    free(bytes);
    if (fd >= 0) {
        close(fd);
    }
    return sum;
}

static void copy(char *to, size_t bytes, const char *from)
{
    snprintf(to, bytes, "%.*s", (int)bytes - 1, from);
}

static void look(const struct qyi_app *app, struct qyi_doctor_facts *facts)
{
    struct qy_memory_info memory;
    struct qy_net_setting setting;
    const char *ucx = qy_net_ucx_version();
    memset(facts, 0, sizeof *facts);
    qy_memory_read(&memory);
    facts->usable_bytes = memory.usable;
    facts->model = ends_checksum(app->program.model);
    facts->codebook = ends_checksum(app->retrieval.codebook);
    copy(facts->ucx, sizeof facts->ucx, ucx != NULL ? ucx : "");
    for (size_t i = 0; qy_net_setting_at(i, &setting); i++) {
        if (strcmp(setting.variable, "UCX_TLS") == 0) {
            copy(facts->transports, sizeof facts->transports, setting.value);
        } else if (strcmp(setting.variable, "UCX_NET_DEVICES") == 0) {
            copy(facts->devices, sizeof facts->devices,
                 setting.by_user ? setting.value : app->net.device);
        }
    }
}

static enum qy_status open_node(struct doctor_job *job, struct qy_error *err)
{
    const struct qyi_net_settings *net = &job->app->net;
    char at[QY_SETTING_TEXT_BYTES];
    struct qy_node_params params = {.rt = &job->rt,
                                    .device = net->device[0] != '\0' ? net->device : NULL,
                                    .listen = at,
                                    .service = &qyi_doctor_service,
                                    .timeout_ns = (uint64_t)net->timeout_ms * 1000000u,
                                    .spin_ns = (uint64_t)net->spin_us * 1000u,
                                    .max_peers = (uint32_t)job->all.count + SPARE_PEERS,
                                    .depth = QYI_DOCTOR_AT_ONCE,
                                    .call_bytes = QYI_DOCTOR_PIECE,
                                    .answer_bytes = QY_NET_HEAD_BYTES,
                                    .n_answers = QYI_DOCTOR_AT_ONCE};
    enum qy_status st = qyi_job_listen_at(net, job->all.hosts == 1, at, sizeof at, err);
    if (st != QY_OK) {
        return st;
    }
    if (getrandom(params.session, sizeof params.session, 0) != (ssize_t)sizeof params.session) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "the system gives no random bytes (getrandom)");
    }
    memcpy(params.key, job->key, sizeof params.key);
    st = qy_node_open(&params, &job->node, err);
    explicit_bzero(params.key, sizeof params.key);
    return st;
}

/* ---- exchanges ----------------------------------------------------------------------------------- */

static enum qy_status exchange(const struct doctor_job *job, const void *mine, size_t bytes,
                               void *all, struct qy_error *err)
{
    return qy_ranks_exchange(job->ranks, mine, bytes, all, EXCHANGE_S * second_ns, err);
}

static enum qy_status reserve(struct doctor_job *job, struct qy_error *err)
{
    struct qyi_doctor_ranks *all = &job->all;
    const size_t n = (size_t)all->count;
    if (all->count > QYI_DOCTOR_RANKS) {
        job->said = 1;
        return qy_error_set(err, QY_ERR_CONFIG, "doctor: %d ranks; at most %d are accepted",
                            all->count, QYI_DOCTOR_RANKS);
    }
    all->ranks = calloc(n, sizeof *all->ranks);
    all->facts = calloc(n, sizeof *all->facts);
    all->links = calloc(n * n, sizeof *all->links);
    return all->ranks != NULL && all->facts != NULL && all->links != NULL
               ? QY_OK
               : qy_error_set(err, QY_ERR_NOMEM, "doctor: out of memory for %d ranks", all->count);
}

/* What cannot be worked with at all. */
static enum qy_status check_failures(struct doctor_job *job, struct qy_error *err)
{
    const int n = job->all.count;
    struct qyi_job_failure *failures = calloc((size_t)n, sizeof *failures);
    if (failures == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "doctor: out of memory for %d ranks", n);
    }
    for (int i = 0; i < n; i++) {
        failures[i].failed = job->all.ranks[i].failed;
        memcpy(failures[i].why, job->all.ranks[i].why, sizeof failures[i].why);
    }
    const enum qy_status st = qyi_job_failures(failures, n, err);
    job->said = st != QY_OK;
    free(failures);
    return st;
}

/* Names the first setting that is not the same. */
static enum qy_status compare_settings(struct doctor_job *job, struct qy_error *err)
{
    const size_t bytes = qyi_job_values_bytes(job->app);
    char *values = malloc(bytes * ((size_t)job->all.count + 1));
    if (values == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "doctor: out of memory for settings of %d ranks",
                            job->all.count);
    }
    qyi_job_values(job->app, values);
    const enum qy_status st = exchange(job, values, bytes, values + bytes, err);
    if (st == QY_OK) {
        (void)qyi_job_different(job->app, values + bytes, job->all.count, &job->all.differ);
    }
    free(values);
    return st;
}

static int count_hosts(const struct qyi_job_rank *ranks, int n)
{
    int hosts = 0;
    for (int i = 0; i < n; i++) {
        int first = 1;
        for (int k = 0; k < i; k++) {
            first &= ranks[k].host != ranks[i].host;
        }
        hosts += first;
    }
    return hosts;
}

static enum qy_status meet(struct doctor_job *job, const struct qy_error *failed,
                           struct qy_error *err)
{
    struct qyi_doctor_ranks *all = &job->all;
    struct qyi_job_rank mine;
    int settings_differ = 0;
    qyi_job_describe(job->args, job->app, failed, &mine);
    qyi_job_describe_host(&mine);
    if (getrandom(mine.key, sizeof mine.key, 0) != (ssize_t)sizeof mine.key) {
        mine.failed = QY_ERR_UNSUPPORTED;
        snprintf(mine.why, sizeof mine.why, "the system gives no random bytes (getrandom)");
    }
    enum qy_status st = exchange(job, &mine, sizeof mine, all->ranks, err);
    explicit_bzero(&mine, sizeof mine);
    job->said |= st == QY_ERR_INVALID; /* sizes: another version of quarry */
    memcpy(job->key, all->ranks[0].key, sizeof job->key);
    for (int i = 0; i < all->count; i++) {
        explicit_bzero(all->ranks[i].key, sizeof all->ranks[i].key);
    }
    if (st == QY_OK) {
        st = check_failures(job, err);
    }
    if (st != QY_OK) {
        return st;
    }
    all->hosts = count_hosts(all->ranks, all->count);
    st = qyi_job_compare(all->ranks, all->count, &settings_differ, &all->differ);
    return st == QY_OK && settings_differ ? compare_settings(job, err) : QY_OK;
}

static enum qy_status find_out(struct doctor_job *job, struct qy_error *err)
{
    struct qyi_doctor_ranks *all = &job->all;
    const size_t n = (size_t)all->count;
    const uint64_t timeout_ns = (uint64_t)job->app->net.timeout_ms * 1000000u;
    struct qyi_doctor_link *mine = calloc(n, sizeof *mine);
    struct qyi_doctor_facts facts;
    struct qy_error failed = {0};
    look(job->app, &facts);
    if (open_node(job, &failed) == QY_OK) {
        copy(facts.address, sizeof facts.address, qy_node_address(job->node));
    }
    copy(facts.failed, sizeof facts.failed, failed.text);
    enum qy_status st =
        mine != NULL ? exchange(job, &facts, sizeof facts, all->facts, err)
                     : qy_error_set(err, QY_ERR_NOMEM, "doctor: out of memory for %zu ranks", n);
    const uint64_t begin = qy_clock_ns();
    if (st == QY_OK) {
        st = qyi_doctor_pairs(job->ranks, job->node, timeout_ns, all, mine, err);
    }
    all->pairs_ns = qy_clock_ns() - begin;
    if (st == QY_OK) {
        st = exchange(job, mine, n * sizeof *mine, all->links, err);
    }
    qy_node_close(job->node);
    free(mine);
    return st;
}

/* ---- start and end ------------------------------------------------------------------------------- */

static void open_runtime(struct doctor_job *job)
{
    job->rt.mem = qy_allocator_system();
    job->rt.log = qy_log_stderr(QY_LOG_WARN);
    if (job->app->config != NULL) { /* what is wrong with its text rank 0 says */
        (void)!qy_log_parse(job->app->runtime.log, &job->rt.log, NULL);
    }
}

static enum qy_status run(struct doctor_job *job, const struct qy_error *failed,
                          struct qy_error *err)
{
    enum qy_status st = qy_ranks_open(&job->rt, JOIN_S * second_ns, &job->ranks, err);
    if (st == QY_OK) {
        job->all.count = qy_ranks_count(job->ranks);
        st = reserve(job, err);
    }
    if (st == QY_OK) {
        st = meet(job, failed, err);
    }
    return st == QY_OK ? find_out(job, err) : st;
}

int qyi_doctor_job_main(const struct qyi_args *args, struct qyi_app *app,
                        const struct qy_error *failed, int (*work)(struct qyi_app *app))
{
    struct doctor_job job;
    struct qy_error err = {0};
    int code = 0;
    memset(&job, 0, sizeof job);
    job.args = args;
    job.app = app;
    open_runtime(&job);
    const enum qy_status st = run(&job, failed, &err);
    const int tells = job.ranks != NULL && qy_ranks_rank(job.ranks) == 0;
    if (st != QY_OK) {
        code = err.status == QY_ERR_CONFIG ? 2 : 1;
        if (tells || !job.said) {
            (void)!qyi_fail(&err);
        }
    } else if (tells) {
        app->doctor = &job.all;
        code = work(app);
    }
    qyi_app_close(app);
    fflush(stdout);
    if (qy_ranks_close(job.ranks, LEAVE_S * second_ns) != 0 && code == 0) {
        code = 1;
    }
    free(job.all.ranks);
    free(job.all.facts);
    free(job.all.links);
    explicit_bzero(job.key, sizeof job.key);
    return code;
}
