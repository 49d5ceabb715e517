/* SPDX-License-Identifier: Apache-2.0 */
/* What quarry doctor found of its ranks: lines and a table for people, and the same as JSON. */
#include <string.h>

#include "serve/doctor/doctor_ranks.h"

/* chosen: what a wide terminal has room for; of more ranks the extremes are told, and --json has all */
enum { TABLE_RANKS = 16, LINE_BYTES = 640 };

static const struct qyi_doctor_link *link_of(const struct qyi_doctor_ranks *all, int from, int to)
{
    return &all->links[(size_t)from * (size_t)all->count + (size_t)to];
}

/* ---- ranks --------------------------------------------------------------------------------------- */

static void rank_json(const struct qyi_doctor_ranks *all, int i, cJSON *array)
{
    const struct qyi_job_rank *rank = &all->ranks[i];
    const struct qyi_doctor_facts *facts = &all->facts[i];
    char sum[24];
    cJSON *item = cJSON_CreateObject();
    cJSON_AddNumberToObject(item, "rank", i);
    qyi_json_add_text(item, "host", rank->host_name);
    qyi_json_add_text(item, "address", facts->address);
    qyi_json_add_text(item, "version", rank->version);
    snprintf(sum, sizeof sum, "%016llx", (unsigned long long)rank->build);
    cJSON_AddStringToObject(item, "program", sum);
    cJSON_AddBoolToObject(item, "same_program", rank->build == all->ranks[0].build);
    cJSON_AddBoolToObject(item, "same_settings", rank->settings == all->ranks[0].settings);
    qyi_json_add_text(item, "ucx", facts->ucx);
    qyi_json_add_text(item, "transports", facts->transports);
    qyi_json_add_text(item, "devices", facts->devices);
    cJSON_AddNumberToObject(item, "usable_bytes", (double)facts->usable_bytes);
    const struct {
        const char *name;
        uint64_t sum;
    } files[] = {{"model", facts->model}, {"codebook", facts->codebook}};
    for (size_t k = 0; k < sizeof files / sizeof files[0]; k++) {
        snprintf(sum, sizeof sum, "%016llx", (unsigned long long)files[k].sum);
        if (files[k].sum != 0) {
            cJSON_AddStringToObject(item, files[k].name, sum);
        } else {
            cJSON_AddNullToObject(item, files[k].name);
        }
    }
    qyi_json_add_text(item, "error", facts->failed);
    cJSON_AddItemToArray(array, item);
}

static void rank_line(struct qyi_doctor *d, const struct qyi_doctor_ranks *all, int i)
{
    const struct qyi_doctor_facts *facts = &all->facts[i];
    char what[32], line[LINE_BYTES], size[32];
    snprintf(what, sizeof what, "  rank %d", i);
    if (facts->address[0] == '\0') {
        snprintf(line, sizeof line, "%s, cannot be reached: %s", all->ranks[i].host_name,
                 facts->failed);
        qyi_doctor_line(d, what, line);
        snprintf(line, sizeof line, "rank %d on host '%s' has no network: %s", i,
                 all->ranks[i].host_name, facts->failed);
        qyi_doctor_warn(d, line);
        return;
    }
    snprintf(line, sizeof line, "%s, %s, %s%s%s, %s free", all->ranks[i].host_name, facts->address,
             facts->transports, facts->devices[0] != '\0' ? " over " : "", facts->devices,
             qy_format_size(facts->usable_bytes, size, sizeof size));
    qyi_doctor_line(d, what, line);
}

/* The first rank whose file is another one than that of an earlier rank; 0: there is none. sum_at: of a checksum in
 * struct qyi_doctor_facts. */
static int other_file(const struct qyi_doctor_ranks *all, size_t sum_at, int *beside)
{
    uint64_t first = 0;
    for (int i = 0; i < all->count; i++) {
        uint64_t sum;
        memcpy(&sum, (const char *)&all->facts[i] + sum_at, sizeof sum);
        if (first == 0) {
            first = sum;
            *beside = i;
        } else if (sum != 0 && sum != first) {
            return i;
        }
    }
    return 0;
}

