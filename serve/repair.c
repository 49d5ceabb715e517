/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A forward pass, and what is mended around it while a command runs.
 *
 *   damage at rest   before a step the next blocks of its sequences are verified (cache.verify_steps). Steps
 *                    between the change and its discovery may have read it.
 *   lost blocks      a step read what only a memory server held that is gone (lost.c); then the step is
 *                    taken again.
 *
 * Either way what is missing is computed again from its token ids.
 */
#include "serve/repair.h"

#include "serve/job/job.h"

static enum qy_status mend_damage(struct qyi_engine *engine, struct qy_sequence *seq,
                                  const struct qy_damage *damage, const struct qy_error *found,
                                  struct qy_error *err)
{
    const uint32_t n_tokens = qy_sequence_tokens(seq);
    const uint64_t begin = qy_clock_ns();
    const enum qy_status st =
        qy_model_recompute(engine->model, engine->cache, seq, damage->first_token, err);

    if (st != QY_OK) {
        return qy_error_wrap(err, st, "%s: failed", found->text);
    }
    qy_log_write(&engine->app->rt.log, QY_LOG_WARN, "cache", "%s: done, tokens %u to %u",
                 found->text, damage->first_token, n_tokens - 1);
    const struct qyi_mended mended = {.block = damage->block,
                                      .first_token = damage->first_token,
                                      .n_tokens = n_tokens - damage->first_token,
                                      .ns = qy_clock_ns() - begin};
    qyi_mended_note(engine, &mended);
    return QY_OK;
}

static enum qy_status check(struct qyi_engine *engine, struct qy_sequence *seq,
                            struct qy_error *err)
{
    struct qy_damage damage;
    struct qy_error found = {0};
    const enum qy_status st = qy_sequence_check_step(seq, &damage, &found);

    if (st == QY_ERR_CORRUPT && !damage.ids) {
        return mend_damage(engine, seq, &damage, &found, err);
    }
    return st == QY_OK ? st : qy_error_set(err, st, "%s", found.text);
}

enum qy_status qyi_engine_forward(struct qyi_engine *engine, const struct qy_step_slice *slices,
                                  uint32_t n_slices, const uint32_t *logit_rows, uint32_t n_logits,
                                  struct qy_error *err)
{
    enum qy_status st = QY_OK;

    if (engine->app->job != NULL) {
        qyi_job_poll(engine->app->job);
    }
    for (uint32_t i = 0; st == QY_OK && i < n_slices; i++) {
        st = check(engine, slices[i].seq, err);
    }
    for (uint32_t tries = qyi_lost_tries(engine); st == QY_OK; tries--) {
        st = qy_model_forward(engine->model, engine->cache, slices, n_slices, logit_rows, n_logits,
                              engine->logits, err);
        if (st != QY_ERR_DEVICE || tries == 0) {
            break;
        }
        st = qyi_lost_mend(engine, slices, n_slices, st, err);
    }
    return st == QY_AGAIN && engine->memory != NULL ? qy_error_wrap(err, QY_ERR_NOMEM, "cache full")
                                                    : st;
}

void qyi_mended_note(struct qyi_engine *engine, const struct qyi_mended *mended)
{
    if (engine->n_mended < QYI_MAX_MENDED) {
        engine->mended[engine->n_mended] = *mended;
    }
    engine->n_mended++;
}

void qyi_events_json(const struct qyi_engine *engine, cJSON *object)
{
    cJSON *events = cJSON_AddArrayToObject(object, "events");

    for (uint32_t i = 0; i < engine->n_mended && i < QYI_MAX_MENDED; i++) {
        const struct qyi_mended *m = &engine->mended[i];
        cJSON *event = cJSON_CreateObject();

        cJSON_AddStringToObject(event, "event", "recomputed");
        if (m->servers != 0) {
            cJSON_AddStringToObject(event, "reason", "server gone");
            qyi_servers_json(engine, m->servers, event);
            cJSON_AddNumberToObject(event, "sequences", m->n_sequences);
            cJSON_AddNumberToObject(event, "blocks", m->n_blocks);
        } else {
            cJSON_AddStringToObject(event, "reason", "damage");
            cJSON_AddNumberToObject(event, "block", m->block);
        }
        cJSON_AddNumberToObject(event, "first_token", m->first_token);
        cJSON_AddNumberToObject(event, "tokens", (double)m->n_tokens);
        cJSON_AddNumberToObject(event, "ms", (double)m->ns * 1e-6);
        cJSON_AddItemToArray(events, event);
    }
}
