/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retrieval.index_at = home: memory servers score the index bytes of blocks that lie there. The choices, and so
 * the bits, are those of a cache that has all of them.
 */
#include "tests/unit/offload/rig_servers.h"
#include "tests/unit/offload/tier_rig.h"

#include "offload/cache.h"
#include "offload/policy_open.h"

#include <stdlib.h>
#include <string.h>

enum { BYTES = 8 << 20 };

/* A policy as it is set up, with a codebook of keys of stream 1. */
struct way {
    const char *name, *policy, *budget;
    int pooling, first_stage, home_codec;
    enum qy_codebook_kind kind;
};
static const struct way ways[] = {
    {"a2ats", "a2ats", "0.1", QY_POOLED_AUTO, QY_STAGE1_PQ4, 0, QY_CODEBOOK_VQ},
    {"a2ats+ codes", "a2ats+", "0.2", QY_POOLED_UNION, QY_STAGE1_PQ4, 0, QY_CODEBOOK_PQ4},
    {"a2ats+ keys", "a2ats+", "40", QY_POOLED_UNION, QY_STAGE1_KEYS, 1, QY_CODEBOOK_NONE},
};
enum { N_WAYS = sizeof(ways) / sizeof(ways[0]) };

struct bed {
    struct qy_allocator mem;
    struct qy_retrieval_settings worker, home;
    struct qy_codebook *codebook;
    struct rig_options options; /* of a cache in memory: index_at = worker */
};

static void fill_codebook(struct qy_codebook *codebook, uint32_t layer, uint32_t head)
{
    const struct qy_codebook_info *info = qy_codebook_info(codebook);
    const uint32_t part = RIG_D / info->m;
    float *words = malloc((size_t)info->n_words * RIG_D * sizeof(*words));
    float row[RIG_STRIDE];

    assert_non_null(words);
    for (uint32_t w = 0; w < info->n_words; w++) {
        rig_qkv(1, layer, 3 * w, row);
        for (uint32_t j = 0; j < info->m; j++) {
            memcpy(words + ((size_t)j * info->n_words + w) * part,
                   row + RIG_K_AT + head * RIG_D + j * part, part * sizeof(*words));
        }
    }
    const struct qy_codebook_words tables = {.words = words};
    assert_int_equal(qy_codebook_set(codebook, layer, head, &tables, NULL), QY_OK);
    free(words);
}

static void bed_open(struct bed *bed, const struct way *way)
{
    const int pq = way->kind == QY_CODEBOOK_PQ4;
    const struct qy_codebook_info info = {.kind = way->kind,
                                          .n_layers = RIG_LAYERS,
                                          .n_kv_heads = RIG_KV_HEADS,
                                          .head_dim = RIG_D,
                                          .m = pq ? 16 : 1,
                                          .bits = pq ? 4 : 16,
                                          .n_words = pq ? 16 : 300};

    memset(bed, 0, sizeof(*bed));
    bed->mem = qy_allocator_system();
    assert_int_equal(qyi_settings_initial(&bed->mem, &bed->worker, NULL), QY_OK);
    bed->worker.pooling = way->pooling;
    bed->worker.first_stage = way->first_stage;
    bed->worker.rerank = QY_RERANK_OFF;
    bed->worker.min_tokens = 0;
    bed->worker.wrope_window = 8;
    bed->worker.wrope_distance = 64;
    bed->home = bed->worker;
    bed->home.index_at = QY_INDEX_AT_HOME;
    if (way->kind != QY_CODEBOOK_NONE) {
        assert_int_equal(qy_codebook_new(&bed->mem, &info, &bed->codebook, NULL), QY_OK);
        for (uint32_t i = 0; i < RIG_LAYERS * RIG_KV_HEADS; i++) {
            fill_codebook(bed->codebook, i / RIG_KV_HEADS, i % RIG_KV_HEADS);
        }
    }
    bed->options = rig_disk_base;
    bed->options.policy = way->policy;
    bed->options.budget = way->budget;
    bed->options.retrieval = &bed->worker;
    bed->options.codebook = bed->codebook;
    bed->options.home_codec = way->home_codec ? "8bit" : NULL;
    bed->options.deterministic = way->home_codec; /* else coded rows show what the slots held */
}

