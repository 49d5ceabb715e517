/* SPDX-License-Identifier: Apache-2.0 */
/* The includes that every cmocka test needs, in the order that cmocka needs. */
#ifndef QY_TESTS_SUPPORT_TEST_H
#define QY_TESTS_SUPPORT_TEST_H
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#endif
