/* SPDX-License-Identifier: Apache-2.0 */
/* What a cache did, as text and as JSON: rows and bytes, by tier, and what the audit saw. Reports of
 * the model and of shapes without one share it. */
#include <sys/resource.h>

#include "serve/serve.h"

double qyi_attended(const struct qy_cache_stats *stats)
{
    return stats->total_rows > 0 ? (double)stats->attended_rows / (double)stats->total_rows : 1.0;
}

double qyi_attended_sparse(const struct qy_cache_stats *stats)
{
    return stats->sparse_total_rows > 0
               ? (double)stats->sparse_attended_rows / (double)stats->sparse_total_rows
               : 1.0;
}

struct qy_audit_sums qyi_audit_total(const struct qy_cache *cache, uint32_t n_layers)
{
    struct qy_audit_sums total = {0}, one;
    for (uint32_t l = 0; l < n_layers; l++) {
        qy_cache_audit(cache, l, &one);
        total.n += one.n;
        total.recall += one.recall;
        total.mass += one.mass;
    }
    return total;
}

/* The audit's time, and its share of all time of the cache. */
static double audit_share(const struct qy_cache_stats *stats)
{
    uint64_t all = 0;
    for (int i = 0; i < QY_STAGE_COUNT; i++) {
        all += stats->stage_ns[i];
    }
    return all > 0 ? (double)stats->stage_ns[QY_STAGE_AUDIT] / (double)all : 0;
}

static void add_means(cJSON *object, const struct qy_audit_sums *sums)
{
    if (sums->n == 0) {
        cJSON_AddNullToObject(object, "recall");
        cJSON_AddNullToObject(object, "mass");
        return;
    }
    cJSON_AddNumberToObject(object, "recall", sums->recall / (double)sums->n);
    cJSON_AddNumberToObject(object, "mass", sums->mass / (double)sums->n);
}

void qyi_audit_json(const struct qy_cache *cache, uint32_t n_layers, cJSON *object)
{
    const struct qy_audit_sums total = qyi_audit_total(cache, n_layers);
    struct qy_cache_stats stats;
    add_means(object, &total);
    if (total.n == 0) {
        return;
    }
    qy_cache_stats(cache, &stats);
    cJSON *audit = cJSON_AddObjectToObject(object, "audit");
    cJSON_AddNumberToObject(audit, "samples", (double)total.n);
    cJSON_AddNumberToObject(audit, "ms", (double)stats.stage_ns[QY_STAGE_AUDIT] * 1e-6);
    cJSON_AddNumberToObject(audit, "share_of_cache_time", audit_share(&stats));
    cJSON *layers = cJSON_AddArrayToObject(audit, "layers");
    for (uint32_t l = 0; l < n_layers; l++) {
        struct qy_audit_sums one;
        cJSON *row = cJSON_CreateObject();
        qy_cache_audit(cache, l, &one);
        cJSON_AddNumberToObject(row, "layer", l);
        cJSON_AddNumberToObject(row, "samples", (double)one.n);
        add_means(row, &one);
        cJSON_AddItemToArray(layers, row);
    }
}

static void print_audit(const struct qyi_cache_report *report, FILE *out)
{
    const struct qy_audit_sums total = qyi_audit_total(report->cache, report->n_layers);
    const double n = (double)total.n;
    if (total.n > 0) {
        fprintf(
            out,
            "  audit         recall %.3f, attention mass %.3f over %llu selections; cost %.1f ms, "
            "%.1f %% of the cache's time\n",
            total.recall / n, total.mass / n, (unsigned long long)total.n,
            (double)report->stats->stage_ns[QY_STAGE_AUDIT] * 1e-6,
            100.0 * audit_share(report->stats));
    }
}

static double hit_rate(const struct qy_cache_stats *c)
{
    return c->rows_asked > 0 ? (double)c->rows_found / (double)c->rows_asked : 1.0;
}

/* What moved between home and a discrete device. */
static void print_moved(const struct qy_cache_stats *c, FILE *out)
{
    char a[32], b[32], d[32];
    if (c->device_reserved_bytes == 0) {
        return;
    }
    fprintf(out, "  moved         %s to the device, %s to the host; ",
            qy_format_size(c->to_device_bytes, a, sizeof a),
            qy_format_size(c->to_host_bytes, b, sizeof b));
    if (c->rows_asked > 0) {
        fprintf(out, "%.1f %% of the rows asked for were there, %llu pulled, %llu pushed; ",
                100.0 * hit_rate(c), (unsigned long long)c->rows_pulled,
                (unsigned long long)c->rows_pushed);
    }
    fprintf(out, "%s of the device reserved\n",
            qy_format_size(c->device_reserved_bytes, d, sizeof d));
}

