/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the wire over UCX: its records, all reserved at open, and regions that UCX knows. */
#include "net/ucx.h"

/* ---- records --------------------------------------------------------------------------------- */

void qyi_ucx_free_records(struct qyi_ucx *wire)
{
    const struct qy_allocator *mem = &wire->rt->mem;

    qy_free(mem, wire->conns);
    qy_free(mem, wire->receives);
    qy_free(mem, wire->map);
    qy_free(mem, wire->came);
    qy_free(mem, wire->held);
    qy_free(mem, wire->names.names);
    qy_free(mem, wire);
}

/* Who sends has `depth` messages under way; one that it counts as gone may still be on our lists: twice. */
static void link_records(struct qyi_ucx *wire)
{
    const size_t each = 2 * (size_t)wire->depth;

    for (uint32_t c = wire->max_conns; c-- > 0;) {
        struct qyi_ucx_conn *conn = &wire->conns[c];

        conn->wire = wire;
        for (size_t i = 0; i < each; i++) {
            struct qyi_ucx_receive *receive = &wire->receives[c * each + i];

            receive->conn = conn;
            receive->next = conn->free;
            conn->free = receive;
        }
        conn->next = wire->free;
        wire->free = conn;
    }
}

struct qyi_ucx *qyi_ucx_make_records(const struct qyi_wire_params *params)
{
    const struct qy_allocator *mem = &params->rt->mem;
    struct qyi_ucx *wire = qy_alloc_zero(mem, sizeof(*wire));

    if (wire == NULL) {
        return NULL;
    }
    wire->rt = params->rt;
    wire->sink = params->sink;
    wire->max_conns = params->max_conns;
    wire->depth = params->depth;
    wire->fd = -1;
    while ((1u << wire->map_bits) < 2 * params->max_conns) {
        wire->map_bits++;
    }
    wire->conns = qy_alloc_zero(mem, params->max_conns * sizeof(*wire->conns));
    wire->receives =
        qy_alloc_zero(mem, (size_t)params->max_conns * 2 * params->depth * sizeof(*wire->receives));
    wire->map = qy_alloc_zero(mem, ((size_t)1 << wire->map_bits) * sizeof(struct qyi_ucx_conn *));
    wire->came = qy_alloc_zero(mem, params->max_conns * sizeof(*wire->came));
    wire->held = qy_alloc_zero(mem, QYI_UCX_HELD * sizeof(*wire->held));
    wire->names.max = params->max_conns;
    wire->names.names = qy_alloc_zero(mem, params->max_conns * sizeof(*wire->names.names));
    if (wire->conns == NULL || wire->receives == NULL || wire->map == NULL || wire->came == NULL ||
        wire->held == NULL || wire->names.names == NULL) {
        qyi_ucx_free_records(wire);
        return NULL;
    }
    link_records(wire);
    return wire;
}

/* ---- registered memory ----------------------------------------------------------------------- */

enum qy_status qyi_ucx_remember(void *w, void *memory, size_t bytes, void **handle,
                                struct qy_error *err)
{
    struct qyi_ucx *wire = w;
    const ucp_mem_map_params_t params = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
                                                       UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                                                       UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE,
                                         .address = memory,
                                         .length = bytes,
                                         .memory_type = UCS_MEMORY_TYPE_HOST};
    ucp_mem_h mapped;
    ucs_status_t status;

    if (memory == NULL || bytes == 0) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "network transport: a region of no bytes refused; name memory");
    }
    status = ucp_mem_map(wire->context, &params, &mapped);
    if (status != UCS_OK) {
        return qyi_ucx_failed(err, "registering memory", status);
    }
    *handle = mapped;
    return QY_OK;
}

void qyi_ucx_forget(void *w, void *handle)
{
    struct qyi_ucx *wire = w;
    ucs_status_t status;

    if (handle == NULL) {
        return;
    }
    status = ucp_mem_unmap(wire->context, handle);
    if (status != UCS_OK) {
        qy_log_write(&wire->rt->log, QY_LOG_WARN, "net", "memory is still registered (%s)",
                     ucs_status_string(status));
    }
}
