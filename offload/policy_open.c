/* SPDX-License-Identifier: Apache-2.0 */
/* See policy_open.h. */
#include "offload/policy_open.h"

static int chooses(const struct qy_policy_ops *ops)
{
    return !ops->caps.dense && !ops->caps.select_nothing;
}

static const char *codebook_kind_name(enum qy_codebook_kind kind)
{
    switch (kind) {
    case QY_CODEBOOK_NONE:
        return "none";
    case QY_CODEBOOK_PQ4:
        return "pq4 (keys after rotation, 4-bit sub-vectors)";
    case QY_CODEBOOK_VQ:
        return "vq (keys before rotation, one code)";
    }
    return "?";
}

static enum qy_codebook_kind codebook_wanted(const struct qy_cache_params *p)
{
    return p->policy->codebook ? p->policy->codebook(p->retrieval) : QY_CODEBOOK_NONE;
}

static enum qy_status check_codebook(const struct qy_cache_params *p, struct qy_error *err)
{
    /* the zeros are not compared: whose model it is, is known to the program */
    const struct qy_codebook_info want = {.kind = codebook_wanted(p),
                                          .n_layers = p->shape.n_layers,
                                          .n_kv_heads = p->shape.n_kv_heads,
                                          .head_dim = p->shape.head_dim};

    if (want.kind == QY_CODEBOOK_NONE) {
        return QY_OK;
    }
    if (!p->codebook) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "policy '%.60s': it needs a codebook of kind %s, and none is given; "
                            "make one with 'quarry calibrate' and name it in retrieval.codebook",
                            p->policy->name, codebook_kind_name(want.kind));
    }
    const enum qy_codebook_kind kind = qy_codebook_info(p->codebook)->kind;
    if (kind != want.kind) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "policy '%.60s': it needs a codebook of kind %s, and the one given is "
                            "of kind %s; make one with 'quarry calibrate'",
                            p->policy->name, codebook_kind_name(want.kind),
                            codebook_kind_name(kind));
    }
    const enum qy_status st = qy_codebook_check(p->codebook, &want, err);
    if (st != QY_OK) {
        return qy_error_wrap(err, st, "policy '%.60s'", p->policy->name);
    }
    return QY_OK;
}

enum qy_status qyi_policy_check(const struct qy_cache_params *p, struct qy_error *err)
{
    const struct qy_policy_ops *ops = p->policy;
    const struct qy_retrieval_settings *s = p->retrieval;

    if (!ops || ops->abi_size < sizeof(*ops) || !ops->name) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "cache: the policy has no table, or one of another version of "
                            "retrieval.h; rebuild it");
    }
    if (!(s->audit_rate >= 0.0 && s->audit_rate <= 1.0)) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "setting 'retrieval.audit_rate': %g; accepted are 0 (off) to 1",
                            s->audit_rate);
    }
    if (!chooses(ops)) {
        return check_codebook(p, err);
    }
    if (!ops->select) {
        return qy_error_set(err, QY_ERR_INVALID, "policy '%.60s': it has no select function",
                            ops->name);
    }
    if (p->budget.tokens == 0 && !(p->budget.ratio > 0.0)) {
        return qy_error_set(
            err, QY_ERR_INVALID,
            "policy '%.60s': no budget is given; give a share or a number of tokens", ops->name);
    }
    return check_codebook(p, err);
}

enum qy_status qyi_settings_initial(const struct qy_allocator *mem,
                                    struct qy_retrieval_settings *settings, struct qy_error *err)
{
    const struct qy_setting_table table = {.rows = qy_retrieval_setting_rows,
                                           .n_rows = qy_retrieval_setting_count,
                                           .values = settings};
    struct qy_config *config = NULL;
    const enum qy_status st = qy_config_open(mem, &table, 1, &config, err);

    qy_config_close(config); /* the values stay: they are the caller's */
    return st;
}

enum qy_status qyi_policy_open(const struct qy_cache_params *p, struct qy_policy **policy,
                               struct qy_error *err)
{
    const int with_codebook = codebook_wanted(p) != QY_CODEBOOK_NONE;
    const struct qy_policy_params params = {
        .rt = p->rt,
        .dev = p->dev,
        .n_layers = p->shape.n_layers,
        .n_heads = p->shape.n_heads,
        .n_kv_heads = p->shape.n_kv_heads,
        .head_dim = p->shape.head_dim,
        .max_sequences = p->max_sequences,
        .max_tokens = p->max_tokens,
        .block_tokens = (uint32_t)p->settings.block_tokens,
        .sinks = (uint32_t)p->settings.sinks,
        .window = (uint32_t)p->settings.window,
        .rope = p->rope,
        .scale = p->scale,
        .argument = p->policy_argument ? p->policy_argument : "",
        .codebook = with_codebook ? p->codebook : NULL,
        .settings = p->retrieval,
    };

    return p->policy->open ? p->policy->open(&params, policy, err) : QY_OK;
}

uint32_t qyi_policy_dense_layers(const struct qy_cache_params *p)
{
    int64_t n = p->retrieval->dense_layers;

    if (!chooses(p->policy) && n < 0) {
        return 0;
    }
    if (n < 0) {
        n = p->policy->dense_layers ? p->policy->dense_layers(p->retrieval) : 0;
    }
    return n < p->shape.n_layers ? (uint32_t)n : p->shape.n_layers;
}

/* -1 (where choosing pays) is 0 unless the trial of cost.c decides. */
uint32_t qyi_policy_min_tokens(const struct qy_cache_params *p)
{
    const int64_t n = p->retrieval->min_tokens;

    if (n < 0) {
        return 0;
    }
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}