void qyi_home_json(const struct qy_cache *cache, const struct qy_cache_stats *stats, cJSON *object)
{
    cJSON_AddStringToObject(object, "home_codec", qy_cache_home_codec(cache));
    cJSON_AddNumberToObject(object, "home_token_bytes", (double)stats->home_token_bytes);
    cJSON_AddNumberToObject(object, "token_bytes", (double)stats->token_bytes);
}

/* The form of rows at home, where it is not the device's. */
static void print_home(const struct qyi_cache_report *report, FILE *out)
{
    const struct qy_cache_stats *c = report->stats;
    char a[32], b[32];
    if (c->home_token_bytes != c->token_bytes) {
        fprintf(out, "  home          rows as '%s', %s a token, %.2f of the device's %s\n",
                qy_cache_home_codec(report->cache),
                qy_format_size(c->home_token_bytes, a, sizeof a),
                (double)c->home_token_bytes / (double)c->token_bytes,
                qy_format_size(c->token_bytes, b, sizeof b));
    }
}

/* What was pulled ahead, and how good the guesses were (step.prefetch). */
static void print_prefetch(const struct qy_cache_stats *c, FILE *out)
{
    if (c->rows_guessed > 0) {
        fprintf(
            out,
            "  prefetch      %llu rows pulled ahead, %llu of them were then chosen; the guesses "
            "named %.1f %% of the rows chosen\n",
            (unsigned long long)c->rows_prefetched, (unsigned long long)c->rows_prefetched_used,
            100.0 * (double)c->rows_guessed_right / (double)c->rows_guessed);
    }
}

static void prefetch_json(const struct qy_cache_stats *c, cJSON *object)
{
    cJSON_AddNumberToObject(object, "rows_prefetched", (double)c->rows_prefetched);
    cJSON_AddNumberToObject(object, "rows_prefetched_used", (double)c->rows_prefetched_used);
    if (c->rows_guessed > 0) {
        cJSON_AddNumberToObject(object, "guess_recall",
                                (double)c->rows_guessed_right / (double)c->rows_guessed);
    } else {
        cJSON_AddNullToObject(object, "guess_recall"); /* nothing was guessed */
    }
}

/* What lay on the disk and went there and back. */
static void print_disk(const struct qy_cache_stats *c, FILE *out)
{
    char a[32], b[32], d[32], e[32];
    if (c->disk_reserved_bytes == 0) {
        return;
    }
    fprintf(out,
            "  disk          %s of %s in use; %s read in %llu requests, %s written in %llu, %llu "
            "failed (%s, %s)\n",
            qy_format_size(c->disk_bytes, a, sizeof a),
            qy_format_size(c->disk_reserved_bytes, b, sizeof b),
            qy_format_size(c->disk_read_bytes, d, sizeof d), (unsigned long long)c->disk_reads,
            qy_format_size(c->disk_written_bytes, e, sizeof e), (unsigned long long)c->disk_writes,
            (unsigned long long)c->disk_failures, c->disk_uring ? "io_uring" : "threads",
            c->disk_direct ? "direct" : "buffered");
}

static void disk_json(const struct qy_cache_stats *c, cJSON *object)
{
    if (c->disk_reserved_bytes == 0) {
        cJSON_AddNullToObject(object, "disk");
        return;
    }
    cJSON *disk = cJSON_AddObjectToObject(object, "disk");
    cJSON_AddStringToObject(disk, "engine", c->disk_uring ? "io_uring" : "threads");
    cJSON_AddBoolToObject(disk, "direct", c->disk_direct);
    cJSON_AddNumberToObject(disk, "reserved_bytes", (double)c->disk_reserved_bytes);
    cJSON_AddNumberToObject(disk, "reads", (double)c->disk_reads);
    cJSON_AddNumberToObject(disk, "read_bytes", (double)c->disk_read_bytes);
    cJSON_AddNumberToObject(disk, "writes", (double)c->disk_writes);
    cJSON_AddNumberToObject(disk, "written_bytes", (double)c->disk_written_bytes);
    cJSON_AddNumberToObject(disk, "failed_writes", (double)c->disk_failures);
}

/* At the most, since the cache was opened: whatever the context, the first is below cache.host_bytes, the
 * second below cache.index_bytes. process: all memory of this process that was in use at once. */
static void peak_json(const struct qy_cache_stats *c, cJSON *object)
{
    cJSON *peak = cJSON_AddObjectToObject(object, "peak_bytes");
    struct rusage usage;
    cJSON_AddNumberToObject(peak, "host", (double)c->host_peak_bytes);
    cJSON_AddNumberToObject(peak, "index", (double)c->index_reserved_bytes);
    cJSON_AddNumberToObject(peak, "device", (double)c->device_reserved_bytes);
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        cJSON_AddNumberToObject(peak, "process", (double)usage.ru_maxrss * 1024);
    }
}

