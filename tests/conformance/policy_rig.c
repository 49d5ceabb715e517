/* SPDX-License-Identifier: Apache-2.0 */
/* See policy_rig.h: opening, keys, and steps. The codebook is in policy_rig_codebook.c. */
#include "tests/conformance/policy_rig.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/policy_rig_codebook.h"

/* The select of a policy's table does not know the rig; one is open at a time. */
static struct prig *current;

static uint32_t mixed(uint32_t x)
{
    x = (x ^ (x >> 16)) * 0x7feb352dU;
    x = (x ^ (x >> 15)) * 0x846ca68bU;
    return x ^ (x >> 16);
}

/* About normal, by the sum of four uniforms. */
static float noise(uint32_t *state)
{
    float sum = 0.0F;

    for (int i = 0; i < 4; i++) {
        *state = *state * 1664525U + 1013904223U;
        sum += (float)(*state >> 8) * 0x1p-23F - 1.0F;
    }
    return sum * 0.866F;
}

static void make_head(uint32_t d, uint32_t kind, uint32_t head, uint32_t *state, float *x)
{
    for (uint32_t i = 0; i < d; i++) {
        const uint32_t place = mixed(head * 977 + i * 31 + 5);
        const float mean = place % 11 == 0 ? 2.0F : 0.0F;
        const float spread = place % 7 == 0 ? 1.5F : 0.4F;

        x[i] = kind == 0 ? noise(state) * (place % 7 == 0 ? 1.2F : 0.5F)
                         : mean + spread * noise(state);
    }
}

static void make_row(const struct prig *rig, struct prig_row *row)
{
    const uint32_t d = rig->o.d;
    uint32_t state = mixed((row->stream * PRIG_LAYERS + row->layer) * 65536 + row->token + 1);

    for (uint32_t h = 0; h < rig->heads; h++) {
        make_head(d, 0, h / rig->o.group, &state, row->q + (size_t)h * d);
    }
    for (uint32_t h = 0; h < PRIG_KV_HEADS; h++) {
        make_head(d, 1, h, &state, row->k + (size_t)h * d);
        for (uint32_t i = 0; i < d; i++) {
            row->v[h * d + i] = noise(&state);
        }
    }
    if (rig->o.edit) {
        rig->o.edit(row);
    }
}

void prig_key(const struct prig *rig, uint32_t layer, uint32_t kv_head, uint32_t token, float *k)
{
    float *at = malloc(rig->stride * sizeof(float));
    assert_non_null(at);
    struct prig_row row = {.stream = 1,
                           .layer = layer,
                           .token = token,
                           .q = at,
                           .k = at + rig->out,
                           .v = at + rig->out + (size_t)PRIG_KV_HEADS * rig->o.d};

    make_row(rig, &row);
    memcpy(k, row.k + (size_t)kv_head * rig->o.d, rig->o.d * sizeof(float));
    free(at);
}

/* Su et al. 2021, arXiv:2104.09864, eq. 34, pairs (i, i + d / 2). */
void prig_rotate(const struct prig *rig, float *x, uint32_t position)
{
    const uint32_t half = rig->o.d / 2;

    for (uint32_t i = 0; i < half && !rig->o.no_rope; i++) {
        const double angle = (double)position * (double)rig->inv_freq[i];
        const double a = x[i];
        const double b = x[i + half];

        x[i] = (float)(a * cos(angle) - b * sin(angle));
        x[i + half] = (float)(a * sin(angle) + b * cos(angle));
    }
}

/* ---- what every selection must keep to ------------------------------------------------------- */

static void check_ids(const struct qy_select_item *it)
{
    const uint32_t most = current->ops.caps.per_head ? it->group * it->k : it->k;

    assert_true(*it->n_ids <= most);
    for (uint32_t i = 0; i < *it->n_ids; i++) {
        assert_true(it->ids[i] >= it->lo && it->ids[i] < it->hi);
        assert_true(i == 0 || it->ids[i] > it->ids[i - 1]);
    }
    for (uint32_t h = 0; it->part_lse && h < it->group; h++) {
        assert_true(it->part_lse[h] < INFINITY); /* and no NaN */
    }
}

/* Asked for as many as there are, all but a union of equal parts gives them all. */
static void check_all(struct qy_policy *policy, const struct qy_select_item *it,
                      struct qy_arena *arena)
{
    const uint32_t all = it->hi - it->lo;
    uint32_t *ids = malloc((size_t)all * it->group * sizeof(*ids));
    float *part = malloc((size_t)it->group * (current->o.d + 1) * sizeof(*part));
    uint32_t n = 0;
    struct qy_select_item whole = *it;

