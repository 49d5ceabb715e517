/* SPDX-License-Identifier: Apache-2.0 */
/* quarry tokenize: text to token ids. */
#include <string.h>

#include "serve/serve.h"

static int print_ids(const struct qyi_app *app, const int32_t *ids, size_t n)
{
    if (app->args->json) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddItemToObject(object, "tokens", cJSON_CreateIntArray(ids, (int)n));
        return qyi_print_json(object);
    }
    for (size_t i = 0; i < n; i++) {
        printf("%d\n", ids[i]);
    }
    if (fflush(stdout) != 0) {
        struct qy_error err;
        qy_error_set(&err, QY_ERR_NOT_FOUND, "stdout: writing failed");
        return qyi_fail(&err);
    }
    return 0;
}

int qyi_cmd_tokenize(struct qyi_app *app)
{
    const struct qyi_args *args = app->args;
    struct qy_error err = {0};
    if ((args->file == NULL) == (args->prompt == NULL)) {
        qy_error_set(&err, QY_ERR_CONFIG, "tokenize: one of -f FILE and -p TEXT is needed");
        return qyi_fail(&err);
    }
    struct qyi_engine engine;
    if (qyi_engine_open_file(app, &engine, &err) != QY_OK) {
        return qyi_fail(&err);
    }
    size_t n = 0;
    int32_t *ids = NULL;
    const enum qy_status st = args->file != NULL ? qyi_read_ids(&engine, args->file, &ids, &n, &err)
                                                 : qyi_encode(&engine, args->prompt,
                                                              strlen(args->prompt), &ids, &n, &err);
    int code = 1;
    if (st == QY_OK) {
        if (args->prompt_tokens > 0 && n > args->prompt_tokens) {
            n = args->prompt_tokens;
        }
        code = print_ids(app, ids, n);
    } else {
        code = qyi_fail(&err);
    }
    qy_free(&app->rt.mem, ids);
    qyi_engine_close(&engine);
    return code;
}
