/* SPDX-License-Identifier: Apache-2.0 */
/* See answer_list.h. */
#include "serve/list/answer_list.h"

#include <stdlib.h>
#include <string.h>

#include "serve/serve.h"

/* chosen: far above any answer; what a worker says of itself is not believed beyond it */
static const size_t most_bytes = (size_t)1 << 30;
/* chosen: so many prompts of one worker are named, the others counted */
enum { NAMED = 12 };

/* ---- opening and closing ----------------------------------------------------------------------- */

enum qy_status qyi_answer_list_open(struct qyi_answer_list *list, uint32_t n_workers, FILE *out,
                                    struct qy_error *err)
{
    memset(list, 0, sizeof *list);
    list->workers = calloc(n_workers, sizeof *list->workers);
    if (list->workers == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "answers of %u workers: out of memory", n_workers);
    }
    list->out = out;
    list->n_workers = n_workers;
    return QY_OK;
}

enum qy_status qyi_answer_list_expect(struct qyi_answer_list *list, size_t n, int json,
                                      struct qy_error *err)
{
    list->items = calloc(n, sizeof *list->items);
    if (list->items == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "answers to %zu prompts: out of memory", n);
    }
    list->n = n;
    list->json = json;
    list->start_ns = qy_clock_ns();
    return QY_OK;
}

void qyi_answer_list_close(struct qyi_answer_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        free(list->items[i].bytes);
    }
    free(list->items);
    free(list->workers);
    memset(list, 0, sizeof *list);
}

/* ---- what comes ---------------------------------------------------------------------------------- */

enum qy_status qyi_answer_list_put(struct qyi_answer_list *list, uint32_t worker, size_t prompt,
                                   const char *bytes, size_t n, size_t at, size_t total)
{
    if (list->items == NULL) {
        return QY_ERR_NOT_FOUND;
    }
    if (prompt >= list->n || worker != prompt % list->n_workers || total > most_bytes ||
        at > total || n > total - at || (n == 0 && total > 0)) {
        return QY_ERR_INVALID;
    }
    struct qyi_answer_item *item = &list->items[prompt];
    if (list->workers[worker].ended || item->whole) { /* given up meanwhile; or it comes again */
        return item->whole ? QY_OK : QY_ERR_NOT_FOUND;
    }
    if (item->bytes == NULL) {
        item->bytes = malloc(total + 1);
        if (item->bytes == NULL) {
            return QY_ERR_NOMEM;
        }
        item->total = total;
    }
    if (total != item->total || at > item->got) {
        return QY_ERR_INVALID;
    }
    if (at == item->got) { /* else it came before */
        if (n > 0) {
            memcpy(item->bytes + at, bytes, n);
        }
        item->got = at + n;
        item->whole = item->got == total;
    }
    return QY_OK;
}

void qyi_answer_list_end(struct qyi_answer_list *list, uint32_t worker, int code, const char *why)
{
    struct qyi_answer_worker *w = &list->workers[worker];
    if (!w->ended) {
        w->ended = 1;
        w->code = code;
        snprintf(w->why, sizeof w->why, "%s", why);
    }
}

int qyi_answer_list_has_ended(const struct qyi_answer_list *list, uint32_t worker)
{
    return list->workers[worker].ended;
}

/* ---- what is written ------------------------------------------------------------------------------ */

static const char *reason(const struct qyi_answer_worker *w)
{
    return w->why[0] != '\0' ? w->why : "its own message says why";
}

/* Did the worker before it, which was named, end for the same reason? */
static int is_repeated(const struct qyi_answer_list *list, uint32_t worker)
{
    const struct qyi_answer_worker *w = &list->workers[worker];
    return worker > 0 && w[-1].named && strcmp(w[-1].why, w->why) == 0;
}

static void write_missing(struct qyi_answer_list *list, size_t i)
{
    const uint32_t worker = (uint32_t)(i % list->n_workers);
    cJSON *object = list->json ? cJSON_CreateObject() : NULL;
    if (object == NULL) {
        return;
    }
    cJSON_AddNumberToObject(object, "prompt", (double)i + 1);
    cJSON_AddNumberToObject(object, "rank", worker);
    qyi_json_add_text(object, "error", reason(&list->workers[worker]));
    char *text = cJSON_PrintUnformatted(object);
    list->broken |= text == NULL || fputs(text, list->out) < 0 || fputc('\n', list->out) == EOF;
    cJSON_free(text);
    cJSON_Delete(object);
}

