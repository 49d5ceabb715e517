/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coded rows at home (cache.home_codec): what the setting means, sizes, refusals; the bits of a
 * unified device where coding loses nothing; and the same bits whatever fits on the device, pulled or
 * pushed, where it does.
 */
#include "tests/unit/offload/rig.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/cache.h"
#include "offload/codec.h"

enum { N_PREFILL = 150, OUT = RIG_LAYERS * RIG_OUT, N_DECODE = 20, LAYERS = 30 };
enum { MOST = 6 * N_DECODE * OUT + N_PREFILL * RIG_OUT };

static const struct rig_options base = {.policy = "exact",
                                        .budget = "0.1",
                                        .f16 = 1,
                                        .threads = 2,
                                        .max_sequences = 3,
                                        .max_tokens = 256,
                                        .max_step_tokens = 64,
                                        .device = "host-discrete:64M",
                                        .plan = QY_PLAN_PULL,
                                        .home_codec = "4bit"};

/* The least device_bytes that a cache opens with. */
static uint64_t least_bytes(const struct rig_options *options)
{
    uint64_t lo = 0;
    uint64_t hi = (uint64_t)8 << 20;

    while (hi - lo > 16384) {
        struct rig_options o = *options;
        struct rig rig;

        o.device_bytes = lo + (hi - lo) / 2;
        o.plan = QY_PLAN_PUSH; /* opens without a measurement; and pushes take memory */
        rig_prepare(&rig, &o);
        if (qy_cache_open(&rig.params, &rig.cache, NULL) == QY_OK) {
            hi = o.device_bytes;
        } else {
            lo = o.device_bytes;
            rig.cache = NULL;
        }
        rig_close(&rig);
    }
    return hi;
}

static float *decode(struct rig *rig, struct qy_sequence *const *seqs, uint32_t stream, float *out)
{
    for (uint32_t i = 0; i < N_DECODE; i++, out += 2 * OUT) {
        const struct rig_feed feeds[2] = {
            {.seq = seqs[0], .stream = stream, .n = 1, .out = out},
            {.seq = seqs[1], .stream = stream + 1, .n = 1, .out = out + OUT}};

        assert_int_equal(rig_step(rig, feeds, 2), QY_OK);
    }
    return out;
}

