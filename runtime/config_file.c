/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings from a file, split into section, name and value by inih. inih is handed one clean line
 * at a time, since left alone it joins indented lines to the value before them, cuts long lines
 * without a word and does not tell the handler the line: here a line is a line.
 */
#include "runtime/config_internal.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct qy_config *config;
    const char *path;
    FILE *file;
    char *line; /* getline's */
    size_t line_bytes;
    int number;      /* of the line that inih is looking at         */
    int failed_line; /* of the first error; 0 = none                */
    enum qy_status status;
    struct qy_error *err;
};

static void format_where(const struct reader *reader, int number, char *out, size_t bytes)
{
    /* the end of a long path tells more than its start */
    size_t n = strlen(reader->path), most = bytes - 24;
    const char *path = n > most ? reader->path + (n - most) : reader->path;

    snprintf(out, bytes, "file %s:%d", path, number);
}

static void fail_line(struct reader *reader, int number, const char *what)
{
    char where[QY_SETTING_TEXT_BYTES];

    format_where(reader, number, where, sizeof(where));
    reader->failed_line = number;
    reader->status = qy_error_set(reader->err, QY_ERR_CONFIG,
                                  "%s: %s; 'section.name = value' and '[section]' lines are "
                                  "accepted, and comments after '#' or ';'",
                                  where, what);
}

/* Cuts a comment: '#' or ';' at the start of the line or after white space. */
static size_t cut_comment(const char *line, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((line[i] == '#' || line[i] == ';') &&
            (i == 0 || line[i - 1] == ' ' || line[i - 1] == '\t')) {
            return i;
        }
    }
    return n;
}

/* Gives inih the next line, trimmed; the end of the file after an error. */
static char *next_line(char *out, int bytes, void *stream)
{
    struct reader *reader = stream;
    ssize_t n =
        reader->failed_line != 0 ? -1 : getline(&reader->line, &reader->line_bytes, reader->file);
    const char *text = reader->line;
    size_t length;

    if (n < 0) {
        return NULL;
    }
    reader->number++;
    length = (size_t)n;
    if (reader->number == 1 && length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3; /* a byte order mark, which some editors leave */
        length -= 3;
    }
    if (memchr(text, '\0', length) != NULL) {
        fail_line(reader, reader->number, "the line holds a zero byte");
        return NULL;
    }
    if (!qyi_trim(text, cut_comment(text, length), out, (size_t)bytes - 1)) {
        fail_line(reader, reader->number, "the line is too long");
        return NULL;
    }
    length = strlen(out);
    out[length] = '\n'; /* room for it was kept; inih takes a line without it as cut */
    out[length + 1] = '\0';
    return out;
}

/* Inside [section], "name" and "section.name" both work, and so does another section's full name.
 */
static int on_value(void *user, const char *section, const char *name, const char *value)
{
    struct reader *reader = user;
    char full[2 * QYI_NAME_BYTES], where[QY_SETTING_TEXT_BYTES];
    enum qy_status st;

    if (reader->failed_line != 0) {
        return 0;
    }
    snprintf(full, sizeof(full), "%s%s%s", section, section[0] == '\0' ? "" : ".", name);
    if (!qyi_config_has(reader->config, full) && strchr(name, '.') != NULL) {
        snprintf(full, sizeof(full), "%s", name);
    }
    format_where(reader, reader->number, where, sizeof(where));
    st = qyi_config_store_named(reader->config, QY_SOURCE_FILE, full, value == NULL ? "" : value,
                                where, reader->err);
    if (st != QY_OK) {
        reader->failed_line = reader->number;
        reader->status = st;
    }
    return st == QY_OK;
}

enum qy_status qy_config_read_file(struct qy_config *config, const char *path, struct qy_error *err)
{
    struct reader reader = {.config = config, .path = path, .err = err, .status = QY_OK};
    int rc, read_errno;

    reader.file = fopen(path, "re");
    if (reader.file == NULL) {
        return qy_error_set(err, QY_ERR_NOT_FOUND, "settings file '%s': cannot be read (%s)", path,
                            strerror(errno));
    }
    rc = ini_parse_stream(next_line, &reader, on_value, &reader);
    read_errno = ferror(reader.file) ? EIO : 0;
    free(reader.line);
    fclose(reader.file);
    if (read_errno != 0 && reader.failed_line == 0) {
        return qy_error_set(err, QY_ERR_NOT_FOUND, "settings file '%s': reading it failed (%s)",
                            path, strerror(read_errno));
    }
    /* inih goes on after a line it cannot split; the first error is the one to name. */
    if (rc != 0 && (reader.failed_line == 0 || rc < reader.failed_line)) {
        fail_line(&reader, rc > 0 ? rc : reader.number, "this is no setting");
    }
    return reader.status;
}
