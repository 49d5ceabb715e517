/* SPDX-License-Identifier: Apache-2.0 */
/* See probe.h. */
#include "tests/unit/offload/probe.h"

#include "offload/cache.h"

#include <string.h>

static enum qy_status probe_open(const struct qy_policy_params *params, struct qy_policy **policy,
                                 struct qy_error *err)
{
    struct qy_policy *p = qy_alloc_zero(&params->rt->mem, sizeof(*p));

    if (!p) {
        return qy_error_set(err, QY_ERR_NOMEM, "probe: out of memory");
    }
    p->params = *params;
    *policy = p;
    return QY_OK;
}

static void probe_close(struct qy_policy *policy)
{
    if (policy) {
        qy_free(&policy->params.rt->mem, policy);
    }
}

static size_t probe_index_bytes(const struct qy_policy *policy)
{
    return policy->params.block_tokens * sizeof(struct probe_entry);
}

static size_t probe_scratch(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n)
{
    (void)policy;
    (void)max_n;
    return (size_t)n_items * 64;
}

static struct probe_entry *entry_at(const struct qy_slab *index, uint32_t token)
{
    uint8_t *slab = index->blocks[token >> index->shift] + index->offset;

    return (struct probe_entry *)(void *)slab + (token & ((1U << index->shift) - 1));
}

static enum qy_status probe_append(struct qy_policy *policy, const struct qy_append_view *views,
                                   uint32_t n_views, struct qy_arena *arena)
{
    const uint32_t d = policy->params.head_dim;

    assert_non_null(qy_arena_take(arena, (size_t)n_views * 64, 64)); /* what scratch asked for */
    for (uint32_t i = 0; i < n_views; i++) {
        const struct qy_append_view *v = &views[i];

        assert_int_equal((uintptr_t)(v->index.blocks[0] + v->index.offset) % 64, 0);
        for (uint32_t t = 0; t < v->n; t++) {
            struct probe_entry *e = entry_at(&v->index, v->first + t);

            *e = (struct probe_entry){.first = v->k[t * v->stride],
                                      .last = v->k[t * v->stride + d - 1],
                                      .token = v->first + t};
            for (uint32_t j = 0; j < v->group * d; j++) {
                e->query += v->q[t * v->stride + j];
            }
        }
        if (policy->n_appends < PROBE_CALLS) {
            policy->appends[policy->n_appends++] =
                (struct probe_append){v->sequence, v->layer, v->kv_head, v->first, v->n, v->group};
        }
        if (policy->on_append) {
            policy->on_append(v);
        }
    }
    return policy->append_status;
}

static enum qy_status probe_select(struct qy_policy *policy, const struct qy_select_item *items,
                                   uint32_t n_items, struct qy_arena *arena)
{
    assert_non_null(qy_arena_take(arena, (size_t)n_items * 64, 64));
    for (uint32_t i = 0; i < n_items; i++) {
        if (policy->n_selects < PROBE_CALLS) {
            policy->selects[policy->n_selects++] = items[i];
        }
        if (policy->on_select) {
            policy->on_select(&items[i]);
            continue;
        }
        for (uint32_t j = 0; j < items[i].k; j++) {
            items[i].ids[j] = items[i].lo + j;
        }
        *items[i].n_ids = items[i].k;
    }
    return QY_OK;
}

static enum qy_status probe_prepare(struct qy_policy *policy, const struct qy_sequence_view *view,
                                    struct qy_error *err)
{
    if (policy->n_prepares < PROBE_CALLS) {
        policy->prepares[policy->n_prepares++] = *view;
    }
    if (policy->prepare_status != QY_OK) {
        return qy_error_set(err, policy->prepare_status, "probe: as the test wants");
    }
    return QY_OK;
}

static void probe_forget(struct qy_policy *policy, uint32_t sequence, uint32_t n_tokens)
{
    if (policy->n_forgets < PROBE_CALLS) {
        policy->forgets[policy->n_forgets++] = (struct probe_forget){sequence, n_tokens};
    }
}

struct qy_policy_ops probe_ops(void)
{
    return (struct qy_policy_ops){
        .abi_size = sizeof(struct qy_policy_ops),
        .name = "probe",
        .summary = "writes down what it is asked",
        .open = probe_open,
        .close = probe_close,
        .scratch = probe_scratch,
        .index_bytes = probe_index_bytes,
        .select = probe_select,
        .append = probe_append,
        .prepare = probe_prepare,
        .forget = probe_forget,
    };
}

struct qy_policy *probe_of(const struct rig *rig)
{
    return rig->cache->policy;
}

const struct probe_entry *probe_entry(const struct qy_sequence *seq, uint32_t layer, uint32_t head,
                                      uint32_t token)
{
    const struct qy_slab index = qyi_sequence_index(seq, layer, head);

    return entry_at(&index, token);
}

struct qy_retrieval_settings probe_settings(void)
{
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_retrieval_settings settings;

    memset(&settings, 0, sizeof(settings));
    assert_int_equal(qyi_settings_initial(&mem, &settings, NULL), QY_OK);
    return settings;
}
