/* SPDX-License-Identifier: Apache-2.0 */
/* quarry memory: a memory server by hand, and key files for it. */
#include <string.h>

#include "serve/memory/key.h"
#include "serve/memory/memory_server.h"

static int write_key(const char *path)
{
    struct qy_error err;
    if (qyi_key_write_new(path, &err) != QY_OK) {
        return qyi_fail(&err);
    }
    fprintf(stderr, "quarry memory: wrote a new key to '%s'; a job and its servers need the same\n",
            path);
    return 0;
}

static enum qy_status read_key(const struct qyi_net_settings *net, uint8_t *key,
                               struct qy_error *err)
{
    if (net->key_file[0] == '\0') {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "net.key_file '': a memory server answers only those who have its key; "
                            "quarry memory --new-key FILE writes one, --key-file FILE uses it");
    }
    return qyi_key_read(net->key_file, key, err);
}

/* Who comes and who goes is what a server by hand is watched for. */
static void say_more(struct qyi_app *app)
{
    struct qy_config_row row;
    for (size_t i = 0; qy_config_row_at(app->config, i, &row); i++) {
        if (strcmp(row.setting->name, "runtime.log") == 0 && strcmp(row.source, "default") == 0) {
            app->rt.log.level = QY_LOG_INFO;
        }
    }
}

static int report(const struct qyi_memory_server *server, const struct qyi_app *app)
{
    qyi_memory_server_print(server, stderr);
    if (!app->args->json) {
        return 0;
    }
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "bytes", (double)app->net.bytes);
    qyi_memory_server_json(server, object);
    return qyi_print_json(object);
}

int qyi_cmd_memory(struct qyi_app *app)
{
    struct qy_error err = {0};
    struct qyi_memory_server server;
    uint8_t key[QY_NET_KEY_BYTES] = {0};
    if (app->args->new_key != NULL) {
        return write_key(app->args->new_key);
    }
    if (app->net.listen[0] == '\0') {
        qy_error_set(&err, QY_ERR_CONFIG,
                     "net.listen '': where to listen is needed, as in --listen 10.0.0.2:7700");
        return qyi_fail(&err);
    }
    say_more(app);
    enum qy_status st = read_key(&app->net, key, &err);
    if (st == QY_OK) {
        const struct qyi_memory_server_params params = {
            .rt = &app->rt, .net = &app->net, .listen = app->net.listen, .key = key};
        st = qyi_memory_server_open(&server, &params, &err);
    }
    explicit_bzero(key, sizeof key);
    if (st != QY_OK) {
        return qyi_fail(&err);
    }
    char bytes[32];
    fprintf(stderr, "quarry memory: listens at %s, %s for blocks; Ctrl-C or SIGTERM ends it\n",
            qy_node_address(server.node), qy_format_size(app->net.bytes, bytes, sizeof bytes));
    qyi_memory_server_run(&server);
    const int code = report(&server, app);
    qyi_memory_server_close(&server);
    return code;
}
