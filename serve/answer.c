/* SPDX-License-Identifier: Apache-2.0 */
/* Token after token: forward, sample, show. */
#include <stdlib.h>
#include <string.h>

#include "serve/serve.h"

enum { PIECE_BYTES = 1024 };

enum qy_status qyi_answer_open(struct qyi_answer *answer, size_t room, FILE *stream,
                               struct qy_error *err)
{
    memset(answer, 0, sizeof *answer);
    answer->stream = stream;
    answer->room = room;
    answer->text_room = 4096;
    answer->ids = malloc((room + 1) * sizeof *answer->ids);
    answer->gaps = malloc((room + 1) * sizeof *answer->gaps);
    answer->text = malloc(answer->text_room);
    if (answer->ids == NULL || answer->gaps == NULL || answer->text == NULL) {
        qyi_answer_close(answer);
        return qy_error_set(err, QY_ERR_NOMEM, "answer of %zu tokens: out of memory", room);
    }
    answer->text[0] = '\0';
    return QY_OK;
}

void qyi_answer_close(struct qyi_answer *answer)
{
    free(answer->ids);
    free(answer->gaps);
    free(answer->text);
    memset(answer, 0, sizeof *answer);
}

/* Adds bytes to the text and the stream; only whole characters leave. */
static enum qy_status show(struct qyi_answer *answer, const char *bytes, size_t n, int flush,
                           struct qy_error *err)
{
    char out[PIECE_BYTES + 8];
    const size_t got = qy_utf8_push(&answer->utf8, bytes, n, flush, out);
    while (answer->text_bytes + got + 1 > answer->text_room) {
        char *more = realloc(answer->text, answer->text_room * 2);
        if (more == NULL) {
            return qy_error_set(err, QY_ERR_NOMEM, "answer: out of memory");
        }
        answer->text = more;
        answer->text_room *= 2;
    }
    memcpy(answer->text + answer->text_bytes, out, got);
    answer->text_bytes += got;
    answer->text[answer->text_bytes] = '\0';
    if (answer->stream != NULL && got > 0 &&
        (fwrite(out, 1, got, answer->stream) != got || fflush(answer->stream) != 0)) {
        return qy_error_set(err, QY_ERR_NOT_FOUND, "stdout: writing failed; is the reader gone?");
    }
    return QY_OK;
}

/* Takes the next id from the logits. *stop: the answer is complete. */
static enum qy_status take(struct qyi_engine *engine, struct qy_sampler *sampler,
                           struct qyi_answer *answer, int32_t *id, int *stop, struct qy_error *err)
{
    float gap = 0;
    *id = qy_sampler_next(sampler, engine->logits, &gap);
    if (*id < 0) {
        return qy_error_set(
            err, QY_ERR_CORRUPT,
            "logits: a value is not a number; the model file is damaged or does not "
            "fit this architecture");
    }
    answer->ids[answer->n] = *id;
    answer->gaps[answer->n++] = gap;
    if (qy_tokenizer_is_end(engine->tokenizer, *id)) {
        answer->ended = 1;
        *stop = 1;
        return QY_OK;
    }
    char piece[PIECE_BYTES];
    const int n = qy_tokenizer_piece(engine->tokenizer, *id, 0, piece, sizeof piece);
    *stop = answer->n == answer->room;
    return n > 0 ? show(answer, piece, (size_t)n, 0, err) : QY_OK;
}

static enum qy_status forward(struct qyi_engine *engine, struct qy_sequence *seq, int32_t id,
                              enum qy_attend_mode mode, struct qy_error *err)
{
    const struct qy_step_slice slice = {.seq = seq, .n_tokens = 1, .ids = &id, .mode = mode};
    const uint32_t row = 0;
    const enum qy_status st = qyi_engine_forward(engine, &slice, 1, &row, 1, err);
    return st == QY_AGAIN ? qy_error_set(err, QY_ERR_NOMEM,
                                         "cache full at %u tokens; raise cache.host_bytes or --ctx",
                                         qy_sequence_tokens(seq))
                          : st;
}

enum qy_status qyi_answer_generate(struct qyi_engine *engine, struct qy_sequence *seq, int32_t id,
                                   enum qy_attend_mode mode, struct qyi_answer *answer,
                                   struct qy_error *err)
{
    const struct qyi_settings *s = &engine->app->program;
    const struct qy_sampler_params params = {.temperature = (float)s->temperature,
                                             .top_k = (int32_t)s->top_k,
                                             .top_p = (float)s->top_p,
                                             .min_p = (float)s->min_p,
                                             .seed = (uint64_t)s->seed};
    struct qy_sampler *sampler = NULL;
    enum qy_status st = qy_sampler_open(&engine->app->rt.mem, qy_model_info(engine->model)->n_vocab,
                                        &params, &sampler, err);
    const uint64_t begin = qy_clock_ns();
    int stop = answer->room == 0;
    while (st == QY_OK && !stop && !qyi_interrupted()) {
        st = forward(engine, seq, id, mode, err);
        answer->steps++;
        if (st == QY_OK) {
            st = take(engine, sampler, answer, &id, &stop, err);
        }
    }
    if (st == QY_OK) {
        st = show(answer, "", 0, 1, err);
    }
    answer->ns = qy_clock_ns() - begin;
    qy_sampler_close(sampler);
    return st;
}

void qyi_answer_json(const struct qyi_answer *answer, cJSON *object)
{
    cJSON_AddItemToObject(object, "tokens", cJSON_CreateIntArray(answer->ids, (int)answer->n));
    cJSON_AddItemToObject(object, "gaps", cJSON_CreateFloatArray(answer->gaps, (int)answer->n));
    qyi_json_add_text(object, "text", answer->text);
}
