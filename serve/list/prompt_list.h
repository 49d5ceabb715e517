/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list of prompts in a file (generate --prompts), one a line: plain text; or a JSON string, for prompts of
 * several lines; or a JSON object with a text "prompt", of which nothing else is read. A line that begins
 * with " or { is one of the last two. Lines without a character are no prompts.
 */
#ifndef QYI_SERVE_PROMPT_LIST_H
#define QYI_SERVE_PROMPT_LIST_H

#include "runtime/runtime.h"

/* A plain value. */
struct qyi_prompt_list {
    char **texts; /* [n], NUL-terminated */
    size_t n;
};

/* path: "-" is stdin. QY_ERR_NOT_FOUND: it cannot be read; QY_ERR_CONFIG: a line that is neither, or no
 * prompt at all. [alloc] */
QY_MUST enum qy_status qyi_prompt_list_read(const char *path, struct qyi_prompt_list *list,
                                            struct qy_error *err);
void qyi_prompt_list_free(struct qyi_prompt_list *list);

#endif
