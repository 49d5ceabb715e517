/* SPDX-License-Identifier: Apache-2.0 */
/* The application: settings merged in order, then log, processor, topology, threads and trace. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "serve/job/job.h"

/* The only writable state of the program outside its handles: signal handlers have no argument. */
static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    if (interrupted) { /* the second one does not wait */
        signal(number, SIG_DFL);
        raise(number);
    }
    interrupted = 1;
}

int qyi_interrupted(void)
{
    return interrupted;
}

void qyi_interrupt_clear(void)
{
    interrupted = 0;
}

void qyi_interrupt_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a write error, which is reported */
}

static enum qy_status read_settings(struct qyi_app *app, struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    const struct qy_setting_table tables[] = {
        {qy_runtime_setting_rows, qy_runtime_setting_count, &app->runtime},
        {qyi_setting_rows, qyi_setting_count, &app->program},
        {qy_cache_setting_rows, qy_cache_setting_count, &app->cache},
        {qy_retrieval_setting_rows, qy_retrieval_setting_count, &app->retrieval},
        {qyi_net_setting_rows, qyi_net_setting_count, &app->net},
    };
    enum qy_status st =
        qy_config_open(&app->rt.mem, tables, sizeof tables / sizeof tables[0], &app->config, err);
    if (st == QY_OK && args->config != NULL) {
        st = qy_config_read_file(app->config, args->config, err);
    }
    if (st == QY_OK) {
        st = qy_config_read_env(app->config, err);
    }
    for (size_t i = 0; st == QY_OK && i < args->n_sets; i++) {
        st = qy_config_set(app->config, args->sets[i], args->flags[i], err);
    }
    if (st == QY_OK && app->program.deterministic && app->retrieval.min_tokens < 0) {
        /* a measured length would differ between runs */
        st = qy_config_set(app->config, "retrieval.min_tokens=1024", "step.deterministic", err);
    }
    if (st != QY_OK && err != NULL) {
        err->status = QY_ERR_CONFIG; /* a settings file that is not there is a usage error too */
    }
    return st;
}

static enum qy_status open_threads(struct qyi_app *app, struct qy_error *err)
{
    struct qy_machine machine;
    qy_topology_describe(app->rt.topology, &machine);
    app->n_threads = app->runtime.threads > 0 ? (uint32_t)app->runtime.threads
                                              : machine.cores / (app->n_neighbours + 1);
    if (app->n_threads == 0) {
        app->n_threads = 1;
    }
    if (app->n_threads > 256) {
        app->n_threads = 256;
    }
    struct qy_place places[256];
    qy_topology_place(app->rt.topology, app->n_threads, (enum qy_bind)app->runtime.bind, places);
    const struct qy_team_params params = {.n_threads = app->n_threads,
                                          .places = places,
                                          .topology = app->rt.topology,
                                          .spin_us = (uint32_t)app->runtime.spin_us};
    return qy_team_open(&app->rt.mem, &params, &app->rt.team, err);
}

enum qy_status qyi_app_start(struct qyi_app *app, struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    app->rt.mem = qy_allocator_system();
    app->rt.log = qy_log_stderr(QY_LOG_WARN);
    enum qy_status st = qy_log_parse(app->runtime.log, &app->rt.log, err);
    if (st == QY_OK && app->job != NULL && app->job->answers != NULL) {
        app->rt.log = app->job->rt.log; /* of several workers: with the rank in front */
    }
    static const char *const levels[] = {"auto", "avx512", "avx2", "plain"};
    if (st == QY_OK) {
        qy_cpu_detect(&app->rt.cpu);
        st = qy_cpu_choose(&app->rt.cpu, levels[app->runtime.cpu], err);
    }
    if (st == QY_OK) {
        st = qy_topology_open(&app->rt.mem, NULL, &app->rt.topology, err);
    }
    if (st == QY_OK) {
        st = open_threads(app, err);
    }
    if (st == QY_OK && args != NULL && (args->trace != NULL || args->report != NULL)) {
        st = qy_trace_open(&app->rt.mem, app->n_threads, 1u << 18, &app->rt.trace, err);
    }
    if (st != QY_OK) {
        qyi_app_close(app);
    }
    return st;
}

enum qy_status qyi_app_settings(const struct qyi_args *args, struct qyi_app *app,
                                struct qy_error *err)
{
    memset(app, 0, sizeof *app);
    app->args = args;
    app->rt.mem = qy_allocator_system();
    const enum qy_status st = read_settings(app, err);
    if (st != QY_OK) {
        qyi_app_close(app);
    }
    return st;
}

enum qy_status qyi_app_open(const struct qyi_args *args, struct qyi_app *app, struct qy_error *err)
{
    const enum qy_status st = qyi_app_settings(args, app, err);
    return st == QY_OK ? qyi_app_start(app, err) : st;
}

void qyi_app_close(struct qyi_app *app)
{
    if (app->rt.trace != NULL && app->args->trace != NULL) {
        struct qy_error err;
        if (qy_trace_write(app->rt.trace, app->args->trace, &err) != QY_OK) {
            fprintf(stderr, "quarry: %s\n", err.text);
        }
    }
    qy_trace_close(app->rt.trace);
    qy_team_close(app->rt.team);
    qy_topology_close(app->rt.topology);
    qy_config_close(app->config);
    memset(&app->rt, 0, sizeof app->rt);
    app->config = NULL;
}