/* Prefill, decode, cuts inside and at the end of blocks, decode, a copy goes on. */
static size_t run(struct rig *rig, float *out, struct qy_cache_stats *stats)
{
    struct qy_sequence *seqs[3] = {rig_sequence(rig), rig_sequence(rig), rig_sequence(rig)};
    struct qy_error err = {0};
    float *at = out;

    rig_prefill(rig, seqs[0], 1, N_PREFILL, 64, at);
    at += (size_t)N_PREFILL * RIG_OUT;
    rig_prefill(rig, seqs[1], 2, 37, 64, NULL);
    at = decode(rig, seqs, 1, at);
    assert_int_equal(qy_sequence_truncate(seqs[0], 133), QY_OK);
    assert_int_equal(qy_sequence_truncate(seqs[1], 48), QY_OK);
    at = decode(rig, seqs, 3, at);
    assert_int_equal(qy_sequence_copy(seqs[2], seqs[0]), QY_OK);
    qy_sequence_close(seqs[0]);
    seqs[0] = seqs[2];
    at = decode(rig, seqs, 5, at);
    for (int i = 0; i < 2; i++) {
        if (qy_sequence_verify(seqs[i], &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
    }
    qy_cache_stats(rig->cache, stats);
    return (size_t)(at - out);
}

static size_t run_once(const struct rig_options *options, float *out, struct qy_cache_stats *stats)
{
    struct rig rig;

    rig_open(&rig, options);
    const size_t n = run(&rig, out, stats);
    if (rig.cache->tier.residency) {
        assert_true(qyi_residency_sound(rig.cache->tier.residency));
    }
    rig_close(&rig);
    return n;
}

static void expect_bits(const float *want, const float *have, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++) {
        if (memcmp(&want[i], &have[i], sizeof(float)) != 0) {
            fail_msg("%s: float %zu is %g and not %g", what, i, (double)have[i], (double)want[i]);
        }
    }
}

struct outs {
    float *want, *have;
};
static struct outs outs_open(void)
{
    const struct outs o = {malloc(MOST * sizeof(float)), malloc(MOST * sizeof(float))};

    assert_true(o.want && o.have);
    return o;
}
static void outs_close(struct outs *o)
{
    free(o->want);
    free(o->have);
}

/* Rows that codes have exactly: coded or not, on a device of any size, all bits are the unified
 * device's. */
static void codec_that_loses_nothing_gives_the_bits_of_the_unified_device(void **state)
{
    static const char *const policies[] = {"exact", "window", "quest", "dense"};
    static const char *const codecs[] = {"4bit", "k4v4+1:f16", "k16v4", "0:k4v16"};
    struct outs outs = outs_open();
    (void)state;

    for (uint32_t i = 0; i < 4; i++) {
        struct rig_options o = base;
        struct qy_cache_stats stats;

        o.policy = policies[i];
        o.even = 1;
        o.device = "host";
        o.home_codec = "f16";
        const size_t n = run_once(&o, outs.want, &stats);
        o.device = base.device;
        for (uint32_t c = 0; c < 4; c++) {
            o.home_codec = codecs[c];
            o.device_bytes = c % 2 == 0 ? least_bytes(&o) : 0;
            o.micro_batches = c % 3 + 1;
            assert_int_equal(run_once(&o, outs.have, &stats), n);
            expect_bits(outs.want, outs.have, n, codecs[c]);
            assert_true(stats.home_token_bytes < stats.token_bytes);
        }
    }
    outs_close(&outs);
}

/* A row that was evicted and is pulled again, or is attended to at its home, has the same bits; so
 * neither the device's size nor the plan shows. */
static void codec_gives_the_same_bits_pulled_evicted_or_pushed(void **state)
{
    static const char *const policies[] = {"exact", "quest", "window"};
    static const enum qy_plan_mode modes[] = {QY_PLAN_PULL, QY_PLAN_PUSH, QY_PLAN_AUTO};
    struct outs outs = outs_open();
    (void)state;

    for (uint32_t i = 0; i < 3; i++) {
        struct rig_options o = base;
        struct qy_cache_stats all;
        struct qy_cache_stats few;

        o.policy = policies[i];
        o.deterministic = 1;
        const size_t n = run_once(&o, outs.want, &all);
        o.device_bytes = least_bytes(&o);
        for (uint32_t m = 0; m < 3; m++) {
            o.plan = modes[m];
            o.micro_batches = m + 1;
            assert_int_equal(run_once(&o, outs.have, &few), n);
            expect_bits(outs.want, outs.have, n, policies[i]);
            if (modes[m] == QY_PLAN_PULL && i == 0) {
                assert_true(few.rows_pulled > all.rows_pulled); /* some went and came back */
            }
            assert_true(modes[m] != QY_PLAN_PUSH || few.rows_pushed > 0);
        }
    }
    outs_close(&outs);
}

/* Far enough from f16 that it is coded, near enough that it is right; more bits are nearer. */
static void codec_of_more_bits_is_nearer(void **state)
{
    static const char *const codecs[] = {"8bit", "k8v4", "4bit"};
    static const double most[] = {0.02, 0.3, 0.6};
    struct outs outs = outs_open();
    struct rig_options o = base;
    struct qy_cache_stats plain;
    double before = 0.0;
    (void)state;

    o.policy = "window";
    o.window = 128;
    o.home_codec = "f16";
    const size_t n = run_once(&o, outs.want, &plain);
    assert_int_equal(plain.home_token_bytes, plain.token_bytes);
    for (int c = 0; c < 3; c++) {
        struct qy_cache_stats stats;
        double sum = 0.0;

        o.home_codec = codecs[c];
        assert_int_equal(run_once(&o, outs.have, &stats), n);
        for (size_t i = 0; i < n; i++) {
            const double difference = fabs((double)outs.want[i] - (double)outs.have[i]);

            assert_true(difference < most[c]);
            sum += difference;
        }
        assert_true(sum > before);
        before = sum;
        assert_true(stats.to_host_bytes < plain.to_host_bytes);
        assert_true(stats.to_device_bytes < plain.to_device_bytes);
        assert_true(stats.reserved_bytes < plain.reserved_bytes);
    }
    outs_close(&outs);
}

static void codec_sizes_are_those_of_coded_rows(void **state)
{
    struct rig_options o = base;
    struct qy_cache_stats stats;
    struct rig rig;
    (void)state;

    o.home_codec = "4bit+1:8bit";
    rig_open(&rig, &o);
    const struct qyi_layout *l = &rig.cache->layout;
    assert_int_equal(l->row_bytes, 256);
    assert_int_equal(qyi_layout_home_row(l, 0), 2 * (32 + 8));
    assert_int_equal(qyi_layout_home_row(l, 1), 2 * (64 + 8));
    assert_int_equal(l->n_runs, 2);
    assert_int_equal(qyi_layout_home_at(l, 0, 1), 80 * 16);
    assert_int_equal(qyi_layout_home_at(l, 1, 0), 2 * 80 * 16);
    assert_int_equal(l->index_at, 2 * 16 * (80 + 144));
    assert_true(qy_cache_bytes_for(rig.cache, 16) < 16 * 2 * 256);
    qy_cache_stats(rig.cache, &stats);
    assert_int_equal(stats.home_token_bytes, 2 * (80 + 144));
    assert_int_equal(stats.token_bytes, 4 * 256);
    rig_close(&rig);
}

static void codec_random_rows_are_coded_too(void **state)
{
    struct rig_options o = base;
    struct qy_error err = {0};
    struct rig rig;
    static float out[2 * N_DECODE * OUT];
    (void)state;

    o.policy = "quest";
    rig_open(&rig, &o);
    struct qy_sequence *const seqs[2] = {rig_sequence(&rig), rig_sequence(&rig)};
    assert_int_equal(qy_sequence_fill_random(seqs[0], 48, 1), QY_OK);
    assert_int_equal(qy_sequence_fill_random(seqs[0], 100, 2), QY_OK);
    assert_int_equal(qy_sequence_copy(seqs[1], seqs[0]), QY_OK);
    assert_int_equal(seqs[0]->n_sealed, 148 / 16);
    decode(&rig, seqs, 1, out);
    for (size_t i = 0; i < sizeof(out) / sizeof(out[0]); i++) {
        assert_true(isfinite(out[i]));
    }
    assert_int_equal(qy_sequence_verify(seqs[1], &err), QY_OK);
    rig_close(&rig);
}

static void codec_damage_at_rest_is_found(void **state)
{
    struct qy_error err = {0};
    struct rig rig;
    (void)state;

    rig_open(&rig, &base);
    struct qy_sequence *seq = rig_sequence(&rig);
    rig_prefill(&rig, seq, 1, 100, 64, NULL);
    assert_int_equal(qyi_tier_settle(seq, 1), QY_OK);
    assert_int_equal(qy_sequence_verify(seq, &err), QY_OK);
    const size_t at = qyi_layout_home_at(&rig.cache->layout, 1, 1);
    for (size_t byte = 0; byte < qyi_layout_home_slab(&rig.cache->layout, 1); byte += 79) {
        seq->homes[2][at + byte] ^= 4;
        assert_int_equal(qy_sequence_verify(seq, &err), QY_ERR_CORRUPT);
        assert_non_null(strstr(err.text, "block 2: checksum of layer 1 KV head 1"));
        seq->homes[2][at + byte] ^= 4;
    }
    assert_int_equal(qy_sequence_verify(seq, &err), QY_OK);
    rig_close(&rig);
}

/* ---- the setting ------------------------------------------------------------------------------- */

static enum qy_status parse(const char *text, int group, uint32_t d, struct qyi_home_layer *layers,
                            struct qy_error *err)
{
    const struct qy_kv_shape shape = {LAYERS, 9, 3, d};
    struct qy_cache_settings settings = {.home_group = group};
    uint32_t n;

    snprintf(settings.home_codec, sizeof(settings.home_codec), "%s", text);
    return qyi_codec_parse(&shape, &settings, layers, &n, err);
}

static void codec_text_names_bits_of_layers(void **state)
{
    static const struct {
        const char *text;
        uint32_t layer, k_bits, v_bits;
    } cases[] = {
        {"", 3, 16, 16},
        {"f16", 0, 16, 16},
        {"8bit", 29, 8, 8},
        {"k8v4", 7, 8, 4},
        {"k4v16", 7, 4, 16},
        {"8bit+0-1:f16+20-29:4bit", 1, 16, 16},
        {"8bit+0-1:f16+20-29:4bit", 2, 8, 8},
        {"8bit+0-1:f16+20-29:4bit", 20, 4, 4},
        {"4bit+5:k8v8+5-6:k16v8", 5, 16, 8}, /* the later one */
        {"29:4bit", 28, 16, 16},
        {"29:4bit", 29, 4, 4},
        {"kivi", 0, 4, 4},
        {"kvtuner", 0, 8, 8},
        {"kvtuner", 1, 8, 4},
        {"0-1:kvtuner", 0, 8, 4}, /* of some layers: without what it does with the first */
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct qyi_home_layer layers[LAYERS];

        assert_int_equal(parse(cases[i].text, QY_HOME_GROUP_64, 128, layers, NULL), QY_OK);
        assert_int_equal(layers[cases[i].layer].codec.k_bits, cases[i].k_bits);
        assert_int_equal(layers[cases[i].layer].codec.v_bits, cases[i].v_bits);
        assert_int_equal(layers[cases[i].layer].codec.group, 64);
        assert_int_equal(layers[cases[i].layer].codec.d, 128);
    }
}

static void codec_wrong_texts_are_refused(void **state)
{
    static const char *const wrong[] = {"7bit",    "8bits",   "k8v5",       "8bit++4bit",
                                        "+",       "30:4bit", "3-2:4bit",   "0-30:4bit",
                                        "-1:4bit", "1-:4bit", "1 - 2:4bit", ":4bit",
                                        "4bit:1",  "1:",      "8bit,4bit"};
    (void)state;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct qyi_home_layer layers[LAYERS];
        struct qy_error err = {0};

        if (parse(wrong[i], QY_HOME_GROUP_32, 64, layers, &err) != QY_ERR_CONFIG) {
            fail_msg("'%s' was taken", wrong[i]);
        }
        assert_non_null(strstr(err.text, "cache.home_codec"));
    }
}

