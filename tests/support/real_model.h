/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real model file, for tests that compare with reference values of it: QY_TEST_MODEL, or what
 * scripts/fetch-model put into the cache folder. A test without it is a skip:
 *
 *   if (real_model_path() == NULL) {
 *       return 77;
 *   }
 */
#ifndef QY_TESTS_SUPPORT_REAL_MODEL_H
#define QY_TESTS_SUPPORT_REAL_MODEL_H

/* The path, valid until the program ends; NULL when there is no such file, and then the first call
 * says on stderr where it was looked for. For one thread. */
const char *real_model_path(void);

#endif
