/* SPDX-License-Identifier: Apache-2.0 */
/* quarry doctor: what the network is made of, and which of net.memory's servers are there. */
#include <string.h>

#include "serve/doctor/doctor.h"
#include "serve/memory/memory_link.h"

enum { MAX_TRANSPORTS = 64, LINE_BYTES = 512 };

/* ---- UCX --------------------------------------------------------------------------------------- */

/* One transport with all its devices, if no earlier entry has its name: "tcp (eth0, lo)". */
static size_t append_transport(char *line, size_t used, const struct qy_net_transport *list,
                               uint32_t n, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++) {
        if (strcmp(list[k].name, list[i].name) == 0) {
            return used;
        }
    }
    used += (size_t)snprintf(line + used, LINE_BYTES - used, "%s%s", used > 0 ? ", " : "",
                             list[i].name);
    for (uint32_t k = i, found = 0; list[i].is_network && k < n && used < LINE_BYTES; k++) {
        if (strcmp(list[k].name, list[i].name) == 0) {
            used += (size_t)snprintf(line + used, LINE_BYTES - used, "%s%s",
                                     found++ == 0 ? " (" : ", ", list[k].device);
        }
    }
    if (list[i].is_network && used < LINE_BYTES) {
        used += (size_t)snprintf(line + used, LINE_BYTES - used, ")");
    }
    return used < LINE_BYTES ? used : LINE_BYTES - 1;
}

/* Those that lead to other hosts, or the others. */
static void join(char *line, const struct qy_net_transport *list, uint32_t n, int is_network)
{
    size_t used = 0;
    line[0] = '\0';
    for (uint32_t i = 0; i < n; i++) {
        if (list[i].is_network == is_network) {
            used = append_transport(line, used, list, n, i);
        }
    }
}

static void report_transports(struct qyi_doctor *d, const struct qyi_app *app, cJSON *network)
{
    struct qy_net_transport list[MAX_TRANSPORTS];
    struct qy_error err = {0};
    char away[LINE_BYTES], here[LINE_BYTES], line[2 * LINE_BYTES];
    uint32_t n = 0;
    cJSON *array = cJSON_AddArrayToObject(network, "transports");
    if (qy_net_transports(&app->rt, list, MAX_TRANSPORTS, &n, &err) != QY_OK) {
        qyi_doctor_line(d, "network", err.text);
        qyi_doctor_warn(d, err.text);
        return;
    }
    n = n < MAX_TRANSPORTS ? n : MAX_TRANSPORTS;
    for (uint32_t i = 0; i < n; i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", list[i].name);
        cJSON_AddStringToObject(item, "device", list[i].device);
        cJSON_AddBoolToObject(item, "network", list[i].is_network);
        cJSON_AddItemToArray(array, item);
    }
    join(away, list, n, 1);
    join(here, list, n, 0);
    snprintf(line, sizeof line, "UCX %s; to other hosts: %s; within this one: %s",
             qy_net_ucx_version(), away[0] != '\0' ? away : "none",
             here[0] != '\0' ? here : "none");
    qyi_doctor_line(d, "network", line);
    if (away[0] == '\0') {
        qyi_doctor_warn(d,
                        "UCX finds no network device: no memory server can be reached; set one up "
                        "(ip link), or look at UCX_NET_DEVICES and UCX_TLS");
    }
}

static void report_settings(struct qyi_doctor *d, const struct qyi_app *app, cJSON *network)
{
    struct qy_net_setting setting;
    cJSON *array = cJSON_AddArrayToObject(network, "settings");
    for (size_t i = 0; qy_net_setting_at(i, &setting); i++) {
        char line[LINE_BYTES];
        if (strcmp(setting.variable, "UCX_NET_DEVICES") == 0 && !setting.by_user) {
            setting.value = app->net.device; /* what a node would ask for */
        }
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", setting.variable);
        qyi_json_add_text(item, "value", setting.value);
        cJSON_AddBoolToObject(item, "by_user", setting.by_user);
        cJSON_AddStringToObject(item, "why", setting.why);
        cJSON_AddItemToArray(array, item);
        if (setting.by_user) {
            snprintf(line, sizeof line, "%s=%s from the environment; left out: %s",
                     setting.variable, setting.value, setting.why);
        } else {
            snprintf(line, sizeof line, "%s%s%s: %s", setting.variable,
                     setting.value[0] != '\0' ? "=" : " as UCX has it", setting.value, setting.why);
        }
        qyi_doctor_line(d, "  setting", line);
    }
}

/* ---- memory servers ---------------------------------------------------------------------------- */

