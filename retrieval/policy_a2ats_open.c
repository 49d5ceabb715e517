/* SPDX-License-Identifier: Apache-2.0 */
/* What a2ats and a2ats+ prepare at open: quantizers of the codebook, distances, tables of turns. */
#include "retrieval/policy_a2ats.h"

#include "retrieval/policies.h"

#include <math.h>

static size_t whole_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static const char *kind_name(enum qy_codebook_kind kind)
{
    switch (kind) {
    case QY_CODEBOOK_PQ4:
        return "4-bit product codes after RoPE";
    case QY_CODEBOOK_VQ:
        return "codes before RoPE";
    case QY_CODEBOOK_NONE:
        break;
    }
    return "nothing";
}

static enum qy_status check_codebook(const struct qy_policy_params *p, const char *name,
                                     enum qy_codebook_kind kind, struct qy_error *err)
{
    if (!p->codebook) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "policy '%s': no codebook; one of %s for this model is needed; make it "
                            "with 'quarry calibrate', or name it in retrieval.codebook",
                            name, kind_name(kind));
    }
    const struct qy_codebook_info *info = qy_codebook_info(p->codebook);
    if (info->kind != kind) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "policy '%s': the codebook is of %s; one of %s is accepted; make it "
                            "with 'quarry calibrate'",
                            name, kind_name(info->kind), kind_name(kind));
    }
    if (info->n_layers != p->n_layers || info->n_kv_heads != p->n_kv_heads ||
        info->head_dim != p->head_dim) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "policy '%s': the codebook is for %u layers, %u KV heads of %u; the "
                            "model has %u, %u of %u; make one for it with 'quarry calibrate'",
                            name, info->n_layers, info->n_kv_heads, info->head_dim, p->n_layers,
                            p->n_kv_heads, p->head_dim);
    }
    return QY_OK;
}

enum qy_status qyi_a2ats_open_codes(struct qyi_a2ats *a, const char *name,
                                    enum qy_codebook_kind kind, struct qy_error *err)
{
    const struct qy_policy_params *p = a->params;
    enum qy_status st = check_codebook(p, name, kind, err);

    if (st != QY_OK) {
        return st;
    }
    const uint32_t n = p->n_layers * p->n_kv_heads;
    a->quantizers = qy_alloc_zero(&p->rt->mem, n * sizeof(*a->quantizers));
    if (!a->quantizers) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy '%s': out of memory at open", name);
    }
    for (uint32_t i = 0; i < n; i++) {
        a->quantizers[i] = qy_codebook_quantizer(p->codebook, i / p->n_kv_heads, i % p->n_kv_heads);
        st = qy_quantizer_check(&a->quantizers[i], err);
        if (st != QY_OK) {
            return qy_error_wrap(err, st, "policy '%s': codebook of layer %u, KV head %u", name,
                                 i / p->n_kv_heads, i % p->n_kv_heads);
        }
    }
    a->code_bytes = whole_lines(qy_code_slab_bytes(&a->quantizers[0], p->block_tokens));
    return QY_OK;
}

void qyi_a2ats_open_keys(struct qyi_a2ats *a)
{
    a->key_bytes = whole_lines(qy_key4_slab_bytes(a->params->head_dim, a->params->block_tokens));
}

static enum qy_status open_turns(struct qyi_a2ats *a, struct qy_error *err)
{
    const struct qy_policy_params *p = a->params;
    const size_t floats = (size_t)p->max_sequences * a->n_bands * p->rope.dim;

    a->turn_n = qy_alloc_zero(&p->rt->mem, (p->max_sequences + (size_t)1) * sizeof(*a->turn_n));
    a->turns = qy_alloc_zero(&p->rt->mem, (floats + 1) * sizeof(*a->turns));
    if (!a->turn_n || !a->turns) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy: out of memory for %u tables of turns",
                            p->max_sequences);
    }
    return QY_OK;
}

enum qy_status qyi_a2ats_open_wrope(struct qyi_a2ats *a, struct qy_error *err)
{
    const struct qy_retrieval_settings *settings = qyi_policy_settings(a->params);

    a->near = (uint32_t)settings->wrope_window;
    a->n_bands = 1;
    a->bands[0] = (struct qyi_a2ats_band){a->near, (int32_t)settings->wrope_distance};
    return open_turns(a, err);
}

/* A band from `least` up to twice that is scored at the geometric mean of its ends; so is the last,
 * which has no end. */
enum qy_status qyi_a2ats_open_bands(struct qyi_a2ats *a, struct qy_error *err)
{
    const int64_t window = qyi_policy_settings(a->params)->wrope_window;
    int64_t least = window > 0 ? window : 1;

    a->near = (uint32_t)least;
    a->n_bands = QYI_A2ATS_BANDS;
    for (uint32_t i = 0; i < a->n_bands; i++, least *= 2) {
        a->bands[i] =
            (struct qyi_a2ats_band){(uint32_t)least, (int32_t)lround(sqrt(2.0) * (double)least)};
    }
    return open_turns(a, err);
}

void qyi_a2ats_close(struct qyi_a2ats *a)
{
    const struct qy_allocator *mem = &a->params->rt->mem;

    qy_free(mem, a->quantizers);
    qy_free(mem, a->turns);
    qy_free(mem, a->turn_n);
}
