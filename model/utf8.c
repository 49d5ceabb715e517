/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8: validity, one character at a time, and the stream that never splits a character. It knows
 * no character classes: those are the pre-tokenizer's. */
#include "model/utf8.h"

#include <string.h>

#include "model/model.h"

/* What a lead byte promises: its length, and the range of the byte after it, which alone tells
 * overlong forms, surrogates and too large values. Length 0: not a lead byte. */
static uint32_t lead(uint8_t b, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (b < 0x80) {
        return 1;
    }
    if (b < 0xc2 || b > 0xf4) {
        return 0;
    }
    if (b < 0xe0) {
        return 2;
    }
    *low = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
    *high = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
    return b < 0xf0 ? 3 : 4;
}

/* Bytes at p that belong to one character, at most left: all of it when the result equals *want,
 * the start of one when it is cut off by left; 0 when the bytes are no start of a character. */
static uint32_t prefix(const uint8_t *p, size_t left, uint32_t *want)
{
    uint8_t low, high;
    *want = left == 0 ? 0 : lead(p[0], &low, &high);
    if (*want == 0) {
        return 0;
    }
    for (uint32_t i = 1; i < *want; i++) {
        if (i == left) {
            return i;
        }
        if (p[i] < low || p[i] > high) {
            return 0;
        }
        low = 0x80;
        high = 0xbf;
    }
    return *want;
}

uint32_t qyi_utf8_valid(const uint8_t *p, size_t left)
{
    uint32_t want;
    uint32_t have = prefix(p, left, &want);
    return have == want ? have : 0;
}

size_t qyi_utf8_scan(const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint64_t word;
        if (n - i >= sizeof(word)) {
            memcpy(&word, p + i, sizeof(word));
            if ((word & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof(word);
                continue;
            }
        }
        uint32_t bytes = qyi_utf8_valid(p + i, n - i);
        if (bytes == 0) {
            return i;
        }
        i += bytes;
    }
    return n;
}

uint32_t qyi_utf8_decode(const uint8_t *p, uint32_t n)
{
    static const uint8_t mask[5] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t c = p[0] & mask[n];
    for (uint32_t i = 1; i < n; i++) {
        c = c << 6 | (p[i] & 0x3f);
    }
    return c;
}

uint32_t qyi_utf8_encode(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    uint32_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t mark[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (uint32_t i = n - 1; i > 0; i--) {
        out[i] = (uint8_t)(0x80 | (c & 0x3f));
        c >>= 6;
    }
    out[0] = (uint8_t)(mark[n] | c);
    return n;
}

size_t qy_utf8_push(struct qy_utf8_stream *stream, const char *bytes, size_t n, int flush,
                    char *out)
{
    uint32_t n_pending = stream->n_pending;
    memcpy(out, stream->pending, n_pending);
    if (n > 0) {
        memcpy(out + n_pending, bytes, n);
    }
    size_t total = n_pending + n;
    stream->n_pending = 0;
    if (flush) {
        return total;
    }
    /* Only the last three bytes can begin a character that is not complete. */
    for (uint32_t back = 1; back <= 3 && back <= total; back++) {
        const uint8_t *p = (const uint8_t *)out + total - back;
        uint32_t want;
        uint32_t have = prefix(p, back, &want);
        if (have > 0 && have == back && have < want) {
            memcpy(stream->pending, p, back);
            stream->n_pending = back;
            return total - back;
        }
        if ((*p & 0xc0) != 0x80) {
            break;
        }
    }
    return total;
}
