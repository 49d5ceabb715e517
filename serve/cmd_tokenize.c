/* SPDX-License-Identifier: Apache-2.0 */
/* quarry tokenize: text to token ids. */
#include <stdlib.h>
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
    char *text = NULL;
    size_t bytes = 0, n = 0;
    int32_t *ids = NULL;
    enum qy_status st = QY_OK;
    if (args->file != NULL) {
        st = qyi_read_file(args->file, &text, &bytes, &err);
    } else {
        bytes = strlen(args->prompt);
    }
    if (st == QY_OK) {
        st = qy_tokenizer_encode(engine.tokenizer, text != NULL ? text : args->prompt, bytes,
                                 QY_ENCODE_BOS | (args->special ? (unsigned)QY_ENCODE_SPECIAL : 0),
                                 &ids, &n, &err);
    }
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
    free(text);
    qyi_engine_close(&engine);
    return code;
}
