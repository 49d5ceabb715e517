/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The settings of all modules behind one interface: rows in, values out, the strongest source wins.
 * Files are read by config_file.c and the environment by config_env.c; both end in
 * qyi_config_store. Modules never see text: they read the struct that their table fills.
 */
#include "runtime/config_internal.h"

#include <stdio.h>
#include <string.h>

int qyi_config_row(const struct qy_config *config, size_t i, struct qyi_row *row)
{
    size_t in_table = i;

    for (size_t t = 0; t < config->n_tables; t++) {
        const struct qy_setting_table *table = &config->tables[t];

        if (in_table < table->n_rows) {
            row->setting = &table->rows[in_table];
            row->value = (char *)table->values + row->setting->offset;
            row->entry = &config->entries[i];
            return 1;
        }
        in_table -= table->n_rows;
    }
    return 0;
}

static int find_row(const struct qy_config *config, const char *name, struct qyi_row *row)
{
    for (size_t i = 0; qyi_config_row(config, i, row); i++) {
        if (strcmp(row->setting->name, name) == 0) {
            return 1;
        }
    }
    return 0;
}

int qyi_config_has(const struct qy_config *config, const char *name)
{
    struct qyi_row row;

    return find_row(config, name, &row);
}

enum qy_status qyi_config_store(const struct qyi_row *row, enum qy_source source, const char *text,
                                const char *where, struct qy_error *err)
{
    union {
        int choice;
        int64_t number;
        uint64_t size;
        double real;
        char text[QY_SETTING_TEXT_BYTES];
    } unused; /* a weaker source is checked all the same */
    int keep = source >= row->entry->source;
    char accepted[200];

    if (qyi_value_parse(row->setting, text, keep ? row->value : &unused) != 0) {
        return qy_error_set(err, QY_ERR_CONFIG, "setting '%s' (%s): value '%.64s' refused; %s",
                            row->setting->name, where, text,
                            qyi_value_accepted(row->setting, accepted, sizeof(accepted)));
    }
    if (keep) {
        row->entry->source = source;
        snprintf(row->entry->where, sizeof(row->entry->where), "%s", where);
    }
    return QY_OK;
}

/* The row whose name, or whose name without the section, is nearest to the word. */
static const char *nearest_row(const struct qy_config *config, const char *word)
{
    size_t best = qyi_near_enough(word) + 1;
    const char *nearest = NULL;
    struct qyi_row row;

    for (size_t i = 0; qyi_config_row(config, i, &row); i++) {
        const char *dot = strchr(row.setting->name, '.');
        size_t distance = qyi_edit_distance(word, row.setting->name);

        if (dot != NULL && strchr(word, '.') == NULL) {
            size_t without = qyi_edit_distance(word, dot + 1);

            distance = without < distance ? without : distance;
        }
        if (distance < best) {
            best = distance;
            nearest = row.setting->name;
        }
    }
    return nearest;
}

enum qy_status qyi_config_store_named(struct qy_config *config, enum qy_source source,
                                      const char *name, const char *text, const char *where,
                                      struct qy_error *err)
{
    struct qyi_row row;
    const char *nearest;

    if (find_row(config, name, &row)) {
        return qyi_config_store(&row, source, text, where, err);
    }
    nearest = nearest_row(config, name);
    if (nearest == NULL) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "setting '%.*s' (%s): no such setting; 'quarry config' lists them",
                            QYI_NAME_BYTES, name, where);
    }
    return qy_error_set(err, QY_ERR_CONFIG,
                        "setting '%.*s' (%s): no such setting; did you mean '%s'?", QYI_NAME_BYTES,
                        name, where, nearest);
}

static enum qy_status store_defaults(struct qy_config *config, struct qy_error *err)
{
    struct qyi_row row;

    for (size_t i = 0; qyi_config_row(config, i, &row); i++) {
        enum qy_status st =
            qyi_config_store(&row, QY_SOURCE_DEFAULT, row.setting->initial, "default", err);

        if (st != QY_OK) { /* a fault of the table, not of the user */
            return err == NULL ? QY_ERR_INVALID : (err->status = QY_ERR_INVALID);
        }
    }
    return QY_OK;
}

enum qy_status qy_config_open(const struct qy_allocator *mem, const struct qy_setting_table *tables,
                              size_t n_tables, struct qy_config **out, struct qy_error *err)
{
    struct qy_config *config = qy_alloc_zero(mem, sizeof(*config));
    enum qy_status st = QY_ERR_NOMEM;

    if (config == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "settings: no memory");
    }
    config->mem = *mem;
    config->n_tables = n_tables;
    for (size_t t = 0; t < n_tables; t++) {
        config->n_rows += tables[t].n_rows;
    }
    config->tables = qy_alloc_zero(mem, n_tables * sizeof(*tables));
    config->entries = qy_alloc_zero(mem, config->n_rows * sizeof(*config->entries));
    if (config->tables == NULL || config->entries == NULL) {
        qy_error_set(err, QY_ERR_NOMEM, "settings: no memory for %zu of them", config->n_rows);
        goto err_close;
    }
    memcpy(config->tables, tables, n_tables * sizeof(*tables));
    st = store_defaults(config, err);
    if (st != QY_OK) {
        goto err_close;
    }
    *out = config;
    return QY_OK;

err_close:
    qy_config_close(config);
    return st;
}

void qy_config_close(struct qy_config *config)
{
    if (config != NULL) {
        struct qy_allocator mem = config->mem;

        qy_free(&mem, config->entries);
        qy_free(&mem, config->tables);
        qy_free(&mem, config);
    }
}

enum qy_status qy_config_set_value(struct qy_config *config, const char *name, const char *value,
                                   const char *where, struct qy_error *err)
{
    return qyi_config_store_named(config, QY_SOURCE_COMMAND, name, value, where, err);
}

enum qy_status qy_config_set(struct qy_config *config, const char *assignment, const char *where,
                             struct qy_error *err)
{
    const char *equal = strchr(assignment, '=');
    char name[QYI_NAME_BYTES], value[2 * QY_SETTING_TEXT_BYTES];

    if (equal == NULL || !qyi_trim(assignment, (size_t)(equal - assignment), name, sizeof(name)) ||
        !qyi_trim(equal + 1, strlen(equal + 1), value, sizeof(value)) || name[0] == '\0') {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "setting '%.64s' (%s): section.name=value is accepted, at most %d "
                            "bytes of value",
                            assignment, where, QY_SETTING_TEXT_BYTES - 1);
    }
    return qy_config_set_value(config, name, value, where, err);
}

int qy_config_row_at(const struct qy_config *config, size_t i, struct qy_config_row *out)
{
    struct qyi_row row;

    if (!qyi_config_row(config, i, &row)) {
        return 0;
    }
    out->setting = row.setting;
    qyi_value_format(row.setting, row.value, out->value, sizeof(out->value));
    snprintf(out->source, sizeof(out->source), "%s", row.entry->where);
    return 1;
}

uint64_t qy_config_hash(const struct qy_config *config)
{
    struct qy_config_row row;
    uint64_t hash = 0;

    for (size_t i = 0; qy_config_row_at(config, i, &row); i++) {
        /* with the closing zeros, so that "ab" "c" and "a" "bc" differ */
        hash = qy_checksum(row.setting->name, strlen(row.setting->name) + 1, hash);
        hash = qy_checksum(row.value, strlen(row.value) + 1, hash);
    }
    return hash;
}