static void bed_close(struct bed *bed)
{
    qy_codebook_close(bed->codebook);
}

/* The options of a cache over servers, whose index bytes lie there. */
static struct rig_options at_home(const struct bed *bed, const struct rig_servers *servers)
{
    struct rig_options o = rig_on_servers(&bed->options, servers);

    o.retrieval = &bed->home;
    return o;
}

static void expect_same(const struct bed *bed, const char *what, uint32_t n)
{
    float *want = malloc(RIG_DISK_FLOATS * sizeof(float));
    float *have = malloc(RIG_DISK_FLOATS * sizeof(float));
    struct rig_servers servers;
    struct qy_cache_stats stats;
    struct rig rig;

    assert_true(want && have);
    rig_disk_reference(&bed->options, want);
    rig_servers_open(&servers, n, n > 2 ? 2 : 1, BYTES);
    struct rig_options o = at_home(bed, &servers);
    o.micro_batches = n;
    rig_open(&rig, &o);
    assert_int_equal(rig_disk_run(&rig, have), RIG_DISK_FLOATS);
    qy_cache_stats(rig.cache, &stats);
    assert_true(stats.remote_scores > 0);
    assert_int_equal(stats.remote_failures, 0);
    rig_expect_disk_sound(rig.cache);
    rig_close(&rig);
    rig_servers_close(&servers);
    for (size_t f = 0; f < RIG_DISK_FLOATS; f++) {
        if (memcmp(&want[f], &have[f], sizeof(float)) != 0) {
            fail_msg("%s, %u servers: float %zu is %g, in memory %g", what, n, f, (double)have[f],
                     (double)want[f]);
        }
    }
    free(want);
    free(have);
}

static void choices_are_those_of_one_place(void **state)
{
    (void)state;
    for (int i = 0; i < N_WAYS; i++) {
        struct bed bed;

        bed_open(&bed, &ways[i]);
        expect_same(&bed, ways[i].name, i == 0 ? 3 : (uint32_t)i);
        bed_close(&bed);
    }
}

/* Tokens until blocks of the sequence are on servers. */
static struct qy_sequence *long_sequence(struct rig *rig, struct rig_servers *servers)
{
    struct qy_sequence *seq = rig_sequence(rig);

    rig_prefill(rig, seq, 1, 390, 64, NULL);
    for (uint32_t i = 0; i < 4; i++) {
        rig_servers_pass(servers);
        rig_prefill(rig, seq, 1, 1, 1, NULL);
    }
    assert_true(seq->n_down > 4);
    return seq;
}

static void the_device_keeps_what_is_here(void **state)
{
    struct qy_cache_stats stats[2];
    struct bed bed;
    (void)state;

    bed_open(&bed, &ways[0]);
    for (int home = 0; home <= 1; home++) {
        struct rig_servers servers;
        struct rig rig;

        rig_servers_open(&servers, 2, 1, BYTES);
        struct rig_options o = at_home(&bed, &servers);
        o.retrieval = home ? &bed.home : &bed.worker;
        rig_open(&rig, &o);
        const struct qy_sequence *seq = long_sequence(&rig, &servers);
        qy_cache_stats(rig.cache, &stats[home]);
        for (uint32_t b = 0; b < seq->n_blocks; b++) {
            assert_int_equal(seq->index[b] == NULL, home && seq->homes[b] == NULL);
        }
        rig_close(&rig);
        rig_servers_close(&servers);
    }
    assert_true(stats[1].index_bytes < stats[0].index_bytes);
    assert_true(stats[1].index_reserved_bytes < stats[0].index_reserved_bytes);
    bed_close(&bed);
}

