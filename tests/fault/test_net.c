/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 200 seeded runs of one client and three servers over a fabric that loses, delays, doubles and damages
 * messages, and whose servers die, stop, are cut off and come back. In none of them may a request end late or
 * with a status that is not documented, an answer be wrong, memory be touched after it was given back, or
 * anything be left when all is closed; and when the faults end, every server must be there again.
 *
 * Prints what happened and how the requests ended. A seed as argument runs that one alone, two: those from the first up to the second.
 */
#include "tests/fault/net_asker.h"
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const outcome_names[N_OUTCOMES] = {"answered", "full", "timeout", "peer",
                                                      "corrupt"};
static const char *const trouble_names[N_TROUBLES] = {
    "none", "drop", "delay", "duplicate", "corrupt", "garble", "kill", "stop", "cut", "unplugged"};

/* ---- trouble ------------------------------------------------------------------------------- */

static void trouble(struct run *run, struct far_server *far, enum trouble which)
{
    far->trouble = which;
    run->tally->happened[which]++;
}

static void inject(struct run *run, struct far_server *far)
{
    static const enum trouble of[] = {[QY_FABRIC_DROP] = T_DROP,
                                      [QY_FABRIC_DELAY] = T_DELAY,
                                      [QY_FABRIC_DUPLICATE] = T_TWICE,
                                      [QY_FABRIC_CORRUPT] = T_CORRUPT,
                                      [QY_FABRIC_GARBLE] = T_GARBLE};
    int there = (int)net_draw(run, 2);
    struct qy_fabric_rule rule = {.from = there ? "client" : far->server.address,
                                  .to = there ? far->server.address : "client",
                                  .fault = (enum qy_fabric_fault)net_draw(run, 5),
                                  .after = (uint32_t)net_draw(run, 4),
                                  .count = 1 + (uint32_t)net_draw(run, 4),
                                  .ns = net_draw(run, 300) * MS};
    assert_int_equal(qy_fabric_inject(run->fabric, &rule), QY_OK);
    trouble(run, far, of[rule.fault]);
}

static void start(struct run *run, struct far_server *far)
{
    char address[16];
    (void)snprintf(address, sizeof(address), "server%d", (int)(far - run->far));
    net_server_open(&far->server, &run->rt, run->fabric, address, TIMEOUT_MS * MS);
    far->epoch++;
    for (int i = 0; i < NET_KEYS; i++) {
        far->keys[i].values[0] = 0;
        far->keys[i].n = 1;
    }
}

static void event(struct run *run, struct far_server *far, enum qy_fabric_event what)
{
    assert_int_equal(qy_fabric_happens(run->fabric, far->server.address, what), QY_OK);
}

/* The client's own link, and so all servers at once. */
static void unplug(struct run *run)
{
    run->unplugged = !run->unplugged;
    assert_int_equal(
        qy_fabric_happens(run->fabric, "client", run->unplugged ? QY_FABRIC_CUT : QY_FABRIC_RESUME),
        QY_OK);
    for (int i = 0; run->unplugged && i < SERVERS; i++) {
        run->far[i].trouble = T_UNPLUGGED;
    }
    run->tally->happened[T_UNPLUGGED] += (uint32_t)run->unplugged;
}

/* Ends what was done to a server, or does something to it. */
static void strike(struct run *run, struct far_server *far)
{
    if (run->unplugged) {
        unplug(run);
    }
    if (far->server.node == NULL) {
        start(run, far);
        return;
    }
    if (far->held) {
        event(run, far, QY_FABRIC_RESUME);
        far->held = 0;
        return;
    }
    switch (net_draw(run, 3)) {
    case 0:
        event(run, far, QY_FABRIC_KILL);
        net_server_close(&far->server);
        trouble(run, far, T_KILL);
        return;
    case 1:
        event(run, far, QY_FABRIC_STOP);
        trouble(run, far, T_STOP);
        break;
    default:
        event(run, far, QY_FABRIC_CUT);
        trouble(run, far, T_CUT);
    }
    far->held = 1;
}

/* ---- a run --------------------------------------------------------------------------------- */

static void pass(struct run *run, uint64_t ns)
{
    uint64_t until = qy_node_now(run->client) + ns;
    for (int rounds = 0; qy_node_now(run->client) < until; rounds++) {
        assert_true(rounds < 100000); /* time goes on */
        if (qy_node_progress(run->client) == 0) {
            qy_node_wait(run->client, until);
        }
        net_collect(run);
    }
}