/* The same of a text, beside rank 0. */
static int other_text(const struct qyi_doctor_ranks *all, size_t text_at)
{
    for (int i = 1; i < all->count; i++) {
        if (strcmp((const char *)&all->facts[i] + text_at,
                   (const char *)&all->facts[0] + text_at) != 0) {
            return i;
        }
    }
    return 0;
}

/* What of the ranks should be the same, and is not: one warning each. */
static void warn_of_differences(struct qyi_doctor *d, const struct qyi_doctor_ranks *all)
{
    enum { UCX, TRANSPORTS, MODEL, CODEBOOK, KINDS };
    static const char *const what[KINDS][2] = {
        {"UCX is another version", "install the same one on every host"},
        {"UCX_TLS has another value", "set it alike on all hosts, or nowhere"},
        {"model.file is another model", "give all ranks that have one the same"},
        {"retrieval.codebook is another codebook", "give all ranks that have one the same"}};
    int ranks[KINDS], beside[KINDS] = {0};
    char line[LINE_BYTES];
    ranks[UCX] = other_text(all, offsetof(struct qyi_doctor_facts, ucx));
    ranks[TRANSPORTS] = other_text(all, offsetof(struct qyi_doctor_facts, transports));
    ranks[MODEL] = other_file(all, offsetof(struct qyi_doctor_facts, model), &beside[MODEL]);
    ranks[CODEBOOK] =
        other_file(all, offsetof(struct qyi_doctor_facts, codebook), &beside[CODEBOOK]);
    if (all->differ.status != QY_OK) {
        qyi_doctor_warn(d, all->differ.text);
    }
    for (int i = 0; i < KINDS; i++) {
        if (ranks[i] != 0) {
            snprintf(line, sizeof line, "rank %d: %s than on rank %d; %s", ranks[i], what[i][0],
                     beside[i], what[i][1]);
            qyi_doctor_warn(d, line);
        }
    }
}

/* ---- links --------------------------------------------------------------------------------------- */

static void link_json(const struct qyi_doctor_ranks *all, int from, int to, cJSON *array)
{
    const struct qyi_doctor_link *link = link_of(all, from, to);
    cJSON *item = cJSON_CreateObject();
    cJSON_AddNumberToObject(item, "from", from);
    cJSON_AddNumberToObject(item, "to", to);
    cJSON_AddBoolToObject(item, "reachable", link->status == QY_OK);
    if (link->status == QY_OK) {
        cJSON_AddNumberToObject(item, "round_trip_us", (double)link->round_trip_ns * 1e-3);
        cJSON_AddNumberToObject(item, "gbps", link->gbps);
    } else {
        qyi_json_add_text(item, "error", link->why);
    }
    cJSON_AddItemToArray(array, item);
}

/* Whether nobody reaches this rank: then that is said once. */
static int is_unreached(const struct qyi_doctor_ranks *all, int to)
{
    int tried = 0;
    for (int from = 0; from < all->count; from++) {
        if (from != to && link_of(all, from, to)->status == QY_OK) {
            return 0;
        }
        tried += from != to;
    }
    return tried > 1;
}

/* from -1: no rank reaches it, for the reason that rank `asked` had. */
static void warn_of_link(struct qyi_doctor *d, const struct qyi_doctor_ranks *all, int from,
                         int asked, int to)
{
    const struct qyi_doctor_link *link = link_of(all, asked, to);
    char line[2 * LINE_BYTES], who[128] = "no rank reaches";
    if (link->status == QY_PENDING) {
        snprintf(line, sizeof line, "whether rank %d reaches rank %d was not tried: interrupted",
                 asked, to);
        qyi_doctor_warn(d, line);
        return;
    }
    if (from >= 0) {
        snprintf(who, sizeof who, "rank %d on host '%s' does not reach", from,
                 all->ranks[from].host_name);
    }
    snprintf(line, sizeof line,
             "%s rank %d on host '%s': %s; see that net.device, or UCX_NET_DEVICES, names the "
             "interface that leads there on both hosts, and that no firewall closes that port",
             who, to, all->ranks[to].host_name, link->why);
    qyi_doctor_warn(d, line);
}