    assert_true(ids && part);
    whole.k = all;
    whole.ids = ids;
    whole.n_ids = &n;
    if (it->part_out) {
        whole.part_out = part;
        whole.part_lse = part + (size_t)it->group * current->o.d;
        for (uint32_t h = 0; h < it->group; h++) {
            whole.part_lse[h] = -INFINITY;
        }
    }
    assert_int_equal(current->inner->select(policy, &whole, 1, arena), QY_OK);
    assert_int_equal(n, all);
    for (uint32_t h = 0; it->part_out && h < it->group; h++) {
        assert_true(whole.part_lse[h] == -INFINITY);
    }
    free(part);
    free(ids);
}

static enum qy_status checked_select(struct qy_policy *policy, const struct qy_select_item *items,
                                     uint32_t n_items, struct qy_arena *arena)
{
    if (current->settings.pooling != QY_POOLED_UNION && !strchr(current->o.budget, 'p')) {
        const size_t mark = qy_arena_mark(arena);

        check_all(policy, &items[0], arena);
        assert_int_equal(qy_arena_mark(arena), mark);
    }
    const enum qy_status st = current->inner->select(policy, items, n_items, arena);
    for (uint32_t i = 0; st == QY_OK && i < n_items; i++) {
        check_ids(&items[i]);
    }
    current->selects += n_items;
    return st;
}

/* ---- opening ----------------------------------------------------------------------------------- */

static void read_defaults(struct qy_retrieval_settings *settings)
{
    const struct qy_setting_table table = {qy_retrieval_setting_rows, qy_retrieval_setting_count,
                                           settings};
    struct qy_allocator mem = qy_allocator_system();
    struct qy_config *config = NULL;

    assert_int_equal(qy_config_open(&mem, &table, 1, &config, NULL), QY_OK);
    qy_config_close(config);
}

static void open_runtime(struct prig *rig)
{
    const struct qy_team_params team = {.n_threads = rig->o.threads ? rig->o.threads : 1,
                                        .spin_us = 20};
    const struct qy_device_params device = {.spec = "host", .max_m = 1};

    rig->rt.mem = qy_allocator_system();
    qy_cpu_detect(&rig->rt.cpu);
    rig->rt.cpu.use = rig->o.level;
    assert_int_equal(qy_team_open(&rig->rt.mem, &team, &rig->rt.team, NULL), QY_OK);
    assert_int_equal(qy_device_open(&rig->rt, &device, &rig->dev, NULL), QY_OK);
    rig->inv_freq = malloc(rig->o.d / 2 * sizeof(float));
    assert_non_null(rig->inv_freq);
    for (uint32_t i = 0; i < rig->o.d / 2; i++) {
        rig->inv_freq[i] = powf(1e5F, -2.0F * (float)i / (float)rig->o.d);
    }
}

static void choose_policy(struct prig *rig)
{
    rig->inner = NULL;
    assert_int_equal(qy_policy_choose(rig->o.policy, &rig->inner, NULL), QY_OK);
    rig->ops = *rig->inner;
    if (rig->ops.select) {
        rig->ops.select = checked_select;
    }
    read_defaults(&rig->settings);
    if (rig->o.set) {
        rig->o.set(&rig->settings);
    }
    rig->settings.min_tokens = 0;
    rig->settings.dense_layers = 0;
    if (rig->ops.codebook && rig->ops.codebook(&rig->settings) != QY_CODEBOOK_NONE) {
        rig->codebook = prig_codebook(rig, rig->ops.codebook(&rig->settings));
    }
}

int prig_open(struct prig *rig, const struct prig_options *options)
{
    struct qy_error err = {QY_OK, ""};
    struct qy_budget budget;

    memset(rig, 0, sizeof(*rig));
    rig->o = *options;
    rig->heads = PRIG_KV_HEADS * rig->o.group;
    rig->out = rig->heads * rig->o.d;
    rig->stride = rig->out + 2 * PRIG_KV_HEADS * rig->o.d;
    current = rig;
    open_runtime(rig);
    choose_policy(rig);
    assert_int_equal(qy_budget_parse(rig->o.budget, &budget, NULL), QY_OK);
    const struct qy_cache_params params = {
        .rt = &rig->rt,
        .dev = rig->dev,
        .shape = {PRIG_LAYERS, rig->heads, PRIG_KV_HEADS, rig->o.d},
        .rope = {.dim = rig->o.no_rope ? 0 : rig->o.d,
                 .pairs = QY_ROPE_HALVES,
                 .inv_freq = rig->inv_freq},
        .settings = {.block_tokens = rig->o.block_tokens,
                     .sinks = 4,
                     .window = 64,
                     .row_type = QY_ROW_F16},
        .policy = &rig->ops,
        .policy_argument = qy_policy_argument(rig->o.policy),
        .codebook = rig->codebook,
        .retrieval = &rig->settings,
        .budget = budget,
        .max_sequences = 3,
        .max_tokens = rig->o.max_tokens ? rig->o.max_tokens : 512,
        .max_step_tokens = 512};
    const enum qy_status st = qy_cache_open(&params, &rig->cache, &err);
    if (st == QY_ERR_UNSUPPORTED) {
        prig_close(rig);
        return 0;
    }
    if (st != QY_OK) {
        fail_msg("%s: %s", rig->o.policy, err.text);
    }
    return 1;
}