static void open_run(struct run *run, uint64_t seed, struct tally *tally)
{
    struct qy_error err = {.text = ""};
    memset(run, 0, sizeof(*run));
    run->seed = seed;
    run->random = seed * 1000003;
    run->tally = tally;
    run->heap.fail_at = -1;
    run->rt.mem = fail_alloc_make(&run->heap);
    static const double links[] = {0, 0.1, 1, 10};
    struct qy_fabric_params params = {.mem = &run->rt.mem,
                                      .seed = seed,
                                      .order = (enum qy_fabric_order)net_draw(run, 3),
                                      .latency_ns = net_draw(run, MS),
                                      .gbps = links[net_draw(run, 4)]};
    assert_int_equal(qy_fabric_open(&params, &run->fabric, &err), QY_OK);
    struct qy_node_params node = net_node_params(&run->rt, run->fabric, TIMEOUT_MS * MS);
    node.device = "client";
    memset(node.session, (int)seed, sizeof(node.session));
    if (qy_node_open(&node, &run->client, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    for (struct far_server *far = run->far; far < run->far + SERVERS; far++) {
        start(run, far);
        if (qy_peer_open(run->client, far->server.address, far->server.address, &far->peer, &err) !=
                QY_OK ||
            qy_peer_wait(far->peer, 1000 * (uint64_t)MS, &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
    }
}

/* The faults end: what is under way ends, and every server is there again. */
static void recover(struct run *run)
{
    qy_fabric_heal(run->fabric);
    if (run->unplugged) {
        unplug(run);
    }
    for (struct far_server *far = run->far; far < run->far + SERVERS; far++) {
        if (far->server.node == NULL || far->held) {
            strike(run, far);
        }
    }
    uint64_t since = qy_node_now(run->client);
    (void)!qy_op_wait(run->client, &run->op);
    net_collect(run);
    assert_true(qy_node_now(run->client) - since <= 3 * TIMEOUT_MS * (uint64_t)MS);
    pass(run, 3 * TIMEOUT_MS * (uint64_t)MS); /* a peer that is no more is known to be by then */
    for (struct far_server *far = run->far; far < run->far + SERVERS; far++) {
        struct qy_error err = {.text = ""};
        if (qy_peer_wait(far->peer, 5000 * (uint64_t)MS, &err) != QY_OK) {
            fail_msg("%s is not back: %s", far->server.address, err.text);
        }
        uint64_t took = qy_node_now(run->client) - since;
        run->tally->back_ns = took > run->tally->back_ns ? took : run->tally->back_ns;
        struct qy_peer_stats stats;
        qy_peer_stats(far->peer, &stats);
        run->tally->again += stats.again;
        run->tally->lost += stats.broken + stats.timeouts;
        assert_int_equal(qy_peer_incarnation(far->peer), qy_node_incarnation(far->server.node));
        /* Nothing is wrong any more: all are answered. */
        far->trouble = T_NONE;
        uint32_t before = run->tally->ended[T_NONE][ENDED_OK];
        for (int i = 0; i < 5; i++) {
            assert_int_equal(net_post(run, far, 1000), 1);
            while (run->op.pending > 0) {
                pass(run, MS);
            }
        }
        assert_int_equal(run->tally->ended[T_NONE][ENDED_OK], before + 5);
    }
}

static void close_run(struct run *run)
{
    qy_node_close(run->client);
    for (struct far_server *far = run->far; far < run->far + SERVERS; far++) {
        net_server_close(&far->server);
    }
    qy_fabric_close(run->fabric);
    assert_int_equal(run->heap.live, 0);
}

static void one_run(uint64_t seed, struct tally *tally)
{
    struct run *run = malloc(sizeof(*run));
    assert_non_null(run);
    open_run(run, seed, tally);
    for (int step = 0; step < STEPS; step++) {
        struct far_server *far = &run->far[net_draw(run, SERVERS)];
        uint64_t what = net_draw(run, 100);
        if (what < 65) {
            (void)net_post(run, far,
                           net_draw(run, 3) == 0 ? net_draw(run, NET_LARGEST)
                                                 : net_draw(run, NET_CALL_BYTES));
        } else if (what < 72) {
            inject(run, far);
        } else if (what < 74) {
            qy_fabric_heal(run->fabric);
        } else if (what < 78) {
            strike(run, far);
        } else if (what == 78) {
            unplug(run);
        } else {
            pass(run, net_draw(run, 4) == 0 ? net_draw(run, 2 * TIMEOUT_MS) * MS
                                            : net_draw(run, 5) * MS);
        }
    }
    recover(run);
    close_run(run);
    free(run);
}

static void print_tally(const struct tally *tally)
{
    printf("%-10s %8s", "trouble", "times");
    for (int o = 0; o < N_OUTCOMES; o++) {
        printf(" %8s", outcome_names[o]);
    }
    for (int t = 0; t < N_TROUBLES; t++) {
        printf("\n%-10s %8u", trouble_names[t], tally->happened[t]);
        for (int o = 0; o < N_OUTCOMES; o++) {
            printf(" %8u", tally->ended[t][o]);
        }
    }
    printf(
        "\nasked again %llu, timeouts and breaks %llu, slowest request %llu ms, all back after at "
        "most %llu ms\n",
        (unsigned long long)tally->again, (unsigned long long)tally->lost,
        (unsigned long long)(tally->slowest_ns / MS), (unsigned long long)(tally->back_ns / MS));
}

/* Which runs; `now` is the one that failed, if one did. */
struct runs {
    uint64_t first, end, now;
};

static int tell_seed(void **state)
{
    const struct runs *runs = *state;
    if (runs->now < runs->end) {
        print_error("failed with seed %llu\n", (unsigned long long)runs->now);
    }
    return 0;
}

static void runs_with_random_faults_end_as_documented(void **state)
{
    struct runs *runs = *state;
    struct tally tally;
    memset(&tally, 0, sizeof(tally));
    for (; runs->now < runs->end; runs->now++) {
        one_run(runs->now, &tally);
    }
    print_tally(&tally);
    if (runs->end - runs->first < RUNS) {
        return;
    }
    uint32_t ended[N_OUTCOMES] = {0}; /* each kind of fault, and each end, was seen */
    for (int t = 0; t < N_TROUBLES; t++) {
        assert_true(t == T_NONE || tally.happened[t] > 100);
        for (int o = 0; o < N_OUTCOMES; o++) {
            ended[o] += tally.ended[t][o];
        }
    }
    for (int o = 0; o < N_OUTCOMES; o++) {
        assert_true(ended[o] > 0);
    }
    assert_true(tally.again > 50);
}

int main(int argc, char **argv)
{
    struct runs runs = {.end = RUNS};
    if (argc > 1) {
        runs.first = runs.now = strtoull(argv[1], NULL, 10);
        runs.end = argc > 2 ? strtoull(argv[2], NULL, 10) : runs.first + 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test_prestate_setup_teardown(
        runs_with_random_faults_end_as_documented, NULL, tell_seed, &runs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
