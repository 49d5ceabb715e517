/* SPDX-License-Identifier: Apache-2.0 */
/* See prompt_list.h. */
#include "serve/list/prompt_list.h"

#include <stdlib.h>
#include <string.h>

#include "serve/serve.h"

/* The prompt of a JSON line (NUL-terminated), freed with free; NULL: it has none. */
static char *json_prompt(const char *line)
{
    cJSON *value = cJSON_ParseWithOpts(line, NULL, 1);
    const cJSON *text =
        cJSON_IsObject(value) ? cJSON_GetObjectItemCaseSensitive(value, "prompt") : value;
    char *prompt = cJSON_IsString(text) ? strdup(text->valuestring) : NULL;
    cJSON_Delete(value);
    return prompt;
}

/* What a line without its end says; *prompt NULL: nothing. */
static enum qy_status read_line(const char *path, size_t number, char *line, char **prompt,
                                struct qy_error *err)
{
    const int json = line[0] == '"' || line[0] == '{';
    *prompt = NULL;
    if (line[0] == '\0') {
        return QY_OK;
    }
    *prompt = json ? json_prompt(line) : strdup(line);
    if (*prompt == NULL && json) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "--prompts '%s': line %zu begins with %c and is neither a JSON string "
                            "nor a JSON object with a text \"prompt\"; write such a prompt as a "
                            "JSON string",
                            path, number, line[0]);
    }
    return *prompt == NULL ? qy_error_set(err, QY_ERR_NOMEM, "--prompts '%s': out of memory", path)
                           : QY_OK;
}

static size_t count_lines(const char *text)
{
    size_t n = 1;
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++) {
        n++;
    }
    return n;
}

/* text is cut into lines. */
static enum qy_status read_lines(const char *path, char *text, struct qyi_prompt_list *list,
                                 struct qy_error *err)
{
    size_t number = 0;
    enum qy_status st = QY_OK;
    list->texts = calloc(count_lines(text), sizeof *list->texts);
    if (list->texts == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "--prompts '%s': out of memory", path);
    }
    for (char *line = text, *next; st == QY_OK && line != NULL; line = next) {
        char *end = strchr(line, '\n');
        next = end != NULL ? end + 1 : NULL;
        end = end != NULL ? end : line + strlen(line);
        end -= end > line && end[-1] == '\r';
        *end = '\0';
        st = read_line(path, ++number, line, &list->texts[list->n], err);
        list->n += st == QY_OK && list->texts[list->n] != NULL;
    }
    if (st == QY_OK && list->n == 0) {
        st = qy_error_set(err, QY_ERR_CONFIG,
                          "--prompts '%s': no prompt in it; give one a line, as text or as a JSON "
                          "string",
                          path);
    }
    return st;
}

enum qy_status qyi_prompt_list_read(const char *path, struct qyi_prompt_list *list,
                                    struct qy_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    memset(list, 0, sizeof *list);
    enum qy_status st = qyi_read_file(path, &text, &bytes, err);
    if (st != QY_OK) {
        return st;
    }
    if (strlen(text) != bytes) {
        st = qy_error_set(err, QY_ERR_CONFIG,
                          "--prompts '%s': has a byte of 0; text, one prompt a line, is accepted",
                          path);
    } else {
        st = read_lines(path, text, list, err);
    }
    free(text);
    if (st != QY_OK) {
        qyi_prompt_list_free(list);
    }
    return st;
}

void qyi_prompt_list_free(struct qyi_prompt_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        free(list->texts[i]);
    }
    free(list->texts);
    memset(list, 0, sizeof *list);
}
