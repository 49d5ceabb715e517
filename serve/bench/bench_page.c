/* SPDX-License-Identifier: Apache-2.0 */
/* bench decode --report DIR: which files are written, and when. See bench_page.h. */
#include "serve/bench/bench_page.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 1024, MAX_BATCHES = 48 };

enum qy_status qyi_page_check(const struct qyi_args *args, struct qy_error *err)
{
    const char *dir = args->report;
    if (strlen(dir) > PATH_BYTES - 300) {
        return qy_error_set(err, QY_ERR_CONFIG, "option '--report': the folder's name is too long");
    }
    if (args->shape != NULL) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--report': not with --shape, whose steps are not traced; "
                            "leave one out");
    }
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
        return qy_error_set(err, QY_ERR_CONFIG, "option '--report': folder '%s' cannot be made: %s",
                            dir, strerror(errno));
    }
    if (access(dir, W_OK | X_OK) != 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--report': '%s' is no folder to write to: %s", dir,
                            strerror(errno));
    }
    return qyi_plot((const char *const[]){"--check", NULL}, err);
}

static enum qy_status write_text(const char *path, const char *text, struct qy_error *err)
{
    FILE *file = fopen(path, "we");
    int failed = file == NULL;
    if (!failed) {
        failed = fprintf(file, "%s\n", text) < 0;
        failed |= fclose(file) != 0;
    }
    return failed
               ? qy_error_set(err, QY_ERR_NOT_FOUND, "report file '%s': %s", path, strerror(errno))
               : QY_OK;
}

/* bench.json, and its copy under the run's batch and policy. */
static enum qy_status write_results(const struct qyi_app *app, const cJSON *result,
                                    struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    char path[PATH_BYTES], policy[64];
    char *text = cJSON_PrintUnformatted(result);
    if (text == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "report: out of memory");
    }
    snprintf(policy, sizeof policy, "%s", app->retrieval.policy);
    for (char *at = policy; *at != '\0'; at++) {
        *at = strchr("/ :", *at) != NULL ? '_' : *at;
    }
    snprintf(path, sizeof path, "%s/bench.json", args->report);
    enum qy_status st = write_text(path, text, err);
    if (st == QY_OK) {
        snprintf(path, sizeof path, "%s/batch-%llu-%s.json", args->report,
                 (unsigned long long)args->batch, policy);
        st = write_text(path, text, err);
    }
    cJSON_free(text);
    return st;
}

static enum qy_status draw(const char *kind, const char *out, const char *from,
                           struct qy_error *err)
{
    return qyi_plot((const char *const[]){"--kind", kind, "-o", out, from, NULL}, err);
}

static int is_batch(const struct dirent *entry)
{
    const size_t n = strlen(entry->d_name);
    return strncmp(entry->d_name, "batch-", 6) == 0 && n > 5 &&
           strcmp(entry->d_name + n - 5, ".json") == 0;
}

/* All runs that are in the folder. */
static enum qy_status draw_batches(const char *dir, const char *out, struct qy_error *err)
{
    const char *args[MAX_BATCHES + 5] = {"--kind", "batches", "-o", out};
    char paths[MAX_BATCHES][PATH_BYTES];
    struct dirent **entries = NULL;
    const int n = scandir(dir, &entries, is_batch, alphasort);
    for (int i = 0; i < n; i++) {
        if (i < MAX_BATCHES) {
            snprintf(paths[i], sizeof paths[i], "%s/%s", dir, entries[i]->d_name);
            args[4 + i] = paths[i];
        }
        free(entries[i]);
    }
    free(entries);
    return qyi_plot(args, err);
}

enum qy_status qyi_page_write(const struct qyi_app *app, const cJSON *result, struct qy_error *err)
{
    const char *dir = app->args->report;
    char bench[PATH_BYTES], trace[PATH_BYTES], step[PATH_BYTES], steps[PATH_BYTES];
    char batches[PATH_BYTES], page[PATH_BYTES];
    const struct qyi_picture pictures[] = {
        {step,
         "One step from the middle of the run: who did what, and when. Lanes of the link are "
         "the time that a slowed-down link is charged."},
        {steps, "Each step of the run: rows that were found on the device, bytes to it, time."},
        {batches, "Tokens per second of all runs that were reported into this folder."}};
    snprintf(bench, sizeof bench, "%s/bench.json", dir);
    snprintf(trace, sizeof trace, "%s/trace.json", dir);
    snprintf(step, sizeof step, "%s/step.svg", dir);
    snprintf(steps, sizeof steps, "%s/steps.svg", dir);
    snprintf(batches, sizeof batches, "%s/batches.svg", dir);
    snprintf(page, sizeof page, "%s/index.html", dir);
    enum qy_status st = write_results(app, result, err);
    if (st == QY_OK) {
        st = qy_trace_write(app->rt.trace, trace, err);
    }
    if (st == QY_OK) {
        st = draw("timeline", step, trace, err);
    }
    if (st == QY_OK) {
        st = draw("steps", steps, bench, err);
    }
    if (st == QY_OK) {
        st = draw_batches(dir, batches, err);
    }
    if (st == QY_OK) {
        st = qyi_html_write(page, result, pictures, sizeof pictures / sizeof pictures[0], err);
    }
    if (st == QY_OK) {
        fprintf(stderr, "written: %s, and what it shows\n", page);
    }
    return st;
}
