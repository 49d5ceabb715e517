/* SPDX-License-Identifier: Apache-2.0 */
/* What lay on memory servers and what moved there and back, in all and server by server; as text and as
 * JSON. */
#include <string.h>

#include "serve/serve.h"

static const char *size(uint64_t bytes, char text[32])
{
    return qy_format_size(bytes, text, 32);
}

/* What went wrong with a server, where something did. */
static void print_trouble(const struct qy_cache_server *s, FILE *out)
{
    if (s->timeouts + s->broken + s->corrupt + s->again > 0) {
        fprintf(out,
                "; %llu not answered in time, %llu connections broke, %llu answers damaged, %llu "
                "reads asked again",
                (unsigned long long)s->timeouts, (unsigned long long)s->broken,
                (unsigned long long)s->corrupt, (unsigned long long)s->again);
    }
}

/* Blocks that went from server to server. */
static void print_moved(const struct qy_cache_server *s, FILE *out)
{
    if (s->moved > 0) {
        fprintf(out, "; %llu blocks moved to others", (unsigned long long)s->moved);
    }
    if (s->copied > 0) {
        fprintf(out, "; %llu blocks copied to it again", (unsigned long long)s->copied);
    }
}

/* What it holds; of one that is away, what it held when it was last heard. */
static void print_held(const struct qy_cache_server *s, FILE *out)
{
    char a[32], b[32];
    const unsigned long long blocks = s->blocks, room = s->free_blocks;
    size(s->blocks * s->block_bytes, a);
    if (strcmp(s->state, "up") != 0) {
        fprintf(out, "%s: had %llu blocks (%s) when it was last heard", s->state, blocks, a);
    } else if (s->draining) {
        fprintf(out, "up, about to end: %llu blocks (%s), takes no more", blocks, a);
    } else {
        fprintf(out, "up: %llu blocks (%s), room for %llu (%s)", blocks, a, room,
                size(s->free_blocks * s->block_bytes, b));
    }
}

static void print_server(const struct qy_cache_server *s, FILE *out)
{
    char a[32], b[32];
    fprintf(out, "  server        %s, ", s->name);
    print_held(s, out);
    fprintf(out, "; %llu questions, %s sent, %s received", (unsigned long long)s->questions,
            size(s->sent_bytes, a), size(s->received_bytes, b));
    print_moved(s, out);
    print_trouble(s, out);
    fputc('\n', out);
}

static double checks_ms_per_step(const struct qyi_cache_report *report)
{
    return (double)report->stats->remote_check_ns * 1e-6 / (double)report->n_steps;
}

static double checks_share(const struct qyi_cache_report *report)
{
    return (double)report->stats->remote_check_ns / (double)report->steps_ns;
}

static int is_timed(const struct qyi_cache_report *report)
{
    return report->n_steps > 0 && report->steps_ns > 0;
}

/* What checksums of messages cost and found. */
static void print_checks(const struct qyi_cache_report *report, FILE *out)
{
    const struct qy_cache_stats *c = report->stats;
    char a[32];
    fprintf(out, "  checks        %s of messages, ", size(c->remote_check_bytes, a));
    if (is_timed(report)) {
        fprintf(out, "%.3f ms of a step (%.2f %%) here, and as many bytes at servers; ",
                checks_ms_per_step(report), 100.0 * checks_share(report));
    }
    fprintf(out, "%llu came damaged, %llu questions asked again\n",
            (unsigned long long)c->remote_damaged, (unsigned long long)c->remote_again);
}

/* Chunks of prefill, where they could be pushed. */
static void print_chunks(const struct qyi_cache_report *report, FILE *out)
{
    struct qy_cache_chunks c;
    char a[32];
    qy_cache_chunks(report->cache, &c);
    if (c.pushed + c.pulled > 0) {
        fprintf(out,
                "  prefill       %llu of %llu layers of chunks pushed: %llu rows attended to on "
                "memory servers (%s), %llu read; %llu pushes came to nothing\n",
                (unsigned long long)c.pushed, (unsigned long long)(c.pushed + c.pulled),
                (unsigned long long)c.rows_pushed, size(c.pushed_bytes, a),
                (unsigned long long)c.rows_pulled, (unsigned long long)c.failed);
    }
}

static void chunks_json(const struct qyi_cache_report *report, cJSON *remote)
{
    struct qy_cache_chunks c;
    qy_cache_chunks(report->cache, &c);
    if (!c.can_push) {
        cJSON_AddNullToObject(remote, "prefill"); /* plan.mode = pull, or step.deterministic */
        return;
    }
    const struct {
        const char *name;
        double value;
    } numbers[] = {{"pulled", (double)c.pulled},
                   {"pushed", (double)c.pushed},
                   {"failed", (double)c.failed},
                   {"rows_pulled", (double)c.rows_pulled},
                   {"rows_pushed", (double)c.rows_pushed},
                   {"pushed_bytes", (double)c.pushed_bytes}},
      costs[] = {{"byte_ns", c.byte_ns},
                 {"pair_ns", c.pair_ns},
                 {"far_pair_ns", c.far_pair_ns},
                 {"far_row_ns", c.far_row_ns},
                 {"token_ns", c.token_ns}};
    cJSON *prefill = cJSON_AddObjectToObject(remote, "prefill");
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        cJSON_AddNumberToObject(prefill, numbers[i].name, numbers[i].value);
    }
    for (size_t i = 0; i < sizeof costs / sizeof costs[0]; i++) {
        if (c.measured) {
            cJSON_AddNumberToObject(prefill, costs[i].name, costs[i].value);
        } else {
            cJSON_AddNullToObject(prefill, costs[i].name); /* only auto measures */
        }
    }
}