/* The least of a few: a trip that was held up says little of the network. */
static enum qy_status ask(struct qyi_memory_link *link, uint32_t i, struct qy_memory_state *state,
                          struct qy_error *err)
{
    enum { TRIPS = 9 };
    uint64_t least = UINT64_MAX;
    for (int trip = 0; trip < TRIPS; trip++) {
        const enum qy_status st = qy_memory_ask_state(link->node, link->peers[i], state, err);
        if (st != QY_OK) {
            return st;
        }
        least = state->took_ns < least ? state->took_ns : least;
    }
    state->took_ns = least;
    return QY_OK;
}

static void report_state(struct qyi_doctor *d, const char *address,
                         const struct qy_memory_state *state, cJSON *item)
{
    char line[LINE_BYTES], bytes[32], each[32], room[64] = "no worker has been there yet";
    if (state->total_blocks > 0) {
        snprintf(room, sizeof room, "%u of %u blocks of %s free", state->free_blocks,
                 state->total_blocks, qy_format_size(state->block_bytes, each, sizeof each));
    }
    snprintf(line, sizeof line,
             "%s: protocol %u, round trip %.1f us, %s for blocks, %s, %u sessions%s", address,
             state->protocol, (double)state->took_ns * 1e-3,
             qy_format_size(state->bytes, bytes, sizeof bytes), room, state->sessions,
             state->draining ? "; is about to end" : "");
    qyi_doctor_line(d, "memory server", line);
    cJSON_AddNumberToObject(item, "protocol", state->protocol);
    cJSON_AddNumberToObject(item, "round_trip_us", (double)state->took_ns * 1e-3);
    cJSON_AddNumberToObject(item, "bytes", (double)state->bytes);
    cJSON_AddNumberToObject(item, "block_bytes", (double)state->block_bytes);
    cJSON_AddNumberToObject(item, "blocks", state->total_blocks);
    cJSON_AddNumberToObject(item, "free_blocks", state->free_blocks);
    cJSON_AddNumberToObject(item, "sessions", state->sessions);
    cJSON_AddBoolToObject(item, "draining", state->draining);
    if (state->draining) {
        snprintf(line, sizeof line,
                 "memory server %s is about to end and takes no block; leave it out of net.memory",
                 address);
        qyi_doctor_warn(d, line);
    } else if (state->total_blocks > 0 && state->free_blocks == 0) {
        snprintf(line, sizeof line,
                 "memory server %s is full; give it more bytes, or name more servers in net.memory",
                 address);
        qyi_doctor_warn(d, line);
    }
}

/* until_ns: all servers have had time enough by then. */
static void report_server(struct qyi_doctor *d, struct qyi_memory_link *link, uint32_t i,
                          uint64_t until_ns, cJSON *array)
{
    const char *address = qy_peer_name(link->peers[i]);
    const uint64_t now = qy_node_now(link->node);
    struct qy_memory_state state;
    struct qy_error err = {0};
    enum qy_status st = qy_peer_wait(link->peers[i], until_ns > now ? until_ns - now : 0, &err);
    cJSON *item = cJSON_CreateObject();
    cJSON_AddItemToArray(array, item);
    qyi_json_add_text(item, "address", address);
    if (st == QY_OK) {
        st = ask(link, i, &state, &err);
    }
    cJSON_AddBoolToObject(item, "reachable", st == QY_OK);
    if (st == QY_OK) {
        report_state(d, address, &state, item);
        return;
    }
    qyi_json_add_text(item, "error", err.text);
    qyi_doctor_line(d, "memory server", err.text);
    qyi_doctor_warn(d, err.text);
}

static void report_servers(struct qyi_doctor *d, const struct qyi_app *app, cJSON *network)
{
    struct qyi_memory_link link;
    struct qy_error err = {0};
    cJSON *array = cJSON_AddArrayToObject(network, "servers");
    if (!qyi_memory_link_wanted(app)) {
        qyi_doctor_line(d, "memory server", "none: net.memory is empty");
        return;
    }
    if (qyi_memory_link_open(app, &link, &err) != QY_OK) {
        qyi_doctor_line(d, "memory server", err.text);
        qyi_doctor_warn(d, err.text);
        return;
    }
    /* chosen: three times the time-out, after which a worker gives a server up */
    const uint64_t until = qy_node_now(link.node) + 3 * link.servers.timeout_ns;
    for (uint32_t i = 0; i < link.servers.n; i++) {
        report_server(d, &link, i, until, array);
    }
    qyi_memory_link_close(&link);
}

void qyi_doctor_network(struct qyi_doctor *d, const struct qyi_app *app)
{
    cJSON *network = cJSON_AddObjectToObject(d->root, "network");
    if (qy_net_ucx_version() != NULL) {
        cJSON_AddStringToObject(network, "ucx", qy_net_ucx_version());
        report_transports(d, app, network);
    } else {
        cJSON_AddNullToObject(network, "ucx");
        cJSON_AddArrayToObject(network, "transports");
        qyi_doctor_line(d, "network", "none: this build has no UCX, and so no memory servers");
    }
    report_settings(d, app, network);
    report_servers(d, app, network);
}
