/* SPDX-License-Identifier: Apache-2.0 */
/* The program: command line in, exit code out (0 done, 1 failed, 2 usage or config). */
#include <string.h>

#include "net/net.h"
#include "serve/doctor/doctor_ranks.h"
#include "serve/job/job.h"
#include "serve/memory/memory_server.h"

static int command(struct qyi_app *app)
{
    switch (app->args->command) {
    case QYI_GENERATE:
        return qyi_cmd_generate(app);
    case QYI_TOKENIZE:
        return qyi_cmd_tokenize(app);
    case QYI_EVAL:
        return qyi_cmd_eval(app);
    case QYI_BENCH:
        return qyi_cmd_bench(app);
    case QYI_DOCTOR:
        return qyi_cmd_doctor(app);
    case QYI_CALIBRATE:
        return qyi_cmd_calibrate(app);
    case QYI_MEMORY:
        return qyi_cmd_memory(app);
    case QYI_CONFIG:
        return qyi_cmd_config(app);
    case QYI_HELP:
        return qyi_cmd_help(app->args);
    }
    return 2;
}

/* app has its settings. */
static int work(struct qyi_app *app)
{
    struct qy_error err = {0};
    if (qyi_app_start(app, &err) != QY_OK) {
        return qyi_fail(&err);
    }
    const int code = command(app);
    qyi_app_close(app);
    return code;
}

int main(int argc, char **argv)
{
    struct qyi_args args;
    struct qyi_app app;
    struct qy_error err = {0};

    memset(&app, 0, sizeof app);
    qy_net_give_signals_back();
    if (argc == 1 && strcmp(argv[0], QYI_MEMORY_CHILD_NAME) == 0) {
        return qyi_memory_child_main();
    }
    if (argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
        qyi_print_version();
        return 0;
    }
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        qyi_print_help(argc < 2 ? stderr : stdout, 0);
        return argc < 2 ? 2 : 0;
    }
    enum qy_status st = qyi_args_parse(argc, argv, &args, &err);
    if (st == QY_OK && args.command == QYI_HELP) {
        return qyi_cmd_help(&args);
    }
    qyi_interrupt_install();
    if (st == QY_OK) {
        st = qyi_app_settings(&args, &app, &err);
    }
    if (qyi_job_wanted(&args)) {
        return qyi_job_main(&args, &app, st == QY_OK ? NULL : &err, work);
    }
    if (qyi_doctor_job_wanted(&args)) {
        return qyi_doctor_job_main(&args, &app, st == QY_OK ? NULL : &err, work);
    }
    if (st == QY_OK) {
        st = qyi_job_alone(&app, &err);
        if (st != QY_OK) {
            qyi_app_close(&app);
        }
    }
    return st == QY_OK ? work(&app) : qyi_fail(&err);
}
