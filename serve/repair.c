/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damage at rest, found and mended while a command runs: before a step the next blocks of its sequences
 * are verified (cache.verify_steps), and what was changed is computed again from its token ids. Steps
 * between the change and its discovery may have read it.
 */
#include "serve/serve.h"

static enum qy_status mend(struct qyi_engine *engine, struct qy_sequence *seq,
                           const struct qy_damage *damage, const struct qy_error *found,
                           struct qy_error *err)
{
    const uint32_t n_tokens = qy_sequence_tokens(seq);
    const enum qy_status st =
        qy_model_recompute(engine->model, engine->cache, seq, damage->first_token, err);

    if (st != QY_OK) {
        return qy_error_wrap(err, st, "%s: failed", found->text);
    }
    qy_log_write(&engine->app->rt.log, QY_LOG_WARN, "cache", "%s: done, tokens %u to %u",
                 found->text, damage->first_token, n_tokens - 1);
    if (engine->n_mended < QYI_MAX_MENDED) {
        engine->mended[engine->n_mended] =
            (struct qyi_mended){.damage = *damage, .n_tokens = n_tokens};
    }
    engine->n_mended++;
    return QY_OK;
}

enum qy_status qyi_engine_check(struct qyi_engine *engine, struct qy_sequence *const *seqs,
                                uint32_t n_seqs, struct qy_error *err)
{
    enum qy_status st = QY_OK;

    for (uint32_t i = 0; st == QY_OK && i < n_seqs; i++) {
        struct qy_damage damage;
        struct qy_error found = {0};

        st = qy_sequence_check_step(seqs[i], &damage, &found);
        if (st == QY_ERR_CORRUPT && !damage.ids) {
            st = mend(engine, seqs[i], &damage, &found, err);
        } else if (st != QY_OK) {
            st = qy_error_set(err, st, "%s", found.text);
        }
    }
    return st;
}

void qyi_events_json(const struct qyi_engine *engine, cJSON *object)
{
    cJSON *events = cJSON_AddArrayToObject(object, "events");

    for (uint32_t i = 0; i < engine->n_mended && i < QYI_MAX_MENDED; i++) {
        const struct qyi_mended *m = &engine->mended[i];
        cJSON *event = cJSON_CreateObject();

        cJSON_AddStringToObject(event, "event", "recomputed");
        cJSON_AddNumberToObject(event, "block", m->damage.block);
        cJSON_AddNumberToObject(event, "first_token", m->damage.first_token);
        cJSON_AddNumberToObject(event, "tokens", m->n_tokens - m->damage.first_token);
        cJSON_AddItemToArray(events, event);
    }
}
