/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory servers that go for good while the program reads, decodes, cuts and copies: what only they had is
 * computed again, with one warning, and the answer is the one of a run where everything stayed in memory,
 * bit for bit.
 */
#include "tests/unit/offload/rig_servers.h"
#include "tests/unit/serve/bed.h"

#include <stdlib.h>
#include <string.h>

/* FRAMES: of 3 sequences a block of sinks, one of window and an open one; 2 of a step; 2 more. */
enum { N_SEQS = 3, N_STEPS = 10, FRAMES = 13, PLENTY = 8 << 20 };

enum point { DECODE, READ, CUT, COPY, POINTS };

/* The least that the device must have, so that rows come from their homes. */
#define DISCRETE(bytes)                                                                            \
    "--device", "host-discrete:8M", "--set", "plan.mode=pull", "--set", "cache.device_bytes=" bytes
static const char *const dense[] = {"--policy", "dense", DISCRETE("1200K"), NULL};
static const char *const quest[] = {"--policy", "quest", "--budget", "24", DISCRETE("1500K"), NULL};

struct run {
    const char *const *settings;
    enum point point;
    uint32_t n_servers, copies, dies, also_dies; /* dies, also_dies: servers */
    int again;                                   /* others begin at their addresses */
    uint32_t falls_silent;                       /* s0, after so many messages; 0: it does not */
};

static void strike(struct rig_servers *servers, const struct run *run)
{
    const uint32_t who[2] = {run->dies, run->also_dies};
    const struct qy_fabric_rule silence = {
        .from = "s0", .fault = QY_FABRIC_DROP, .after = run->falls_silent, .count = UINT32_MAX};

    if (run->falls_silent > 0) {
        assert_int_equal(qy_fabric_inject(servers->fabric, &silence), QY_OK);
    }

    rig_servers_pass(servers);
    for (int i = 0; i < (run->dies == run->also_dies ? 1 : 2); i++) {
        rig_servers_kill(servers, who[i]);
        if (run->again) {
            rig_servers_start(servers, who[i], PLENTY);
        }
    }
}

/* What is done right after the strike, and reads what is lost. */
static void go_on(struct bed *bed, enum point point)
{
    struct qy_error err = {0};
    enum qy_status st = QY_OK;

    if (point == READ) {
        bed_prefill(bed, bed->seqs[0], 1, 70);
    } else if (point == CUT) { /* so far that blocks that are away come into the window */
        st = qyi_engine_truncate(&bed->engine, bed->seqs[0], 140, &err);
    } else if (point == COPY) {
        st = qyi_engine_copy(&bed->engine, bed->seqs[2], bed->seqs[0], &err);
    }
    if (st != QY_OK) {
        fail_msg("%s", err.text);
    }
}

static double number(const cJSON *object, const char *name)
{
    assert_true(cJSON_IsNumber(cJSON_GetObjectItem(object, name)));
    return cJSON_GetObjectItem(object, name)->valuedouble;
}

/* --json has an event for each warning, with the same numbers. */
static void expect_events(const struct bed *bed, const struct heard *heard)
{
    cJSON *object = cJSON_CreateObject();
    char words[64];

    qyi_events_json(&bed->engine, object);
    const cJSON *events = cJSON_GetObjectItem(object, "events");
    assert_int_equal(cJSON_GetArraySize(events), heard->n);
    if (heard->n > 0) {
        const cJSON *last = cJSON_GetArrayItem(events, (int)heard->n - 1);

        assert_string_equal(cJSON_GetObjectItem(last, "reason")->valuestring, "server gone");
        assert_true(cJSON_GetArraySize(cJSON_GetObjectItem(last, "servers")) > 0);
        snprintf(words, sizeof(words), " gone with %.0f blocks of %.0f sequence",
                 number(last, "blocks"), number(last, "sequences"));
        assert_non_null(strstr(heard->text, words));
        snprintf(words, sizeof(words), " %.0f tokens in ", number(last, "tokens"));
        assert_non_null(strstr(heard->text, words));
        assert_true((int)number(last, "first_token") % 32 == 0 && number(last, "ms") > 0);
    }
    cJSON_Delete(object);
}

/* What is under way arrives: the fabric's time stands still while nobody waits. */
static void pass_time(struct rig_servers *servers)
{
    if (servers) {
        rig_servers_pass(servers);
    }
}