/* Server 0 dies between prefill and decode, or is asked for nothing that another has. */
static void decode(const struct bed *bed, int dies, float *out)
{
    struct rig_servers servers;
    struct rig rig;

    rig_servers_open(&servers, 3, 2, BYTES);
    const struct rig_options o = at_home(bed, &servers);
    rig_open(&rig, &o);
    struct qy_sequence *seq = long_sequence(&rig, &servers);
    for (uint32_t i = 0; i < 6; i++) {
        if (dies && i == 1) {
            rig_servers_kill(&servers, 0);
        }
        if (dies && i == 3) { /* empty, and it has to be told anew what to score by */
            rig_servers_start(&servers, 0, BYTES);
            rig_servers_pass(&servers);
        }
        const struct rig_feed feed = {
            .seq = seq, .stream = 1, .n = 1, .out = out + (size_t)i * RIG_LAYERS * RIG_OUT};
        assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
    }
    rig_verify(seq);
    rig_close(&rig);
    rig_servers_close(&servers);
}

static void copies_are_scored_for_a_dead_server(void **state)
{
    static float want[6 * RIG_LAYERS * RIG_OUT];
    static float have[6 * RIG_LAYERS * RIG_OUT];
    struct bed bed;
    (void)state;

    bed_open(&bed, &ways[1]);
    decode(&bed, 0, want);
    decode(&bed, 1, have);
    assert_memory_equal(want, have, sizeof(want));
    bed_close(&bed);
}

static void a_choice_without_its_index_fails_the_step(void **state)
{
    struct rig_servers servers;
    struct rig rig;
    struct bed bed;
    struct qy_lost lost;
    float out[TIER_STEP_FLOATS];
    (void)state;

    bed_open(&bed, &ways[0]);
    rig_servers_open(&servers, 2, 1, BYTES);
    const struct rig_options o = at_home(&bed, &servers);
    rig_open(&rig, &o);
    struct qy_sequence *seqs[2] = {long_sequence(&rig, &servers), rig_sequence(&rig)};
    rig_prefill(&rig, seqs[1], 2, 40, 40, NULL);
    rig_servers_kill(&servers, 1);
    rig_servers_start(&servers, 1, BYTES);
    assert_int_equal(tier_try_step(&rig, seqs, out), QY_ERR_DEVICE);
    assert_non_null(strstr(qy_cache_fault(rig.cache), "memory servers: sequence 0 block"));
    assert_true(qy_sequence_lost(seqs[0], &lost));
    assert_int_equal(qy_sequence_truncate(seqs[0], 0), QY_OK);
    rig_prefill(&rig, seqs[0], 1, 300, 64, NULL);
    assert_int_equal(tier_try_step(&rig, seqs, out), QY_OK);
    rig_close(&rig);
    rig_servers_close(&servers);
    bed_close(&bed);
}

static void expect_refused(const struct rig_options *options, const char *why)
{
    struct qy_error err = {0};
    struct rig rig;

    rig_prepare(&rig, options);
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, &err), QY_ERR_CONFIG);
    if (!strstr(err.text, why)) {
        fail_msg("'%s' is not in: %s", why, err.text);
    }
    rig.cache = NULL;
    rig_close(&rig);
}

static void what_cannot_be_is_refused_at_open(void **state)
{
    struct rig_servers servers;
    struct bed bed;
    (void)state;

    bed_open(&bed, &ways[1]);
    rig_servers_open(&servers, 1, 1, BYTES);
    struct rig_options o = at_home(&bed, &servers);
    bed.home.pooling = QY_POOLED_SUM;
    expect_refused(&o, "accepted are a2ats");
    o.policy = "quest";
    expect_refused(&o, "'quest'");
    o = bed.options;
    o.retrieval = &bed.home;
    expect_refused(&o, "net.memory");
    bed.home.pooling = QY_POOLED_UNION;
    o = at_home(&bed, &servers);
    o.max_tokens = 1 << 20;
    o.budget = "0.5";
    expect_refused(&o, "lower --ctx");
    rig_servers_close(&servers);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_are_those_of_one_place),
        cmocka_unit_test(the_device_keeps_what_is_here),
        cmocka_unit_test(copies_are_scored_for_a_dead_server),
        cmocka_unit_test(a_choice_without_its_index_fails_the_step),
        cmocka_unit_test(what_cannot_be_is_refused_at_open),
    };
    return cmocka_run_group_tests_name("offload.far_index", tests, NULL, NULL);
}