static void codec_of_a_head_that_is_no_multiple_is_refused(void **state)
{
    struct qyi_home_layer layers[LAYERS];
    struct qy_error err = {0};
    (void)state;

    assert_int_equal(parse("4bit", QY_HOME_GROUP_32, 80, layers, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "cache.home_group"));
    assert_int_equal(parse("4bit", QY_HOME_GROUP_64, 96, layers, &err), QY_ERR_CONFIG);
    assert_int_equal(parse("4bit", QY_HOME_GROUP_32, 96, layers, NULL), QY_OK);
    assert_int_equal(parse("f16", QY_HOME_GROUP_64, 80, layers, NULL), QY_OK);
}

static void expect_refused(const struct rig_options *options, const char *what)
{
    struct qy_error err = {0};
    struct rig rig;

    rig_prepare(&rig, options);
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "cache.home_codec"));
    if (!strstr(err.text, what)) {
        fail_msg("'%s' is not in: %s", what, err.text);
    }
    rig.cache = NULL;
    rig_close(&rig);
}

static void codec_is_refused_where_rows_are_read_at_home(void **state)
{
    struct rig_options o = base;
    (void)state;

    o.device = "host";
    expect_refused(&o, "discrete");
    o.home_codec = "f16"; /* which is no codec */
    struct rig rig;
    rig_open(&rig, &o);
    rig_close(&rig);
    o = base;
    o.f16 = 0;
    expect_refused(&o, "cache.row_type");
    o = base;
    o.policy = "pq";
    expect_refused(&o, "policy 'pq'");
    o = base;
    o.home_codec = "4bit+40:8bit";
    expect_refused(&o, "40:8bit");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codec_that_loses_nothing_gives_the_bits_of_the_unified_device),
        cmocka_unit_test(codec_gives_the_same_bits_pulled_evicted_or_pushed),
        cmocka_unit_test(codec_of_more_bits_is_nearer),
        cmocka_unit_test(codec_sizes_are_those_of_coded_rows),
        cmocka_unit_test(codec_random_rows_are_coded_too),
        cmocka_unit_test(codec_damage_at_rest_is_found),
        cmocka_unit_test(codec_text_names_bits_of_layers),
        cmocka_unit_test(codec_wrong_texts_are_refused),
        cmocka_unit_test(codec_of_a_head_that_is_no_multiple_is_refused),
        cmocka_unit_test(codec_is_refused_where_rows_are_read_at_home),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