int qyi_answer_list_write(struct qyi_answer_list *list)
{
    const size_t before = list->next;
    for (; list->next < list->n && !list->broken; list->next++) {
        struct qyi_answer_item *item = &list->items[list->next];
        if (item->whole) {
            list->broken = fwrite(item->bytes, 1, item->total, list->out) != item->total;
        } else if (list->workers[list->next % list->n_workers].ended) {
            write_missing(list, list->next);
        } else {
            break;
        }
        free(item->bytes);
        item->bytes = NULL;
    }
    if (list->next > before) {
        list->broken |= fflush(list->out) != 0;
    }
    return list->broken;
}

/* ---- at the end ----------------------------------------------------------------------------------- */

static int is_missing(const struct qyi_answer_list *list, size_t i)
{
    return !list->items[i].whole && list->workers[i % list->n_workers].ended;
}

static size_t count_missing(const struct qyi_answer_list *list, uint32_t worker)
{
    size_t n = 0;
    for (size_t i = worker; i < list->n; i += list->n_workers) {
        n += is_missing(list, i) != 0;
    }
    return n;
}

static size_t count_all_missing(const struct qyi_answer_list *list)
{
    size_t n = 0;
    for (uint32_t i = 0; i < list->n_workers; i++) {
        n += count_missing(list, i);
    }
    return n;
}

/* "2, 4 (rank 1: gone)": text [bytes], used so far is returned. */
static size_t name_missing(const struct qyi_answer_list *list, uint32_t worker, int ranks,
                           char *text, size_t bytes, size_t used)
{
    const char *why =
        used > 0 && is_repeated(list, worker) ? "the same" : reason(&list->workers[worker]);
    size_t n = 0;
    for (size_t i = worker; i < list->n && used < bytes; i += list->n_workers) {
        if (is_missing(list, i) && n++ < NAMED) {
            const char *between = n > 1 ? ", " : used > 0 ? "; " : "";
            used += (size_t)snprintf(text + used, bytes - used, "%s%zu", between, i + 1);
        }
    }
    if (n > NAMED && used < bytes) {
        used += (size_t)snprintf(text + used, bytes - used, " and %zu more", n - NAMED);
    }
    if (used < bytes) {
        used += (size_t)(ranks ? snprintf(text + used, bytes - used, " (rank %u: %s)", worker, why)
                               : snprintf(text + used, bytes - used, " (%s)", why));
    }
    return used;
}

enum qy_status qyi_answer_list_missing(struct qyi_answer_list *list, int ranks,
                                       struct qy_error *err)
{
    char text[440] = "";
    size_t used = 0, n = 0;
    if (list->broken) {
        return qy_error_set(err, QY_ERR_NOT_FOUND, "stdout: writing failed; is the reader gone?");
    }
    for (uint32_t i = 0; i < list->n_workers; i++) {
        struct qyi_answer_worker *w = &list->workers[i];
        const size_t missing = w->ended && !w->named ? count_missing(list, i) : 0;
        w->named |= w->ended;
        n += missing;
        if (missing > 0 && used < sizeof text) {
            used = name_missing(list, i, ranks, text, sizeof text, used);
        }
    }
    return n == 0 ? QY_OK
                  : qy_error_set(err, QY_ERR_PEER, "%zu of %zu prompts have no answer: %s", n,
                                 list->n, text);
}

int qyi_answer_list_code(const struct qyi_answer_list *list)
{
    int code = list->broken || count_all_missing(list) > 0;
    for (uint32_t i = 0; i < list->n_workers; i++) {
        code = list->workers[i].code > code ? list->workers[i].code : code;
    }
    return code;
}

void qyi_answer_list_print(const struct qyi_answer_list *list, FILE *out)
{
    fprintf(out, "answered: %zu of %zu prompts in %.1f s\n", list->n - count_all_missing(list),
            list->n, (double)(qy_clock_ns() - list->start_ns) * 1e-9);
}
