/* SPDX-License-Identifier: Apache-2.0 */
/* A memory server as the child of a supervisor: all that it is told comes over the supervisor's socket. */
#include <string.h>

#include "serve/memory/memory_server.h"

/* The brief of the supervisor, which is this program too; no settings file and no environment. */
static enum qy_status take_brief(struct qyi_supervised *supervised, struct qyi_memory_brief *brief,
                                 struct qy_error *err)
{
    const enum qy_status st = qyi_supervised_open(supervised, err);
    if (st != QY_OK) {
        return st;
    }
    if (supervised->brief_bytes == sizeof *brief) {
        memcpy(brief, supervised->brief, sizeof *brief);
        explicit_bzero(supervised->brief, sizeof supervised->brief);
    }
    if (supervised->brief_bytes != sizeof *brief || brief->bytes != sizeof *brief) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "the brief of the supervisor has %zu bytes, not %zu",
                            supervised->brief_bytes, sizeof *brief);
    }
    return QY_OK;
}

static enum qy_status run(struct qyi_supervised *supervised, struct qyi_memory_brief *brief,
                          struct qyi_app *app, struct qy_error *err)
{
    app->runtime = brief->runtime;
    app->net = brief->net;
    enum qy_status st = qyi_app_start(app, err);
    if (st != QY_OK) {
        return st;
    }
    struct qyi_memory_server server;
    const char *before = supervised->address[0] != '\0' ? supervised->address : app->net.listen;
    const struct qyi_memory_server_params params = {.rt = &app->rt,
                                                    .net = &app->net,
                                                    .listen = before,
                                                    .key = brief->key,
                                                    .supervised = supervised};
    st = qyi_memory_server_open(&server, &params, err);
    explicit_bzero(brief->key, sizeof brief->key);
    if (st == QY_OK) {
        if (qyi_supervised_listens(supervised, qy_node_address(server.node),
                                   qy_node_incarnation(server.node)) == 0) {
            qyi_memory_server_run(&server);
        }
        qyi_memory_server_close(&server);
    }
    qyi_app_close(app);
    return st;
}

int qyi_memory_child_main(void)
{
    static struct qyi_supervised supervised;
    struct qyi_memory_brief brief;
    struct qyi_app app;
    struct qy_error err = {0};
    memset(&app, 0, sizeof app);
    memset(&brief, 0, sizeof brief);
    supervised.fd = -1;
    enum qy_status st = take_brief(&supervised, &brief, &err);
    if (st == QY_OK) {
        qyi_interrupt_install();
        st = run(&supervised, &brief, &app, &err);
    }
    explicit_bzero(&brief, sizeof brief);
    int said = 0; /* by the parent, once for all */
    if (supervised.fd >= 0) {
        said = st != QY_OK && qyi_supervised_fails(&supervised, &err) == 0;
        qyi_supervised_close(&supervised);
    }
    if (said) {
        return err.status == QY_ERR_CONFIG ? 2 : 1;
    }
    return st == QY_OK ? 0 : qyi_fail(&err);
}
