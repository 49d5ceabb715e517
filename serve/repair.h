/* SPDX-License-Identifier: Apache-2.0 */
/* What repair.c and lost.c share. */
#ifndef QYI_SERVE_REPAIR_H
#define QYI_SERVE_REPAIR_H

#include "serve/serve.h"

/* For --json. */
void qyi_mended_note(struct qyi_engine *engine, const struct qyi_mended *mended);

/* lost.c: how often a step may find blocks lost before it is given up; 0 without memory servers. */
uint32_t qyi_lost_tries(const struct qyi_engine *engine);
/* After something that the slices' sequences were in `failed`: QY_OK: blocks of them were lost, and are
 * there again, with one warning; failed: none were; else why they could not be. */
QY_MUST enum qy_status qyi_lost_mend(struct qyi_engine *engine, const struct qy_step_slice *slices,
                                     uint32_t n_slices, enum qy_status failed,
                                     struct qy_error *err);
/* Adds `servers`, their addresses. bits: as in struct qy_lost. */
void qyi_servers_json(const struct qyi_engine *engine, uint64_t bits, cJSON *object);

#endif
