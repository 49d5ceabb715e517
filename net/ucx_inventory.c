/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What UCX finds on this host. It is asked of UCX's lower layer, which lists transports and their devices
 * without opening a connection over one.
 */
#include "net/ucx.h"

#include <stdio.h>
#include <uct/api/uct.h>

/* Transports, as they are found. */
struct finds {
    struct qy_net_transport *list;
    uint32_t max, n;
};

const char *qy_net_ucx_version(void)
{
    return ucp_get_version_string();
}

static void note(struct finds *finds, const uct_tl_resource_desc_t *found)
{
    const uint32_t at = finds->n++;

    if (at >= finds->max) {
        return;
    }
    struct qy_net_transport *to = &finds->list[at];
    snprintf(to->name, sizeof(to->name), "%s", found->tl_name);
    snprintf(to->device, sizeof(to->device), "%s", found->dev_name);
    to->is_network = found->dev_type == UCT_DEVICE_TYPE_NET;
}

/* Of one memory domain; one that cannot be opened has none that are usable. */
static void list_domain(struct finds *finds, uct_component_h component, const char *domain)
{
    uct_md_config_t *config = NULL;
    uct_md_h md = NULL;
    uct_tl_resource_desc_t *found = NULL;
    unsigned n = 0;

    if (uct_md_config_read(component, NULL, NULL, &config) != UCS_OK) {
        return;
    }
    if (uct_md_open(component, domain, config, &md) == UCS_OK) {
        if (uct_md_query_tl_resources(md, &found, &n) == UCS_OK) {
            for (unsigned i = 0; i < n; i++) {
                note(finds, &found[i]);
            }
            uct_release_tl_resource_list(found);
        }
        uct_md_close(md);
    }
    uct_config_release(config);
}

static enum qy_status list_component(const struct qy_runtime *rt, struct finds *finds,
                                     uct_component_h component, struct qy_error *err)
{
    uct_component_attr_t attr = {.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCE_COUNT};

    if (uct_component_query(component, &attr) != UCS_OK || attr.md_resource_count == 0) {
        return QY_OK;
    }
    uct_md_resource_desc_t *domains =
        qy_alloc_zero(&rt->mem, attr.md_resource_count * sizeof(*domains));
    if (domains == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "transports: out of memory for their list");
    }
    attr.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCES;
    attr.md_resources = domains;
    if (uct_component_query(component, &attr) == UCS_OK) {
        for (unsigned i = 0; i < attr.md_resource_count; i++) {
            list_domain(finds, component, domains[i].md_name);
        }
    }
    qy_free(&rt->mem, domains);
    return QY_OK;
}

enum qy_status qy_net_transports(const struct qy_runtime *rt, struct qy_net_transport *list,
                                 uint32_t max, uint32_t *n, struct qy_error *err)
{
    struct finds finds = {.list = list, .max = max};
    ucp_config_t *config = NULL;
    uct_component_h *components = NULL;
    unsigned count = 0;
    enum qy_status st = qyi_ucx_config(rt, "", &config, err);

    if (st != QY_OK) {
        return st;
    }
    ucp_config_release(config);
    const ucs_status_t status = uct_query_components(&components, &count);
    if (status != UCS_OK) {
        return qyi_ucx_failed(err, "its list of transports", status);
    }
    for (unsigned i = 0; st == QY_OK && i < count; i++) {
        st = list_component(rt, &finds, components[i], err);
    }
    uct_release_component_list(components);
    if (st == QY_OK) {
        *n = finds.n;
    }
    return st;
}
