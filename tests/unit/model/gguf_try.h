/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens GGUF bytes that may be wrong and checks what holds for all of them: a refusal has a status
 * and a text that names the file, nothing is read outside the bytes (the copy is exactly as large
 * as the file, so ASan sees it), nothing leaks, and no allocation is out of proportion to the file.
 */
#ifndef QY_TESTS_UNIT_MODEL_GGUF_TRY_H
#define QY_TESTS_UNIT_MODEL_GGUF_TRY_H

#include "model/model.h"
#include "tests/support/make_gguf_writer.h"

/* Opens a copy of bytes; when it opens, reads everything that the accessors give. */
enum qy_status gguf_try_open(const uint8_t *bytes, size_t n, struct qy_error *err);
/* The finished file is refused with status and a text that has words in it. */
void gguf_expect_refused(struct gguf_writer *w, enum qy_status status, const char *words);

#endif
