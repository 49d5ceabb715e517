/* SPDX-License-Identifier: Apache-2.0 */
/* The contexts that a codebook is learnt from: files, random strings, or the model's own words. */
#include <stdlib.h>
#include <string.h>

#include "serve/calibrate/calibrate.h"

void qyi_contexts_free(struct qyi_contexts *contexts)
{
    free(contexts->ids);
    free(contexts->ends);
    memset(contexts, 0, sizeof *contexts);
}

/* Source: splitmix64, Steele et al. 2014. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

struct maker {
    struct qyi_engine *engine;
    struct qyi_contexts *contexts;
    int32_t bos[4]; /* what the file puts in front of a text */
    size_t n_bos;
    size_t room, room_contexts;
    uint32_t context; /* tokens of one at most */
};

/* ids [n] as one context. */
static void add_context(struct maker *maker, const int32_t *ids, size_t n)
{
    struct qyi_contexts *c = maker->contexts;
    if (n == 0 || c->n == maker->room_contexts || c->n_ids + maker->n_bos + n > maker->room) {
        return; /* the room was reckoned for all of them: only rounding can come here */
    }
    memcpy(c->ids + c->n_ids, maker->bos, maker->n_bos * sizeof *ids);
    memcpy(c->ids + c->n_ids + maker->n_bos, ids, n * sizeof *ids);
    c->n_ids += maker->n_bos + n;
    c->ends[c->n++] = c->n_ids;
}

/* `want` of ids [n], as whole contexts from places spread evenly over the text. */
static void add_spread(struct maker *maker, const int32_t *ids, size_t n, size_t want)
{
    const size_t most = maker->context - maker->n_bos;
    want = want < n ? want : n;
    const size_t pieces = (want + most - 1) / most;
    for (size_t i = 0; i < pieces; i++) {
        const size_t take = want * (i + 1) / pieces - want * i / pieces;
        const size_t free_tokens = n - want; /* between the pieces */
        add_context(maker, ids + want * i / pieces + free_tokens * i / pieces, take);
    }
}

static enum qy_status add_file(struct maker *maker, const char *path, size_t want,
                               struct qy_error *err)
{
    const struct qyi_engine *engine = maker->engine;
    char *text = NULL;
    size_t bytes = 0, n = 0;
    int32_t *ids = NULL;
    enum qy_status st = qyi_read_file(path, &text, &bytes, err);
    if (st != QY_OK) {
        return st;
    }
    st = qy_tokenizer_encode(engine->tokenizer, text, bytes, 0, &ids, &n, err);
    free(text);
    if (st == QY_OK && n < want) {
        fprintf(stderr, "calibrate: '%s' has %zu tokens; %zu were wanted\n", path, n, want);
    }
    if (st == QY_OK) {
        add_spread(maker, ids, n, want);
    }
    qy_free(&engine->app->rt.mem, ids);
    return st;
}

/* Comma-joined UUIDs. */
static enum qy_status add_random_strings(struct maker *maker, uint64_t seed, size_t want,
                                         struct qy_error *err)
{
    static const char hex[] = "0123456789abcdef";
    const size_t bytes = 4 * want + 64; /* a token of such text is some two characters */
    char *text = malloc(bytes + 1);
    int32_t *ids = NULL;
    size_t n = 0;
    uint64_t state = seed ^ 0x5175617272797263u;
    if (text == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "calibrate: random strings: out of memory");
    }
    for (size_t i = 0; i < bytes; i++) {
        const size_t at = i % 37;
        text[i] = at == 36                                      ? ','
                  : at == 8 || at == 13 || at == 18 || at == 23 ? '-'
                  : at == 14                                    ? '4'
                  : at == 19                                    ? hex[8 + next_random(&state) % 4]
                                                                : hex[next_random(&state) % 16];
    }
    const enum qy_status st =
        qy_tokenizer_encode(maker->engine->tokenizer, text, bytes, 0, &ids, &n, err);
    free(text);
    if (st == QY_OK) {
        add_spread(maker, ids, n < want ? n : want, want);
    }
    qy_free(&maker->engine->app->rt.mem, ids);
    return st;
}

static enum qy_status add_written(struct maker *maker, uint64_t seed, size_t want,
                                  struct qy_error *err)
{
    int32_t *ids = malloc((want + 1) * sizeof *ids);
    if (ids == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "calibrate: %zu tokens: out of memory", want);
    }
    const enum qy_status st = qyi_contexts_write(maker->engine, seed, want, ids, err);
    if (st == QY_OK) {
        add_spread(maker, ids, want, want);
    }
    free(ids);
    return st;
}

/* The tokens that the model's file wants in front of every text. */
static enum qy_status find_bos(struct maker *maker, struct qy_error *err)
{
    int32_t *ids = NULL;
    size_t n = 0;
    const enum qy_status st =
        qy_tokenizer_encode(maker->engine->tokenizer, "", 0, QY_ENCODE_BOS, &ids, &n, err);
    if (st == QY_OK && n > 0 && ids[0] == qy_tokenizer_bos(maker->engine->tokenizer)) {
        maker->bos[maker->n_bos++] = ids[0];
    }
    qy_free(&maker->engine->app->rt.mem, ids);
    return st;
}

enum qy_status qyi_contexts_make(struct qyi_engine *engine,
                                 const struct qyi_calibration *calibration, uint64_t n_tokens,
                                 uint32_t context, struct qyi_contexts *contexts,
                                 struct qy_error *err)
{
    const size_t n_files = calibration->n_texts, random = (size_t)n_tokens / 5;
    const size_t text = (size_t)n_tokens - random;
    struct maker maker = {.engine = engine, .contexts = contexts, .context = context};
    memset(contexts, 0, sizeof *contexts);
    enum qy_status st = find_bos(&maker, err);
    if (st != QY_OK) {
        return st;
    }
    maker.room_contexts = (size_t)n_tokens / (context - maker.n_bos) + n_files + 4;
    maker.room = (size_t)n_tokens + maker.room_contexts * maker.n_bos;
    contexts->ids = malloc(maker.room * sizeof *contexts->ids);
    contexts->ends = malloc(maker.room_contexts * sizeof *contexts->ends);
    if (contexts->ids == NULL || contexts->ends == NULL) {
        st = qy_error_set(err, QY_ERR_NOMEM, "calibrate: %zu tokens: out of memory", maker.room);
    }
    for (size_t i = 0; st == QY_OK && i < n_files; i++) {
        st = add_file(&maker, calibration->texts[i], text * (i + 1) / n_files - text * i / n_files,
                      err);
    }
    if (st == QY_OK && n_files == 0) {
        st = add_written(&maker, calibration->seed, text, err);
    }
    if (st == QY_OK) {
        st = add_random_strings(&maker, calibration->seed, random, err);
    }
    if (st == QY_OK && contexts->n_ids < 256) {
        st = qy_error_set(err, QY_ERR_CONFIG,
                          "calibrate: %zu tokens of text; at least 256 are needed, some 20,000 "
                          "are good; give longer texts with -t",
                          contexts->n_ids);
    }
    if (st != QY_OK) {
        qyi_contexts_free(contexts);
    }
    return st;
}