void qyi_cache_report_print(const struct qyi_cache_report *report, FILE *out)
{
    const struct qy_cache_stats *c = report->stats;
    char a[32], b[32], d[32], e[32], f[32];
    fprintf(
        out,
        "  KV            %s on the host (at most %s, %s reserved), %s on the device, %s index\n",
        qy_format_size(c->host_bytes, a, sizeof a), qy_format_size(c->host_peak_bytes, f, sizeof f),
        qy_format_size(c->reserved_bytes, e, sizeof e),
        qy_format_size(c->device_bytes, b, sizeof b), qy_format_size(c->index_bytes, d, sizeof d));
    fprintf(out,
            "  attended      %.1f %% of the rows by policy '%s' (%.1f %% where it chooses); %s and "
            "%s of index read, dense would read %s\n",
            100.0 * qyi_attended(c), report->policy, 100.0 * qyi_attended_sparse(c),
            qy_format_size(c->read_bytes, a, sizeof a),
            qy_format_size(c->index_read_bytes, d, sizeof d),
            qy_format_size(c->dense_read_bytes, b, sizeof b));
    print_moved(c, out);
    print_home(report, out);
    print_prefetch(c, out);
    print_disk(c, out);
    qyi_remote_print(report, out);
    print_audit(report, out);
}

void qyi_cache_report_json(const struct qyi_cache_report *report, cJSON *object)
{
    const struct qy_cache_stats *c = report->stats;
    cJSON *bytes = cJSON_AddObjectToObject(object, "kv_bytes");
    cJSON_AddNumberToObject(bytes, "device", (double)c->device_bytes);
    cJSON_AddNumberToObject(bytes, "host", (double)c->host_bytes);
    cJSON_AddNumberToObject(bytes, "index", (double)c->index_bytes);
    cJSON_AddNumberToObject(bytes, "remote", (double)c->remote_bytes);
    qyi_home_json(report->cache, c, object);
    cJSON_AddNumberToObject(bytes, "disk", (double)c->disk_bytes);
    cJSON *moved = cJSON_AddObjectToObject(object, "bytes");
    cJSON_AddNumberToObject(moved, "h2d", (double)c->to_device_bytes);
    cJSON_AddNumberToObject(moved, "d2h", (double)c->to_host_bytes);
    cJSON_AddNumberToObject(
        moved, "net",
        (double)(c->remote_read_bytes + c->remote_written_bytes + c->remote_pushed_bytes));
    cJSON_AddNumberToObject(moved, "disk", (double)(c->disk_read_bytes + c->disk_written_bytes));
    disk_json(c, object);
    qyi_remote_json(report, object);
    peak_json(c, object);
    if (c->rows_asked > 0) {
        cJSON_AddNumberToObject(object, "hit_rate", hit_rate(c));
    } else {
        cJSON_AddNullToObject(object, "hit_rate"); /* nothing was asked of a residency cache */
    }
    cJSON_AddNumberToObject(object, "rows_pulled", (double)c->rows_pulled);
    cJSON_AddNumberToObject(object, "rows_pushed", (double)c->rows_pushed);
    prefetch_json(c, object);
    cJSON_AddNumberToObject(object, "device_reserved_bytes", (double)c->device_reserved_bytes);
    cJSON_AddStringToObject(object, "policy", report->policy);
    cJSON_AddNumberToObject(object, "attended", qyi_attended(c));
    cJSON_AddNumberToObject(object, "attended_sparse", qyi_attended_sparse(c));
    qyi_audit_json(report->cache, report->n_layers, object);
    cJSON_AddNumberToObject(object, "read_bytes", (double)c->read_bytes);
    cJSON_AddNumberToObject(object, "index_read_bytes", (double)c->index_read_bytes);
    cJSON_AddNumberToObject(object, "dense_read_bytes", (double)c->dense_read_bytes);
}

void qyi_cache_stages_json(const struct qy_cache_stats *stats, double steps, cJSON *stages)
{
    for (int i = 0; i < QY_STAGE_COUNT; i++) {
        cJSON_AddNumberToObject(stages, qy_stage_name((enum qy_stage)i),
                                (double)stats->stage_ns[i] * 1e-6 / steps);
    }
}

void qyi_cache_stages_print(const struct qy_cache_stats *stats, double steps, int decimals,
                            FILE *out)
{
    for (int i = 0; i < QY_STAGE_COUNT; i++) {
        fprintf(out, " %s %.*f", qy_stage_name((enum qy_stage)i), decimals,
                (double)stats->stage_ns[i] * 1e-6 / steps);
    }
}
