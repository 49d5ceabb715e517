/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings from the environment: QY_SECTION_NAME for section.name, and a row's own variable beside
 * it (QY_CPU). The only file of the libraries that looks at the environment. An empty variable
 * counts as unset. Variables that start with QY_TEST_ are the tests' own and are passed over.
 */
#include "runtime/config_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char prefix[] = "QY_";
static const char test_prefix[] = "QY_TEST_";

/* "cache.block_tokens" -> "QY_CACHE_BLOCK_TOKENS". */
static void variable_name(const struct qy_setting *setting, char out[QYI_NAME_BYTES])
{
    size_t used = (size_t)snprintf(out, QYI_NAME_BYTES, "%s", prefix);

    for (const char *p = setting->name; *p != '\0' && used + 1 < QYI_NAME_BYTES; p++) {
        out[used++] = *p == '.' ? '_' : (char)toupper((unsigned char)*p);
    }
    out[used] = '\0';
}

/* How a variable matches a row. */
enum match { MATCH_NONE, MATCH_ALIAS, MATCH_FULL };

static enum match match_row(const struct qy_setting *setting, const char *name)
{
    char full[QYI_NAME_BYTES];

    variable_name(setting, full);
    if (strcmp(full, name) == 0) {
        return MATCH_FULL;
    }
    return setting->env != NULL && strcmp(setting->env, name) == 0 ? MATCH_ALIAS : MATCH_NONE;
}

static enum qy_status unknown(const struct qy_config *config, const char *name,
                              struct qy_error *err)
{
    size_t best = qyi_near_enough(name) + 1;
    char full[QYI_NAME_BYTES], nearest[QYI_NAME_BYTES] = "";
    struct qyi_row row;

    for (size_t i = 0; qyi_config_row(config, i, &row); i++) {
        const char *candidates[2] = {full, row.setting->env};

        variable_name(row.setting, full);
        for (size_t c = 0; c < 2 && candidates[c] != NULL; c++) {
            size_t distance = qyi_edit_distance(name, candidates[c]);

            if (distance < best) {
                best = distance;
                snprintf(nearest, sizeof(nearest), "%s", candidates[c]);
            }
        }
    }
    if (nearest[0] == '\0') {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "environment variable '%.*s': no such setting; unset it ('quarry "
                            "config' lists the settings, QY_SECTION_NAME sets section.name)",
                            QYI_NAME_BYTES, name);
    }
    return qy_error_set(err, QY_ERR_CONFIG,
                        "environment variable '%.*s': no such setting; did you mean '%s'?",
                        QYI_NAME_BYTES, name, nearest);
}

/* Stores one variable where it matches as wanted. */
static enum qy_status read_variable(struct qy_config *config, const char *name, const char *value,
                                    enum match wanted, struct qy_error *err)
{
    struct qyi_row row;
    int known = 0;

    for (size_t i = 0; qyi_config_row(config, i, &row); i++) {
        enum match match = match_row(row.setting, name);

        known |= match != MATCH_NONE;
        if (match == wanted && value[0] != '\0') {
            enum qy_status st = qyi_config_store(&row, QY_SOURCE_ENV, value, name, err);

            if (st != QY_OK) {
                return st;
            }
        }
    }
    return known ? QY_OK : unknown(config, name, err);
}

/* Two rounds, because the order of the environment means nothing: where both are set, the full name
 * wins over the short one. */
enum qy_status qy_config_read_env(struct qy_config *config, struct qy_error *err)
{
    for (int wanted = MATCH_ALIAS; wanted <= MATCH_FULL; wanted++) {
        for (char **p = environ; p != NULL && *p != NULL; p++) {
            const char *equal = strchr(*p, '=');
            char name[2 * QYI_NAME_BYTES];
            enum qy_status st;

            if (equal == NULL || strncmp(*p, prefix, strlen(prefix)) != 0 ||
                strncmp(*p, test_prefix, strlen(test_prefix)) == 0) {
                continue;
            }
            snprintf(name, sizeof(name), "%.*s", (int)(equal - *p), *p);
            st = read_variable(config, name, equal + 1, (enum match)wanted, err);
            if (st != QY_OK) {
                return st;
            }
        }
    }
    return QY_OK;
}
