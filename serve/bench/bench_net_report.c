/* SPDX-License-Identifier: Apache-2.0 */
/* What bench net found, as a table for people or an object for programs. */
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench_net.h"

/* One case, summed up. */
struct figures {
    double us, spread_us;  /* of a question: all of them, divided by how many     */
    double p50_us, p99_us; /* of single questions, from asking to the answer      */
    double gbps, rows_per_s;
    double here_us, here_share;      /* the same work on the copy; what of our time it is */
    double perftest, perftest_share; /* 0: none. GB/s; of a round trip us          */
    double check_us, check_share;    /* of a question, here: checksums; what of our time that is */
};

static double median_us(const uint64_t *samples, uint32_t n)
{
    uint64_t sorted[QYI_NET_RUNS];
    memcpy(sorted, samples, n * sizeof *samples);
    return (double)qyi_bench_median(sorted, n) * 1e-3;
}

static double spread_us(const uint64_t *samples, uint32_t n, double middle_us)
{
    uint64_t off[QYI_NET_RUNS];
    for (uint32_t i = 0; i < n; i++) {
        const double d = (double)samples[i] - middle_us * 1e3;
        off[i] = (uint64_t)(d < 0 ? -d : d);
    }
    return (double)qyi_bench_median(off, n) * 1e-3;
}

/* Sorts the case's times. */
static struct figures sum_up(const struct qyi_net_bench *b, struct qyi_net_case *c)
{
    const size_t n = (size_t)c->n_runs * c->batch.n;
    struct figures f = {.us = median_us(c->there, c->n_runs)};
    f.spread_us = spread_us(c->there, c->n_runs, f.us);
    f.p50_us = (double)qyi_bench_median(c->each, n) * 1e-3; /* they are in order after that */
    f.p99_us = (double)c->each[(n - 1) * 99 / 100] * 1e-3;
    f.gbps = f.us > 0 ? (double)c->batch.bytes / f.us * 1e-3 : 0;
    f.rows_per_s = f.us > 0 ? c->batch.rows / f.us * 1e6 : 0;
    f.here_us = c->batch.kind == QY_PROBE_STATE ? 0 : median_us(c->here, c->n_runs);
    f.here_share = f.us > 0 ? f.here_us / f.us : 0;
    f.check_us = (double)c->check_ns * 1e-3 / (double)n;
    f.check_share = f.us > 0 ? f.check_us / f.us : 0;
    if (c->perftest != UINT32_MAX) {
        const double result = qyi_perftest_median(&b->perftests[c->perftest]);
        const int is_trip = c->batch.kind == QY_PROBE_STATE;
        f.perftest = is_trip ? 2 * result : result;
        f.perftest_share = result <= 0 ? 0 : is_trip ? f.perftest / f.us : f.gbps / f.perftest;
    }
    return f;
}

/* ---- for people --------------------------------------------------------------------------------- */

static const char *transports(void)
{
    struct qy_net_setting setting;
    for (size_t i = 0; qy_net_setting_at(i, &setting); i++) {
        if (strcmp(setting.variable, "UCX_TLS") == 0) {
            return setting.value;
        }
    }
    return "none";
}

void qyi_net_report_begin(const struct qyi_net_bench *b)
{
    const uint32_t group = b->shape.n_heads / b->shape.n_kv_heads;
    char block[32];
    if (b->app->args->json) {
        return;
    }
    if (b->server.supervisor != NULL) {
        printf(
            "against a memory server of its own, a second process on this host (net.memory is "
            "empty), over %s\n",
            transports());
    } else {
        printf("against the memory %s, over %s\n",
               b->app->job != NULL ? "ranks of this job" : "servers of net.memory", transports());
    }
    printf(
        "rows of %zu B: %u KV heads of %u, %u query heads each, %u layers; %u tokens in %u blocks "
        "of %s\n",
        qy_row_bytes(QY_ROW_F16, b->shape.head_dim), b->shape.n_kv_heads, b->shape.head_dim, group,
        b->shape.n_layers, b->n_blocks * b->block_tokens, b->n_blocks,
        qy_format_size(qy_memory_block_bytes(&b->shape, b->block_tokens), block, sizeof block));
    printf(
        "medians of %d runs in turns, +-: median distance from them; here: the same work on a copy "
        "in this process, one thread; checks: checksums here, the server has as many\n",
        QYI_NET_RUNS);
    fflush(stdout);
}

static void print_share(double value, double share, int width, int decimals)
{
    if (value > 0) {
        printf(" %*.*f %5.2f", width, decimals, value, share);
    } else {
        printf(" %*s %5s", width, "-", "-");
    }
}

static void print_server(struct qyi_net_bench *b, uint32_t i)
{
    printf("\n%-22s %7s %10s %8s %8s %9s %5s %9s %5s %9s %5s\n", qy_peer_name(b->link.peers[i]),
           "at once", "us each", "+-", "GB/s", "here us", "share", "ucx GB/s", "share", "checks us",
           "share");
    for (uint32_t k = 0; k < b->n_cases; k++) {
        struct qyi_net_case *c = &b->cases[k];
        if (c->n_runs == 0) {
            continue;
        }
        const struct figures f = sum_up(b, c);
        if (c->batch.kind == QY_PROBE_STATE) {
            printf("%-22s %7u %10.1f %8.1f   99 of 100 within %.1f us", c->name, c->batch.depth,
                   f.us, f.spread_us, f.p99_us);
            if (f.perftest > 0) {
                printf("; ucx_perftest %.1f us, share %.2f", f.perftest, f.perftest_share);
            }
            printf("\n");
            continue;
        }
        printf("%-22s %7u %10.1f %8.1f %8.3f", c->name, c->batch.depth, f.us, f.spread_us, f.gbps);
        print_share(f.here_us, f.here_share, 9, 1);
        print_share(f.perftest, f.perftest_share, 9, 3);
        print_share(f.check_us, f.check_share, 9, 2);
        printf("\n");
    }
    fflush(stdout);
}

