/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef QY_MODEL_UTF8_H
#define QY_MODEL_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes (1..4) of the valid character at p, of which left bytes can be read; 0 when there is none
 * (also when it is cut off). [noalloc] */
uint32_t qyi_utf8_valid(const uint8_t *p, size_t left);
/* Offset of the first byte that is no part of a valid character; n when all are. [noalloc] */
size_t qyi_utf8_scan(const uint8_t *p, size_t n);
/* The character at p, which qyi_utf8_valid found to have n bytes. */
uint32_t qyi_utf8_decode(const uint8_t *p, uint32_t n);
/* Writes c (at most U+10FFFF) and returns its bytes. */
uint32_t qyi_utf8_encode(uint32_t c, uint8_t out[4]);

#endif
