/* SPDX-License-Identifier: Apache-2.0 */
/* Private to runtime/: what the files of the configuration share. */
#ifndef QY_RUNTIME_CONFIG_INTERNAL_H
#define QY_RUNTIME_CONFIG_INTERNAL_H

#include "runtime/runtime.h"

/* Longest setting name, with room to spare; longer words are unknown settings. */
enum { QYI_NAME_BYTES = 128 };

/* Where the value of one row came from. */
struct qyi_entry {
    enum qy_source source;
    char where[QY_SETTING_TEXT_BYTES];
};

struct qy_config {
    struct qy_allocator mem;
    struct qy_setting_table *tables; /* [n_tables] */
    size_t n_tables, n_rows;
    struct qyi_entry *entries; /* [n_rows], in table order */
};

/* One row with everything that belongs to it. */
struct qyi_row {
    const struct qy_setting *setting;
    void *value; /* in the module's struct */
    struct qyi_entry *entry;
};

/* Row i in table order. Returns 0 when i is past the end. */
int qyi_config_row(const struct qy_config *config, size_t i, struct qyi_row *row);

/* Parses text for the row and keeps it unless a stronger source has set the row. A bad value is an
 * error even where it would not be kept. where names the source in errors and in `source`. */
enum qy_status qyi_config_store(const struct qyi_row *row, enum qy_source source, const char *text,
                                const char *where, struct qy_error *err);

/* Finds the row called name and stores text; an unknown name is an error with the nearest one. */
enum qy_status qyi_config_store_named(struct qy_config *config, enum qy_source source,
                                      const char *name, const char *text, const char *where,
                                      struct qy_error *err);

/* Returns 1 when there is a row called name. */
int qyi_config_has(const struct qy_config *config, const char *name);

/* Parses text as the setting's type and range into value. Returns 0, or -1 when it is refused. */
int qyi_value_parse(const struct qy_setting *setting, const char *text, void *value);
/* The value as text that qyi_value_parse takes. Returns out. */
char *qyi_value_format(const struct qy_setting *setting, const void *value, char *out,
                       size_t bytes);
/* What the setting accepts, in words: "whole numbers 0 to 256 are accepted". Returns out. */
char *qyi_value_accepted(const struct qy_setting *setting, char *out, size_t bytes);

/* Copies text without the white space around it. Returns 0 when it does not fit. */
int qyi_trim(const char *text, size_t length, char *out, size_t bytes);

/* Edit distance (insert, delete, replace, each 1). Words over QYI_NAME_BYTES: SIZE_MAX. */
size_t qyi_edit_distance(const char *a, const char *b);
/* The largest distance at which a candidate is still worth naming. */
size_t qyi_near_enough(const char *word);

#endif
