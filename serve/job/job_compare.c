/* SPDX-License-Identifier: Apache-2.0 */
/* What the ranks of a job tell each other before they work, and what must be the same at all. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve/job/job.h"

/* What belongs to one process or its host: threads, names of files and devices, sizes of its memory. */
static const char *const own_settings[] = {
    "runtime.threads", "runtime.bind",    "runtime.spin_us",    "runtime.log",
    "model.file",      "cache.disk_path", "retrieval.codebook", "net.listen",
    "net.device",      "net.bytes",       "net.key_file",       "net.spin_us",
};

int qyi_job_setting_is_own(const char *name)
{
    for (size_t i = 0; i < sizeof own_settings / sizeof own_settings[0]; i++) {
        if (strcmp(name, own_settings[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

int qyi_job_is_default(const struct qy_config *config, const char *name)
{
    struct qy_config_row row;
    for (size_t i = 0; qy_config_row_at(config, i, &row); i++) {
        if (strcmp(row.setting->name, name) == 0) {
            return strcmp(row.source, "default") == 0;
        }
    }
    return 0;
}

/* ---- one rank ---------------------------------------------------------------------------------- */

static uint64_t settings_checksum(const struct qy_config *config)
{
    struct qy_config_row row;
    uint64_t sum = 0;
    for (size_t i = 0; qy_config_row_at(config, i, &row); i++) {
        if (!qyi_job_setting_is_own(row.setting->name)) {
            sum = qy_checksum(row.setting->name, strlen(row.setting->name) + 1, sum);
            sum = qy_checksum(row.value, strlen(row.value) + 1, sum);
        }
    }
    return sum;
}

void qyi_job_describe(const struct qyi_args *args, const struct qyi_app *app,
                      const struct qy_error *failed, struct qyi_job_rank *rank)
{
    const struct qyi_command_info *info = qyi_command_info(args->command);
    memset(rank, 0, sizeof *rank);
    snprintf(rank->version, sizeof rank->version, "%s", QY_VERSION);
    rank->build = qyi_file_checksum("/proc/self/exe");
    snprintf(rank->command, sizeof rank->command, "%s%s%s", info != NULL ? info->name : "",
             args->topic != NULL ? " " : "", args->topic != NULL ? args->topic : "");
    if (failed != NULL) {
        rank->failed = (int32_t)failed->status;
        snprintf(rank->why, sizeof rank->why, "%s", failed->text);
    } else {
        rank->settings = settings_checksum(app->config);
    }
}

/* Hosts are told apart by when they were started, and containers on one host by their networks. */
void qyi_job_describe_host(struct qyi_job_rank *rank)
{
    char boot[64] = "";
    struct stat network;
    const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!read(fd, boot, sizeof boot);
        close(fd);
    }
    rank->host = qy_checksum(boot, sizeof boot, 0);
    if (stat("/proc/self/ns/net", &network) == 0) {
        const uint64_t which[2] = {(uint64_t)network.st_dev, (uint64_t)network.st_ino};
        rank->host = qy_checksum(which, sizeof which, rank->host);
    }
    if (gethostname(rank->host_name, sizeof rank->host_name - 1) != 0) {
        snprintf(rank->host_name, sizeof rank->host_name, "?");
    }
}

/* ---- all ranks --------------------------------------------------------------------------------- */

enum qy_status qyi_job_failures(const struct qyi_job_failure *failures, int n, struct qy_error *err)
{
    int first = -1, failed = 0, same = 0;
    for (int i = 0; i < n; i++) {
        if (failures[i].failed == QY_OK) {
            continue;
        }
        first = first < 0 ? i : first;
        failed++;
        same += strcmp(failures[i].why, failures[first].why) == 0;
    }
    if (first < 0) {
        return QY_OK;
    }
    const struct qyi_job_failure *f = &failures[first];
    /* What is wrong on all of them is no rank's own. */
    if (same == n) {
        return qy_error_set(err, (enum qy_status)f->failed, "%s", f->why);
    }
    char more[64] = "";
    if (failed > 1) {
        snprintf(more, sizeof more, " and %d more of %d", failed - 1, n);
    }
    return qy_error_set(err, (enum qy_status)f->failed, "rank %d%s: %s", first, more, f->why);
}

static enum qy_status same_program(const struct qyi_job_rank *ranks, int n, struct qy_error *err)
{
    for (int i = 1; i < n; i++) {
        if (strncmp(ranks[i].version, ranks[0].version, sizeof ranks[0].version) != 0 ||
            ranks[i].build != ranks[0].build) {
            return qy_error_set(
                err, QY_ERR_CONFIG,
                "job: rank %d runs another program than rank 0: version %.15s, file %016llx, "
                "instead of %.15s, %016llx; install the same build of quarry on every host",
                i, ranks[i].version, (unsigned long long)ranks[i].build, ranks[0].version,
                (unsigned long long)ranks[0].build);
        }
    }
    return QY_OK;
}

enum qy_status qyi_job_compare(const struct qyi_job_rank *ranks, int n, int *settings_differ,
                               struct qy_error *err)
{
    *settings_differ = 0;
    enum qy_status st = same_program(ranks, n, err);
    if (st != QY_OK) {
        return st;
    }
    struct qyi_job_failure *failures = malloc((size_t)n * sizeof *failures);
    if (failures == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "job: out of memory for %d ranks", n);
    }
    for (int i = 0; i < n; i++) {
        failures[i].failed = ranks[i].failed;
        memcpy(failures[i].why, ranks[i].why, sizeof failures[i].why);
    }
    st = qyi_job_failures(failures, n, err);
    free(failures);
    for (int i = 1; st == QY_OK && i < n; i++) {
        if (strcmp(ranks[i].command, ranks[0].command) != 0) {
            return qy_error_set(err, QY_ERR_CONFIG,
                                "job: rank %d was started for 'quarry %s', rank 0 for 'quarry %s'; "
                                "start all ranks with the same command",
                                i, ranks[i].command, ranks[0].command);
        }
        *settings_differ |= ranks[i].settings != ranks[0].settings;
    }
    return st;
}

/* ---- settings that differ ---------------------------------------------------------------------- */

static size_t count_settings(const struct qyi_app *app)
{
    struct qy_config_row row;
    size_t n = 0;
    while (qy_config_row_at(app->config, n, &row)) {
        n++;
    }
    return n;
}

size_t qyi_job_values_bytes(const struct qyi_app *app)
{
    return count_settings(app) * QY_SETTING_TEXT_BYTES;
}

void qyi_job_values(const struct qyi_app *app, char *values)
{
    struct qy_config_row row;
    memset(values, 0, qyi_job_values_bytes(app));
    for (size_t i = 0; qy_config_row_at(app->config, i, &row); i++) {
        snprintf(values + i * QY_SETTING_TEXT_BYTES, QY_SETTING_TEXT_BYTES, "%s", row.value);
    }
}

/* The value of setting i on a rank: all [n][n_settings]. */
static const char *value_of(const char *all, size_t n_settings, int rank, size_t i)
{
    return all + ((size_t)rank * n_settings + i) * QY_SETTING_TEXT_BYTES;
}

enum qy_status qyi_job_different(const struct qyi_app *app, const char *all, int n,
                                 struct qy_error *err)
{
    const size_t n_settings = count_settings(app);
    struct qy_config_row row;
    char text[320] = "", more[32] = "";
    int others = 0; /* settings beside the first */
    for (size_t i = 0; qy_config_row_at(app->config, i, &row); i++) {
        const char *first = value_of(all, n_settings, 0, i);
        int rank = 0, ranks = 0;
        for (int r = n - 1; r > 0 && !qyi_job_setting_is_own(row.setting->name); r--) {
            if (strcmp(value_of(all, n_settings, r, i), first) != 0) {
                rank = r;
                ranks++;
            }
        }
        if (ranks > 0 && text[0] == '\0') {
            if (ranks > 1) {
                snprintf(more, sizeof more, " (%d ranks differ)", ranks);
            }
            snprintf(text, sizeof text, "%s: '%.100s' on rank 0, '%.100s' on rank %d%s",
                     row.setting->name, first, value_of(all, n_settings, rank, i), rank, more);
        } else {
            others += ranks > 0;
        }
    }
    more[0] = '\0';
    if (others > 0) {
        snprintf(more, sizeof more, ", and %d more settings", others);
    }
    return qy_error_set(err, QY_ERR_CONFIG,
                        "%s%s; all ranks of a job need the same settings: give them the same file, "
                        "environment and command line",
                        text, more);
}