void qyi_remote_print(const struct qyi_cache_report *report, FILE *out)
{
    const struct qy_cache_stats *c = report->stats;
    char a[32], b[32], d[32], e[32];
    if (c->servers_idle > 0) {
        fprintf(out,
                "  remote        nothing: host memory (cache.host_bytes) holds all blocks of this "
                "run, the memory servers (%u) were not needed\n",
                c->servers_idle);
    }
    if (c->servers == 0) {
        return;
    }
    fprintf(out,
            "  remote        %s on memory servers; by steps: %s read (%llu rows pulled), %llu rows "
            "attended to there (%s), %llu blocks (%s) written, %llu not taken\n",
            size(c->remote_bytes, a), size(c->remote_read_bytes, b),
            (unsigned long long)c->remote_rows_pulled, (unsigned long long)c->remote_rows_pushed,
            size(c->remote_pushed_bytes, d), (unsigned long long)c->remote_writes,
            size(c->remote_written_bytes, e), (unsigned long long)c->remote_failures);
    print_chunks(report, out);
    for (uint32_t i = 0; i < c->servers; i++) {
        struct qy_cache_server server;
        qy_cache_server(report->cache, i, &server);
        print_server(&server, out);
    }
    print_checks(report, out);
}

static cJSON *server_json(const struct qy_cache_server *s)
{
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {{"blocks", s->blocks},
                   {"bytes", s->blocks * s->block_bytes},
                   {"free_blocks", s->free_blocks},
                   {"free_bytes", s->free_blocks * s->block_bytes},
                   {"puts", s->puts},
                   {"questions", s->questions},
                   {"again", s->again},
                   {"moved_blocks", s->moved},
                   {"copied_blocks", s->copied},
                   {"sent_bytes", s->sent_bytes},
                   {"received_bytes", s->received_bytes},
                   {"timeouts", s->timeouts},
                   {"broken", s->broken},
                   {"corrupt", s->corrupt}};
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", s->name);
    cJSON_AddStringToObject(object, "state", s->state);
    cJSON_AddBoolToObject(object, "draining", s->draining);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        cJSON_AddNumberToObject(object, numbers[i].name, (double)numbers[i].value);
    }
    return object;
}

static void checks_json(const struct qyi_cache_report *report, cJSON *remote)
{
    const struct qy_cache_stats *c = report->stats;
    cJSON *checks = cJSON_AddObjectToObject(remote, "checks");
    cJSON_AddNumberToObject(checks, "bytes", (double)c->remote_check_bytes);
    if (is_timed(report)) {
        cJSON_AddNumberToObject(checks, "ms_per_step", checks_ms_per_step(report));
        cJSON_AddNumberToObject(checks, "share_of_step", checks_share(report));
    } else {
        cJSON_AddNullToObject(checks, "ms_per_step");
        cJSON_AddNullToObject(checks, "share_of_step");
    }
    cJSON_AddNumberToObject(checks, "damaged", (double)c->remote_damaged);
    cJSON_AddNumberToObject(checks, "asked_again", (double)c->remote_again);
}

void qyi_remote_json(const struct qyi_cache_report *report, cJSON *object)
{
    const struct qy_cache_stats *c = report->stats;
    cJSON *remote = cJSON_AddObjectToObject(object, "remote");
    uint64_t again = 0, moved = 0, copied = 0;
    cJSON *servers = cJSON_AddArrayToObject(object, "servers");
    for (uint32_t i = 0; i < c->servers; i++) {
        struct qy_cache_server server;
        qy_cache_server(report->cache, i, &server);
        again += server.again;
        moved += server.moved;
        copied += server.copied;
        cJSON_AddItemToArray(servers, server_json(&server));
    }
    cJSON_AddNumberToObject(remote, "reads", (double)c->remote_reads);
    cJSON_AddNumberToObject(remote, "read_bytes", (double)c->remote_read_bytes);
    cJSON_AddNumberToObject(remote, "rows_pulled", (double)c->remote_rows_pulled);
    cJSON_AddNumberToObject(remote, "rows_pushed", (double)c->remote_rows_pushed);
    cJSON_AddNumberToObject(remote, "pushed_bytes", (double)c->remote_pushed_bytes);
    cJSON_AddNumberToObject(remote, "scores", (double)c->remote_scores);
    cJSON_AddNumberToObject(remote, "reads_again", (double)again);
    cJSON_AddNumberToObject(remote, "writes", (double)c->remote_writes);
    cJSON_AddNumberToObject(remote, "written_bytes", (double)c->remote_written_bytes);
    cJSON_AddNumberToObject(remote, "failed_writes", (double)c->remote_failures);
    cJSON_AddNumberToObject(remote, "moved_blocks", (double)moved);
    cJSON_AddNumberToObject(remote, "copied_blocks", (double)copied);
    cJSON_AddNumberToObject(remote, "idle_servers", (double)c->servers_idle);
    chunks_json(report, remote);
    checks_json(report, remote);
}