/* servers NULL: in memory; else with the least of it. */
static void open_bed(struct bed *bed, const char *const *settings, struct rig_servers *servers)
{
    const char *more[BED_WORDS] = {NULL};
    char host_bytes[64];
    uint32_t n = 0;

    bed_open(bed, N_SEQS, settings);
    if (!servers) {
        return;
    }
    const uint64_t block = qy_cache_bytes_for(bed->engine.cache, 1);
    bed_close(bed);
    for (; settings[n]; n++) {
        more[n] = settings[n];
    }
    snprintf(host_bytes, sizeof(host_bytes), "cache.host_bytes=%llu",
             (unsigned long long)(FRAMES * block));
    more[n++] = "--set";
    more[n] = host_bytes;
    bed_open_on(bed, N_SEQS, more, &servers->servers);
}

/* servers NULL: in memory. logits [N_STEPS][N_SEQS][n_vocab], the caller's to free */
static float *run_all(const struct run *run, struct rig_servers *servers, struct heard *heard,
                      size_t *n_floats)
{
    static const uint32_t streams[N_SEQS] = {1, 2, 1};
    const uint32_t n = run->point == COPY ? 3 : 2;
    struct qy_error err = {0};
    struct bed bed;

    open_bed(&bed, run->settings, servers);
    bed.app.rt.log.write = bed_hear;
    bed.app.rt.log.ctx = heard;
    *n_floats = (size_t)n * bed.n_vocab;
    float *logits = malloc(N_STEPS * *n_floats * sizeof(float));
    assert_non_null(logits);
    bed_prefill(&bed, bed.seqs[0], 1, 230);
    bed_prefill(&bed, bed.seqs[1], 2, 75);
    for (uint32_t i = 0; i < 20; i++) {
        pass_time(servers);
        assert_int_equal(bed_step(&bed, bed.seqs, 2, streams, &err), QY_OK);
    }
    if (servers) {
        strike(servers, run);
    }
    go_on(&bed, run->point);
    for (uint32_t i = 0; i < N_STEPS; i++) {
        pass_time(servers);
        if (bed_step(&bed, bed.seqs, n, streams, &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
        memcpy(logits + i * *n_floats, bed.engine.logits, *n_floats * sizeof(float));
    }
    for (uint32_t i = 0; i < n; i++) {
        if (qy_sequence_verify(bed.seqs[i], &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
    }
    expect_events(&bed, heard);
    bed_close(&bed);
    return logits;
}

/* most: warnings; the last begins with `words`. */
static void expect_same(const struct run *run, uint32_t least, uint32_t most, const char *words)
{
    struct heard quiet = {0};
    struct heard heard = {0};
    struct rig_servers servers;
    size_t n;

    float *want = run_all(run, NULL, &quiet, &n);
    assert_int_equal(quiet.n, 0);
    rig_servers_open(&servers, run->n_servers, run->copies, PLENTY);
    float *have = run_all(run, &servers, &heard, &n);
    rig_servers_close(&servers);
    assert_in_range(heard.n, least, most);
    if (strncmp(heard.text, words, strlen(words)) != 0) {
        fail_msg("'%s' does not begin with '%s'", heard.text, words);
    }
    assert_memory_equal(want, have, N_STEPS * n * sizeof(float));
    free(have);
    free(want);
}

static void what_a_dead_server_had_is_computed_again_wherever_it_is_read(void **state)
{
    (void)state;

    for (enum point point = DECODE; point < POINTS; point++) {
        const struct run run = {.settings = dense,
                                .point = point,
                                .n_servers = 2,
                                .copies = 1,
                                .dies = 1,
                                .also_dies = 1,
                                .again = point % 2};

        /* with COPY the other sequences' loss shows in the step after it */
        expect_same(&run, 1, 2, "memory server s1 gone with ");
    }
}

static void a_policy_that_chooses_finds_the_loss_when_it_chooses(void **state)
{
    static const char *const push[] = {"--policy",        "quest", "--budget",       "24",
                                       DISCRETE("1500K"), "--set", "plan.mode=push", NULL};
    struct run run = {
        .settings = quest, .point = DECODE, .n_servers = 2, .copies = 1, .dies = 1, .also_dies = 1};
    (void)state;

    expect_same(&run, 1, 2, "memory server s1 gone with ");
    run.settings = push;
    expect_same(&run, 1, 2, "memory server s1 gone with ");
}

/* A second one falls silent soon after, when most of what it had is on its way elsewhere, or later, when it
 * has blocks again. */
static void another_server_may_go_after_the_first(void **state)
{
    struct run run = {.settings = dense,
                      .point = READ,
                      .n_servers = 3,
                      .copies = 1,
                      .dies = 1,
                      .also_dies = 1,
                      .falls_silent = 10};
    (void)state;

    expect_same(&run, 1, 3, "memory server");
    run.falls_silent = 30;
    expect_same(&run, 2, 3, "memory server s0 gone with ");
}

static void copies_need_no_repair_until_both_are_gone(void **state)
{
    struct run run = {
        .settings = dense, .point = READ, .n_servers = 3, .copies = 2, .dies = 0, .also_dies = 0};
    (void)state;

    expect_same(&run, 0, 0, "");
    run.also_dies = 2;
    expect_same(&run, 1, 2, "memory servers s0, s2 gone with ");
}

/* Host memory and both servers just hold it all, and one of them dies: an error with the numbers, and no
 * waiting for ever. */
static void too_little_room_on_what_remains_is_one_error(void **state)
{
    static const uint32_t streams[2] = {1, 2};
    const struct run run = {.dies = 1, .also_dies = 1};
    struct heard heard = {0};
    struct rig_servers servers;
    struct qy_error err = {0};
    enum qy_status st = QY_OK;
    struct bed bed;
    (void)state;

    bed_open(&bed, N_SEQS, dense);
    const uint64_t block = qy_cache_bytes_for(bed.engine.cache, 1);
    bed_close(&bed);
    rig_servers_open(&servers, 2, 1, 7 * block);
    open_bed(&bed, dense, &servers);
    bed.app.rt.log.write = bed_hear;
    bed.app.rt.log.ctx = &heard;
    bed_prefill(&bed, bed.seqs[0], 1, 420);
    bed_prefill(&bed, bed.seqs[1], 2, 230);
    strike(&servers, &run);
    for (uint32_t i = 0; st == QY_OK && i < 20; i++) {
        st = bed_step(&bed, bed.seqs, 2, streams, &err);
    }
    assert_int_equal(st, QY_ERR_NOMEM);
    assert_non_null(strstr(err.text, "memory server s1 gone with "));
    assert_non_null(strstr(err.text, "1 of 2 memory servers are there, with room for 0"));
    bed_close(&bed);
    rig_servers_close(&servers);
}

/* Random rows come from no ids. */
static void random_rows_are_not_computed_again(void **state)
{
    static const uint32_t streams[1] = {1};
    const struct run run = {.dies = 1, .also_dies = 1};
    struct heard heard = {0};
    struct rig_servers servers;
    struct qy_error err = {0};
    struct bed bed;
    (void)state;

    rig_servers_open(&servers, 2, 1, PLENTY);
    bed_open_on(&bed, N_SEQS, dense, &servers.servers);
    bed.app.rt.log.write = bed_hear;
    bed.app.rt.log.ctx = &heard;
    assert_int_equal(qy_sequence_fill_random(bed.seqs[0], 300, 1), QY_OK);
    assert_int_equal(bed_step(&bed, bed.seqs, 1, streams, &err), QY_OK);
    rig_servers_pass(&servers);
    assert_int_equal(bed_step(&bed, bed.seqs, 1, streams, &err), QY_OK);
    strike(&servers, &run);
    assert_int_equal(bed_step(&bed, bed.seqs, 1, streams, &err), QY_ERR_INVALID);
    assert_non_null(strstr(err.text, "memory server s1 gone with "));
    assert_non_null(strstr(err.text, "must come from token ids"));
    assert_int_equal(heard.n, 0);
    bed_close(&bed);
    rig_servers_close(&servers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_dead_server_had_is_computed_again_wherever_it_is_read),
        cmocka_unit_test(a_policy_that_chooses_finds_the_loss_when_it_chooses),
        cmocka_unit_test(another_server_may_go_after_the_first),
        cmocka_unit_test(copies_need_no_repair_until_both_are_gone),
        cmocka_unit_test(too_little_room_on_what_remains_is_one_error),
        cmocka_unit_test(random_rows_are_not_computed_again),
    };
    return cmocka_run_group_tests_name("serve.lost", tests, NULL, NULL);
}
