/* SPDX-License-Identifier: Apache-2.0 */
/* What quarry generate does for one prompt and for each of a list. */
#ifndef QYI_SERVE_GENERATE_H
#define QYI_SERVE_GENERATE_H

#include "serve/serve.h"

/* What came of one prompt; zero, then filled. */
struct qyi_generated {
    struct qy_sequence *seq;
    struct qyi_answer answer;
    struct qyi_report report;
};

/* Opens the rest of the engine for prompts of up to n_prompt tokens and their answers. */
QY_MUST enum qy_status qyi_generate_open(struct qyi_engine *engine, size_t n_prompt,
                                         struct qy_error *err);
/* Answers a prompt in a sequence of its own, which stays until close, so that what is told of the cache is told
 * with it; its text goes to stream as it comes, unless that is NULL. To be closed either way. */
QY_MUST enum qy_status qyi_generate_one(struct qyi_engine *engine, const struct qyi_prompt *prompt,
                                        FILE *stream, struct qyi_generated *generated,
                                        struct qy_error *err);
void qyi_generated_close(struct qyi_generated *generated);
/* Adds all that is told of it. */
void qyi_generate_json(const struct qyi_engine *engine, const struct qyi_generated *generated,
                       cJSON *object);

/* generate_list.c: the prompts of --prompts, one after another; of several workers each answers its own. The
 * exit code, which is this worker's alone. */
int qyi_generate_list(struct qyi_app *app);

#endif