void prig_close(struct prig *rig)
{
    qy_cache_close(rig->cache);
    qy_codebook_close(rig->codebook);
    qy_device_close(rig->dev);
    qy_team_close(rig->rt.team);
    free(rig->inv_freq);
}

struct qy_sequence *prig_sequence(struct prig *rig)
{
    struct qy_sequence *seq = NULL;

    assert_int_equal(qy_sequence_open(rig->cache, &seq, NULL), QY_OK);
    return seq;
}

/* ---- steps --------------------------------------------------------------------------------------- */

static enum qy_status step_layer(struct prig *rig, const struct prig_feed *feeds, uint32_t n_feeds,
                                 uint32_t layer, float *qkv, float *out)
{
    size_t row = 0;

    for (uint32_t i = 0; i < n_feeds; i++) {
        for (uint32_t t = 0; t < feeds[i].n; t++, row++) {
            float *at = qkv + row * rig->stride;
            struct prig_row r = {.stream = feeds[i].stream,
                                 .layer = layer,
                                 .token = qy_sequence_tokens(feeds[i].seq) + t,
                                 .q = at,
                                 .k = at + rig->out,
                                 .v = at + rig->out + (size_t)PRIG_KV_HEADS * rig->o.d};

            make_row(rig, &r);
        }
    }
    const struct qy_qkv args = {.q = qkv,
                                .k = qkv + rig->out,
                                .v = qkv + rig->out + (size_t)PRIG_KV_HEADS * rig->o.d,
                                .stride = rig->stride,
                                .out = out};
    return qy_step_attend(rig->cache, layer, &args);
}

enum qy_status prig_step(struct prig *rig, const struct prig_feed *feeds, uint32_t n_feeds,
                         float *out)
{
    struct qy_step_slice slices[PRIG_MAX_FEEDS];
    uint32_t m = 0;

    assert_true(n_feeds <= PRIG_MAX_FEEDS);
    for (uint32_t i = 0; i < n_feeds; i++) {
        m += feeds[i].n;
    }
    int32_t *ids = calloc(m, sizeof(*ids));
    float *qkv = malloc((size_t)m * rig->stride * sizeof(*qkv));
    float *made = malloc((size_t)PRIG_LAYERS * m * rig->out * sizeof(*made));
    assert_true(ids && qkv && made);
    for (uint32_t i = 0; i < n_feeds; i++) {
        slices[i] = (struct qy_step_slice){
            .seq = feeds[i].seq, .n_tokens = feeds[i].n, .ids = ids, .mode = feeds[i].mode};
    }
    enum qy_status st = qy_step_begin(rig->cache, slices, n_feeds, NULL);
    const int begun = st == QY_OK;
    for (uint32_t layer = 0; st == QY_OK && layer < PRIG_LAYERS; layer++) {
        st = step_layer(rig, feeds, n_feeds, layer, qkv, made + (size_t)layer * m * rig->out);
    }
    if (st == QY_OK) {
        st = qy_step_end(rig->cache);
    } else if (begun) {
        qy_step_abort(rig->cache);
    }
    if (out) {
        memcpy(out, made, (size_t)PRIG_LAYERS * m * rig->out * sizeof(*out));
    }
    free(made);
    free(qkv);
    free(ids);
    return st;
}

void prig_fill(struct prig *rig, struct qy_sequence *seq, uint32_t stream, uint32_t n,
               uint32_t chunk)
{
    for (uint32_t done = 0; done < n; done += chunk) {
        const struct prig_feed feed = {.seq = seq,
                                       .stream = stream,
                                       .n = n - done < chunk ? n - done : chunk,
                                       .mode = QY_ATTEND_DENSE};

        assert_int_equal(prig_step(rig, &feed, 1, NULL), QY_OK);
    }
}

void prig_next(struct prig *rig, struct qy_sequence *seq, uint32_t stream, float *out)
{
    const struct prig_feed feed = {.seq = seq, .stream = stream, .n = 1};

    assert_int_equal(prig_step(rig, &feed, 1, out), QY_OK);
    for (uint32_t i = 0; i < PRIG_LAYERS * rig->out; i++) {
        assert_true(isfinite(out[i]));
    }
}
