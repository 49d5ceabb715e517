/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Learning a codebook: text in, file out.
 *
 *   calibrate_text.c     contexts of tokens: from files, random strings, or written by the model
 *   calibrate_collect.c  the model reads them; keys and queries before RoPE are kept
 *   calibrate_train.c    the threads learn head after head
 *   calibrate.c          the whole, with its state file
 */
#ifndef QY_SERVE_CALIBRATE_H
#define QY_SERVE_CALIBRATE_H

#include "serve/serve.h"

enum qyi_quality { QYI_QUALITY_LOW, QYI_QUALITY_DEFAULT, QYI_QUALITY_HIGH };

struct qyi_calibration {
    enum qy_codebook_kind kind;
    const char *out;
    const char *const *texts; /* files                                                     */
    size_t n_texts;           /* 0: the model writes the text itself                        */
    enum qyi_quality quality;
    enum qy_metric metric;
    uint64_t n_tokens;    /* 0: by quality                                                  */
    uint32_t iterations;  /* 0: by quality                                                  */
    uint32_t sub_vectors; /* PQ4; 0: head_dim / 4                                           */
    uint32_t n_words;     /* VQ; 0: 4,096                                                   */
    uint64_t seed;
};

struct qyi_calibrated {
    uint64_t n_tokens, bytes;
    double read_seconds, learn_seconds, distortion;
    uint32_t n_tables, n_resumed;
};

/* Opens an engine of its own. Ctrl-C: QY_AGAIN, and what was learnt waits in `<out>.part` for the
 * next call that asks for the same. Progress goes to stderr. */
QY_MUST enum qy_status qyi_calibrate(struct qyi_app *app, const struct qyi_calibration *calibration,
                                     struct qyi_calibrated *result, struct qy_error *err);

/* calibrate --reuse: which layers may take what an earlier one chose; writes a file of settings. Prints
 * its result. */
QY_MUST enum qy_status qyi_calibrate_reuse(struct qyi_app *app, struct qy_error *err);

/* ---- text ----------------------------------------------------------------------------------- */

enum { QYI_CALIBRATE_CONTEXT = 4096 };

/* Contexts of at most QYI_CALIBRATE_CONTEXT tokens each, one behind the other. */
struct qyi_contexts {
    int32_t *ids; /* freed with free */
    size_t n_ids;
    size_t *ends; /* [n]: context i is ids[ends[i - 1]] .. ids[ends[i]]; freed with free */
    size_t n;
};
void qyi_contexts_free(struct qyi_contexts *contexts);
/* About n_tokens: four fifths from the files, in equal shares and spread over each; one fifth random
 * strings, which teach copying (as in A2ATS). Without files, the model writes: the engine is open,
 * with room for QYI_WRITERS sequences and rows of logits. context: tokens of one at most. */
enum { QYI_WRITERS = 64 };
QY_MUST enum qy_status qyi_contexts_make(struct qyi_engine *engine,
                                         const struct qyi_calibration *calibration,
                                         uint64_t n_tokens, uint32_t context,
                                         struct qyi_contexts *contexts, struct qy_error *err);
/* n tokens that the model writes from nothing, at temperature 1, into ids. */
QY_MUST enum qy_status qyi_contexts_write(struct qyi_engine *engine, uint64_t seed, size_t n,
                                          int32_t *ids, struct qy_error *err);

/* ---- samples -------------------------------------------------------------------------------- */

/* What the model's heads saw: [layer][kv_head]. */
struct qyi_samples {
    struct qy_kv_shape shape;
    size_t n, room;    /* keys of each head                                                     */
    uint16_t *keys;    /* [layer][kv_head][room][d] f16, before RoPE                            */
    double *query;     /* [layer][kv_head][d][d]: sum of q^T q, then their mean                 */
    uint64_t *n_query; /* [layer][kv_head]: queries in it                                       */
    uint32_t every;    /* one token in so many gives queries                                    */
    size_t base;       /* place of the context's first key; SIZE_MAX: nothing is kept now       */
};

/* A policy that attends to everything and keeps what passes by. The cache is given `settings`, by
 * which the policy finds the samples: there is no other way from a cache's caller to its policy. */
struct qyi_collector {
    struct qy_retrieval_settings settings; /* first: see above */
    struct qyi_samples *samples;
};
extern const struct qy_policy_ops qyi_collector_ops;

QY_MUST enum qy_status qyi_samples_open(struct qyi_samples *samples, struct qy_kv_shape shape,
                                        size_t room, int query, struct qy_error *err);
void qyi_samples_close(struct qyi_samples *samples);
/* The model reads all contexts. */
QY_MUST enum qy_status qyi_samples_collect(struct qyi_engine *engine,
                                           const struct qyi_contexts *contexts,
                                           struct qyi_samples *samples, struct qy_error *err);

/* ---- learning ------------------------------------------------------------------------------- */

/* Fills the tables that are not there yet. Ctrl-C ends it early, with QY_OK. */
QY_MUST enum qy_status qyi_samples_learn(struct qyi_app *app, struct qy_codebook *codebook,
                                         const struct qy_train_params *params,
                                         const struct qyi_samples *samples, double *distortion,
                                         struct qy_error *err);

#endif
