/* SPDX-License-Identifier: Apache-2.0 */
/* What plans of a discrete device went by and came to, and what each layer asked for, as JSON. */
#include "serve/serve.h"

static void add_costs(const struct qy_cache_plan *plan, cJSON *object)
{
    const struct {
        const char *name;
        double ns;
    } costs[] = {{"link_byte_ns", plan->link_byte_ns},
                 {"link_copy_ns", plan->link_copy_ns},
                 {"link_row_ns", plan->link_row_ns},
                 {"push_ns", plan->push_ns},
                 {"push_row_ns", plan->push_row_ns},
                 {"pull_row_ns", plan->pull_row_ns},
                 {"reuse", plan->reuse},
                 {"far_row_ns", plan->far_row_ns},
                 {"far_push_ns", plan->far_push_ns},
                 {"far_push_row_ns", plan->far_push_row_ns},
                 {"pulls_estimated_ns", plan->pulls_ns},
                 {"pushes_estimated_ns", plan->pushes_ns}};
    for (size_t i = 0; i < sizeof costs / sizeof costs[0]; i++) {
        if (plan->measured) {
            cJSON_AddNumberToObject(object, costs[i].name, costs[i].ns);
        } else {
            cJSON_AddNullToObject(object, costs[i].name); /* only auto measures */
        }
    }
}

static void add_layers(const struct qy_cache *cache, uint32_t n_layers, cJSON *layers)
{
    for (uint32_t l = 0; l < n_layers; l++) {
        struct qy_layer_stats stats;
        cJSON *row = cJSON_CreateObject();
        qy_cache_layer_stats(cache, l, &stats);
        cJSON_AddNumberToObject(row, "layer", l);
        cJSON_AddNumberToObject(row, "rows_asked", (double)stats.rows_asked);
        cJSON_AddNumberToObject(row, "rows_found", (double)stats.rows_found);
        cJSON_AddNumberToObject(row, "rows_pulled", (double)stats.rows_pulled);
        cJSON_AddNumberToObject(row, "rows_pushed", (double)stats.rows_pushed);
        cJSON_AddNumberToObject(row, "pulled_bytes", (double)stats.pulled_bytes);
        cJSON_AddItemToArray(layers, row);
    }
}

void qyi_plan_json(const struct qy_cache *cache, uint32_t n_layers, cJSON *object)
{
    static const char *const modes[] = {
        [QY_PLAN_AUTO] = "auto", [QY_PLAN_PULL] = "pull", [QY_PLAN_PUSH] = "push"};
    struct qy_cache_plan plan;
    qy_cache_plan(cache, &plan);
    if (plan.plans == 0) { /* nothing was asked of a residency cache */
        cJSON_AddNullToObject(object, "plan");
        cJSON_AddArrayToObject(object, "layers");
        return;
    }
    cJSON *told = cJSON_AddObjectToObject(object, "plan");
    cJSON_AddStringToObject(told, "mode", modes[plan.mode]);
    cJSON_AddNumberToObject(told, "plans", (double)plan.plans);
    cJSON_AddNumberToObject(told, "items", (double)plan.items);
    cJSON_AddNumberToObject(told, "items_pulled", (double)plan.items_pulled);
    cJSON_AddNumberToObject(told, "items_pushed", (double)plan.items_pushed);
    cJSON_AddNumberToObject(told, "rows_pulled", (double)plan.rows_pulled);
    cJSON_AddNumberToObject(told, "rows_pushed", (double)plan.rows_pushed);
    cJSON_AddNumberToObject(told, "row_bytes", plan.row_bytes);
    add_costs(&plan, told);
    add_layers(cache, n_layers, cJSON_AddArrayToObject(object, "layers"));
}