/* How many; a rank without a network was warned of. */
static int report_failures(struct qyi_doctor *d, const struct qyi_doctor_ranks *all)
{
    int failed = 0;
    for (int to = 0; to < all->count; to++) {
        const int unreached = is_unreached(all, to);
        int said = all->facts[to].address[0] == '\0';
        for (int from = 0; from < all->count; from++) {
            if (from == to || link_of(all, from, to)->status == QY_OK) {
                continue;
            }
            failed++;
            if (!said && all->facts[from].address[0] != '\0') {
                warn_of_link(d, all, unreached ? -1 : from, from, to);
                said = unreached;
            }
        }
    }
    return failed;
}

/* One table: a row for each rank that asks. */
static void print_table(const struct qyi_doctor *d, const struct qyi_doctor_ranks *all, int rates)
{
    char line[LINE_BYTES], what[32];
    size_t at = 0;
    for (int to = 0; to < all->count; to++) {
        snprintf(what, sizeof what, "to %d", to);
        at += (size_t)snprintf(line + at, sizeof line - at, "%9s", what);
    }
    qyi_doctor_line(d, rates ? "  MB/s" : "  us", line);
    for (int from = 0; from < all->count; from++) {
        at = 0;
        for (int to = 0; to < all->count; to++) {
            const struct qyi_doctor_link *link = link_of(all, from, to);
            char cell[32] = "-";
            if (from != to && link->status != QY_OK) {
                snprintf(cell, sizeof cell, "none");
            } else if (from != to) {
                snprintf(cell, sizeof cell, rates ? "%.0f" : "%.1f",
                         rates ? link->gbps * 1e3 : (double)link->round_trip_ns * 1e-3);
            }
            at += (size_t)snprintf(line + at, sizeof line - at, "%9s", cell);
        }
        snprintf(what, sizeof what, "  from %d", from);
        qyi_doctor_line(d, what, line);
    }
}

static void print_extremes(const struct qyi_doctor *d, const struct qyi_doctor_ranks *all)
{
    const struct qyi_doctor_link *slow = NULL, *late = NULL;
    char line[LINE_BYTES];
    for (int i = 0; i < all->count * all->count; i++) {
        const struct qyi_doctor_link *link = &all->links[i];
        if (i / all->count != i % all->count && link->status == QY_OK) {
            slow = slow == NULL || link->gbps < slow->gbps ? link : slow;
            late = late == NULL || link->round_trip_ns > late->round_trip_ns ? link : late;
        }
    }
    if (slow == NULL || late == NULL) {
        return;
    }
    const int s = (int)(slow - all->links), l = (int)(late - all->links), n = all->count;
    snprintf(
        line, sizeof line,
        "%.0f MB/s from rank %d to rank %d; the longest round trip %.1f us, rank %d to rank %d",
        slow->gbps * 1e3, s / n, s % n, (double)late->round_trip_ns * 1e-3, l / n, l % n);
    qyi_doctor_line(d, "  slowest", line);
}

int qyi_doctor_ranks_report(struct qyi_doctor *d, const struct qyi_doctor_ranks *all)
{
    cJSON *ranks = cJSON_AddArrayToObject(d->root, "ranks");
    cJSON *links = cJSON_AddArrayToObject(d->root, "links");
    char line[LINE_BYTES];
    if (all == NULL) {
        return 0;
    }
    snprintf(line, sizeof line, "%d on %d host%s, %d links tried in %.1f s", all->count, all->hosts,
             all->hosts == 1 ? "" : "s", all->count * (all->count - 1),
             (double)all->pairs_ns * 1e-9);
    qyi_doctor_line(d, "ranks", line);
    for (int i = 0; i < all->count; i++) {
        rank_json(all, i, ranks);
        rank_line(d, all, i);
        for (int to = 0; to < all->count; to++) {
            if (to != i) {
                link_json(all, i, to, links);
            }
        }
    }
    if (all->count > 1 && all->count <= TABLE_RANKS) {
        qyi_doctor_line(d, "links",
                        "round trips in us, and 10^6 bytes a second to the column's rank");
        print_table(d, all, 0);
        print_table(d, all, 1);
    }
    print_extremes(d, all);
    warn_of_differences(d, all);
    return report_failures(d, all);
}