/* ---- for programs ------------------------------------------------------------------------------- */

/* null where there is none. */
static void add_number(cJSON *object, const char *name, double value, int there_is)
{
    if (there_is) {
        cJSON_AddNumberToObject(object, name, value);
    } else {
        cJSON_AddNullToObject(object, name);
    }
}

static cJSON *case_json(const struct qyi_net_bench *b, struct qyi_net_case *c)
{
    static const char *const kinds[] = {[QY_PROBE_STATE] = "state",
                                        [QY_PROBE_PUT] = "put",
                                        [QY_PROBE_READ] = "read",
                                        [QY_PROBE_ROWS] = "pull",
                                        [QY_PROBE_ATTEND] = "push"};
    const struct figures f = sum_up(b, c);
    const int is_trip = c->batch.kind == QY_PROBE_STATE;
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "name", c->name);
    cJSON_AddStringToObject(item, "kind", kinds[c->batch.kind]);
    add_number(item, "rows", c->batch.rows, c->batch.rows > 0);
    cJSON_AddNumberToObject(item, "at_once", c->batch.depth);
    cJSON_AddNumberToObject(item, "runs", c->n_runs);
    cJSON_AddNumberToObject(item, "questions", (double)c->n_runs * c->batch.n);
    cJSON_AddNumberToObject(item, "bytes", (double)c->batch.bytes);
    cJSON_AddNumberToObject(item, "us", f.us);
    cJSON_AddNumberToObject(item, "spread_us", f.spread_us);
    cJSON_AddNumberToObject(item, "p50_us", f.p50_us);
    cJSON_AddNumberToObject(item, "p99_us", f.p99_us);
    cJSON_AddNumberToObject(item, "check_us", f.check_us);
    cJSON_AddNumberToObject(item, "check_share", f.check_share);
    add_number(item, "gbps", f.gbps, !is_trip);
    add_number(item, "rows_per_s", f.rows_per_s, c->batch.rows > 0);
    add_number(item, "here_us", f.here_us, !is_trip);
    add_number(item, "here_share", f.here_share, !is_trip);
    add_number(item, "perftest_gbps", f.perftest, !is_trip && f.perftest > 0);
    add_number(item, "perftest_us", f.perftest, is_trip && f.perftest > 0);
    add_number(item, "perftest_share", f.perftest_share, f.perftest > 0);
    return item;
}

void qyi_net_report_server(struct qyi_net_bench *b, uint32_t i)
{
    if (b->cases[0].n_runs == 0) {
        return;
    }
    if (!b->app->args->json) {
        print_server(b, i);
        return;
    }
    cJSON *server = cJSON_CreateObject();
    qyi_json_add_text(server, "address", qy_peer_name(b->link.peers[i]));
    cJSON *results = cJSON_AddArrayToObject(server, "results");
    for (uint32_t k = 0; k < b->n_cases; k++) {
        if (b->cases[k].n_runs > 0) {
            cJSON_AddItemToArray(results, case_json(b, &b->cases[k]));
        }
    }
    cJSON_AddItemToArray(b->servers, server);
}

void qyi_net_report_end(struct qyi_net_bench *b)
{
    if (!b->app->args->json) {
        if (b->no_perftest != NULL) {
            printf("ucx_perftest %s\n", b->no_perftest);
        } else if (b->n_failed > 0) {
            printf("ucx_perftest failed %u times: %s\n", b->n_failed, b->perftest_failed.text);
        }
        return;
    }
    cJSON *object = cJSON_CreateObject();
    cJSON_AddBoolToObject(object, "own_server", b->server.supervisor != NULL);
    cJSON_AddStringToObject(object, "transports", transports());
    cJSON *shape = cJSON_AddObjectToObject(object, "shape");
    cJSON_AddNumberToObject(shape, "layers", b->shape.n_layers);
    cJSON_AddNumberToObject(shape, "heads", b->shape.n_heads);
    cJSON_AddNumberToObject(shape, "kv_heads", b->shape.n_kv_heads);
    cJSON_AddNumberToObject(shape, "head_dim", b->shape.head_dim);
    cJSON_AddNumberToObject(object, "tokens", (double)b->n_blocks * b->block_tokens);
    cJSON_AddNumberToObject(object, "row_bytes",
                            (double)qy_row_bytes(QY_ROW_F16, b->shape.head_dim));
    cJSON_AddNumberToObject(object, "block_bytes",
                            (double)qy_memory_block_bytes(&b->shape, b->block_tokens));
    if (b->no_perftest != NULL || b->n_failed > 0) {
        qyi_json_add_text(object, "no_perftest",
                          b->no_perftest != NULL ? b->no_perftest : b->perftest_failed.text);
    } else {
        cJSON_AddNullToObject(object, "no_perftest");
    }
    cJSON_AddItemToObject(object, "servers", b->servers);
    b->servers = NULL;
    qyi_print_json(object);
}
