/* SPDX-License-Identifier: Apache-2.0 */
/* quarry config: every setting with value, source, range and meaning. */
#include <string.h>

#include "serve/serve.h"

static void accepted(const struct qy_setting *s, char *out, size_t out_bytes)
{
    switch (s->type) {
    case QY_SETTING_BOOL:
        snprintf(out, out_bytes, "on|off");
        return;
    case QY_SETTING_CHOICE:
        snprintf(out, out_bytes, "%s", s->choices);
        return;
    case QY_SETTING_TEXT:
        snprintf(out, out_bytes, "text");
        return;
    case QY_SETTING_SIZE:
        if (s->max >= 1e18) {
            snprintf(out, out_bytes, "size%s", s->allow_auto ? "|auto" : "");
            return;
        }
        break;
    case QY_SETTING_INT:
    case QY_SETTING_REAL:
        break;
    }
    snprintf(out, out_bytes, "%.16g..%.16g%s%s%s", s->min, s->max, s->unit && s->unit[0] ? " " : "",
             s->unit ? s->unit : "", s->allow_auto ? "|auto" : "");
}

int qyi_cmd_config(struct qyi_app *app)
{
    struct qy_config_row row;
    char range[128];
    if (app->args->json) {
        cJSON *object = cJSON_CreateObject(), *rows = cJSON_AddArrayToObject(object, "settings");
        for (size_t i = 0; qy_config_row_at(app->config, i, &row); i++) {
            accepted(row.setting, range, sizeof range);
            cJSON *item = cJSON_CreateObject();
            cJSON_AddStringToObject(item, "name", row.setting->name);
            cJSON_AddStringToObject(item, "value", row.value);
            cJSON_AddStringToObject(item, "source", row.source);
            cJSON_AddStringToObject(item, "accepted", range);
            cJSON_AddStringToObject(item, "meaning", row.setting->help);
            cJSON_AddItemToArray(rows, item);
        }
        char hash[24];
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)qy_config_hash(app->config));
        cJSON_AddStringToObject(object, "hash", hash);
        return qyi_print_json(object);
    }
    printf(
        "# value, then where it comes from and what is accepted; a config file takes these "
        "lines\n");
    for (size_t i = 0; qy_config_row_at(app->config, i, &row); i++) {
        accepted(row.setting, range, sizeof range);
        printf("%-24s = %-12s # %s; %s; %s\n", row.setting->name, row.value, row.source, range,
               row.setting->help);
    }
    return fflush(stdout) != 0;
}
