/* SPDX-License-Identifier: Apache-2.0 */
/* Which codebook a run uses, and where codebooks are kept. */
#ifndef QY_SERVE_CODEBOOK_H
#define QY_SERVE_CODEBOOK_H

#include "serve/serve.h"

/* The user's cache folder of quarry, without a slash at its end. */
void qyi_cache_folder(char *path, size_t bytes);

/* The codebook that engine->policy asks for, into engine->codebook; the file must be open. In order:
 * the file that retrieval.codebook names; one of this model among those that came with the program
 * and in the cache folder; one that is learnt now, where retrieval.auto_calibrate is on. */
QY_MUST enum qy_status qyi_codebook_find(struct qyi_engine *engine, struct qy_error *err);

enum { QYI_CODEBOOK_PATH_BYTES = 1024 };
/* The file that qyi_codebook_find would open, path [QYI_CODEBOOK_PATH_BYTES]; 0: the policy needs none, or there is
 * none yet. */
int qyi_codebook_file(const struct qyi_engine *engine, char *path);
int qyi_codebook_needed(const struct qyi_engine *engine);

/* What a codebook of this kind for the engine's model must be: kind, hash and name; no shape. */
struct qy_codebook_info qyi_codebook_wanted(const struct qyi_engine *engine,
                                            enum qy_codebook_kind kind);
/* "a2ats+" or "a2ats": the policy that a kind is calibrated by. */
const char *qyi_codebook_policy(enum qy_codebook_kind kind);
/* Where the codebook of a model is kept in the cache folder. The folder is made. */
QY_MUST enum qy_status qyi_codebook_path(const struct qyi_engine *engine,
                                         enum qy_codebook_kind kind, char *path, size_t bytes,
                                         struct qy_error *err);

/* random_codebook.c: words as random as the rows of qy_sequence_fill_random. *codebook is returned;
 * NULL when kind is none. */
QY_MUST enum qy_status qyi_codebook_random(const struct qy_allocator *mem,
                                           enum qy_codebook_kind kind,
                                           const struct qy_kv_shape *shape, uint64_t *state,
                                           struct qy_codebook **codebook, struct qy_error *err);
/* About normal, variance 1. */
float qyi_near_normal(uint64_t *state);

#endif
