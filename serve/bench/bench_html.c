/* SPDX-License-Identifier: Apache-2.0 */
/* The page of a run: tables of its result, and pictures, all inside of one file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench_page.h"

static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width\">\n<title>quarry bench decode</title>\n"
    "<style>\n"
    "body{font:15px/1.45 sans-serif;color:#222;max-width:960px;margin:2em auto;padding:0 1em}\n"
    "h1{font-size:1.4em}h2{font-size:1.1em;margin:2em 0 .5em}\n"
    "table{border-collapse:collapse}td,th{padding:.15em .8em .15em 0;text-align:left;"
    "border-bottom:1px solid #ddd}\n"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}\n"
    "div.bar{background:#4269d0;height:.8em}\n"
    "figure{margin:0 0 2em}figcaption{color:#555}svg{max-width:100%;height:auto}\n"
    "pre{white-space:pre-wrap;word-break:break-all;font-size:12px}\n"
    "</style>\n</head>\n<body>\n";

static void put_text(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        default:
            fputc(*text, out);
        }
    }
}

/* A number, text or truth as it stands in the JSON. */
static void put_value(FILE *out, const cJSON *item)
{
    if (cJSON_IsString(item)) {
        put_text(out, item->valuestring);
        return;
    }
    char *text = cJSON_PrintUnformatted(item);
    put_text(out, text != NULL ? text : "?");
    cJSON_free(text);
}

static int is_plain(const cJSON *item)
{
    return !cJSON_IsArray(item) && !cJSON_IsObject(item);
}

/* Names and values of what is no list; inner: of objects in it too, but for one. */
static void put_table(FILE *out, const cJSON *object, int inner)
{
    const cJSON *item, *part;
    fputs("<table>\n", out);
    cJSON_ArrayForEach(item, object)
    {
        if (is_plain(item)) {
            fprintf(out, "<tr><td>%s</td><td class=\"n\">", item->string);
            put_value(out, item);
            fputs("</td></tr>\n", out);
        } else if (inner && cJSON_IsObject(item) && strcmp(item->string, "stages_ms") != 0 &&
                   strcmp(item->string, "plan") != 0) {
            cJSON_ArrayForEach(part, item)
            {
                if (is_plain(part)) {
                    fprintf(out, "<tr><td>%s.%s</td><td class=\"n\">", item->string, part->string);
                    put_value(out, part);
                    fputs("</td></tr>\n", out);
                }
            }
        }
    }
    fputs("</table>\n", out);
}

/* Stages by their time; "kv" holds the cache's stages, which stand beside it. */
static void put_stages(FILE *out, const cJSON *stages)
{
    const cJSON *item;
    double most = 0;
    cJSON_ArrayForEach(item, stages)
    {
        if (strcmp(item->string, "kv") != 0 && item->valuedouble > most) {
            most = item->valuedouble;
        }
    }
    fputs("<table>\n<tr><th>stage</th><th>ms per step</th><th></th></tr>\n", out);
    cJSON_ArrayForEach(item, stages)
    {
        if (strcmp(item->string, "kv") == 0) {
            continue;
        }
        fprintf(out, "<tr><td>%s</td><td class=\"n\">", item->string);
        put_value(out, item);
        fprintf(out, "</td><td><div class=\"bar\" style=\"width:%.1fpx\"></div></td></tr>\n",
                most > 0 ? 400 * item->valuedouble / most : 0);
    }
    fputs("</table>\n", out);
}

/* Rows of one shape: a column for each name. */
static void put_rows(FILE *out, const cJSON *rows)
{
    const cJSON *row, *item;
    fputs("<table>\n<tr>", out);
    cJSON_ArrayForEach(item, cJSON_GetArrayItem(rows, 0))
    {
        fprintf(out, "<th>%s</th>", item->string);
    }
    fputs("</tr>\n", out);
    cJSON_ArrayForEach(row, rows)
    {
        fputs("<tr>", out);
        cJSON_ArrayForEach(item, row)
        {
            fputs("<td class=\"n\">", out);
            put_value(out, item);
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
    fputs("</table>\n", out);
}

/* The picture itself, from its <svg on: what stands before it is for files. */
static enum qy_status put_picture(FILE *out, const struct qyi_picture *picture,
                                  struct qy_error *err)
{
    char *data = NULL;
    size_t bytes = 0;
    const enum qy_status st = qyi_read_file(picture->path, &data, &bytes, err);
    const char *svg = st == QY_OK ? strstr(data, "<svg") : NULL;
    if (st == QY_OK && svg == NULL) {
        free(data);
        return qy_error_set(err, QY_ERR_CORRUPT, "report: picture '%s' is no SVG", picture->path);
    }
    if (st == QY_OK) {
        fprintf(out, "<figure>\n%s\n<figcaption>", svg);
        put_text(out, picture->caption);
        fputs("</figcaption>\n</figure>\n", out);
        free(data);
    }
    return st;
}

static void put_tables(FILE *out, const cJSON *result)
{
    const cJSON *plan = cJSON_GetObjectItemCaseSensitive(result, "plan");
    const cJSON *layers = cJSON_GetObjectItemCaseSensitive(result, "layers");
    char *whole = cJSON_PrintUnformatted(result);
    fputs("<h2>Stages</h2>\n", out);
    put_stages(out, cJSON_GetObjectItemCaseSensitive(result, "stages_ms"));
    fputs("<h2>Run</h2>\n", out);
    put_table(out, result, 1);
    if (cJSON_IsObject(plan)) {
        fputs("<h2>Plans: pull or push</h2>\n", out);
        put_table(out, plan, 0);
    }
    if (cJSON_GetArraySize(layers) > 0) {
        fputs("<h2>Layers</h2>\n", out);
        put_rows(out, layers);
    }
    fputs("<h2>All of it</h2>\n<details><summary>bench.json</summary>\n<pre>", out);
    put_text(out, whole != NULL ? whole : "");
    fputs("</pre></details>\n", out);
    cJSON_free(whole);
}

static void put_title(FILE *out, const cJSON *result)
{
    static const char *const names[] = {"policy", "batch", "context", "tokens_per_s", "step_ms"};
    static const char *const words[] = {"policy ", "batch ", "context ", "tokens/s ",
                                        "median step in ms "};
    fputs("<h1>quarry bench decode</h1>\n<p>", out);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        fprintf(out, "%s%s<b>", i > 0 ? ", " : "", words[i]);
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(result, names[i]);
        if (cJSON_IsNumber(item)) { /* the table has all of its digits */
            fprintf(out, "%.6g", item->valuedouble);
        } else {
            put_value(out, item);
        }
        fputs("</b>", out);
    }
    fputs("</p>\n", out);
}

enum qy_status qyi_html_write(const char *path, const cJSON *result,
                              const struct qyi_picture *pictures, size_t n, struct qy_error *err)
{
    FILE *out = fopen(path, "we");
    enum qy_status st = QY_OK;
    if (out == NULL) {
        return qy_error_set(err, QY_ERR_NOT_FOUND, "report file '%s': %s", path, strerror(errno));
    }
    fputs(head, out);
    put_title(out, result);
    for (size_t i = 0; st == QY_OK && i < n; i++) {
        st = put_picture(out, &pictures[i], err);
    }
    put_tables(out, result);
    fputs("</body>\n</html>\n", out);
    const int failed = ferror(out);
    if (((fclose(out) != 0) | failed) && st == QY_OK) {
        st = qy_error_set(err, QY_ERR_NOT_FOUND, "report file '%s': not written whole (%s)", path,
                          strerror(errno));
    }
    return st;
}
