/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text helpers of the configuration: sizes with units, and the nearest of a list of words.
 */
#include "runtime/config_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* Shift of a unit letter, 0 when there is none, -1 when it is no unit. */
static int unit_shift(const char *text)
{
    static const char units[] = "KMGT";
    const char *found;

    if (text[0] == '\0') {
        return 0;
    }
    found = strchr(units, toupper((unsigned char)text[0]));
    return found != NULL && text[1] == '\0' ? 10 * (int)(found - units + 1) : -1;
}

int qy_parse_size(const char *text, uint64_t *bytes)
{
    uint64_t whole = 0, part = 0, scale = 1;
    const char *p = text;
    int shift;

    if (!isdigit((unsigned char)*p)) {
        return -1;
    }
    for (; isdigit((unsigned char)*p); p++) {
        if (__builtin_mul_overflow(whole, 10u, &whole) ||
            __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole)) {
            return -1;
        }
    }
    if (*p == '.') {
        /* six digits: more than any size needs, and part << 40 still fits */
        for (p++; isdigit((unsigned char)*p) && scale < 1000000; p++) {
            part = part * 10 + (uint64_t)(*p - '0');
            scale *= 10;
        }
        if (scale == 1 || *p == '\0') { /* "1." or half a byte */
            return -1;
        }
    }
    shift = unit_shift(p);
    if (shift < 0 || whole > UINT64_MAX >> shift) {
        return -1;
    }
    whole <<= shift;
    if (__builtin_add_overflow(whole, (part << shift) / scale, &whole)) {
        return -1;
    }
    *bytes = whole;
    return 0;
}

char *qy_format_size(uint64_t bytes, char *out, size_t out_bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes / 1024;
    size_t unit = 0;

    if (bytes < 1024) {
        snprintf(out, out_bytes, "%u bytes", (unsigned)bytes);
        return out;
    }
    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(out, out_bytes, "%.1f %s", value, units[unit]);
    return out;
}

int qyi_trim(const char *text, size_t length, char *out, size_t bytes)
{
    while (length > 0 && isspace((unsigned char)text[0])) {
        text++;
        length--;
    }
    while (length > 0 && isspace((unsigned char)text[length - 1])) {
        length--;
    }
    if (length >= bytes) {
        return 0;
    }
    memcpy(out, text, length);
    out[length] = '\0';
    return 1;
}

/* Source: Wagner and Fischer 1974, "The string-to-string correction problem"; one row of it. */
size_t qyi_edit_distance(const char *a, const char *b)
{
    size_t row[QYI_NAME_BYTES + 1];
    size_t n = strlen(b);

    if (n > QYI_NAME_BYTES || strlen(a) > QYI_NAME_BYTES) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= n; j++) {
        row[j] = j;
    }
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[n];
}

size_t qyi_near_enough(const char *word)
{
    size_t third = strlen(word) / 3;

    return third > 2 ? third : 2;
}

const char *qy_nearest(const char *word, const char *const *candidates, size_t n)
{
    size_t best = qyi_near_enough(word) + 1;
    const char *nearest = NULL;

    for (size_t i = 0; i < n; i++) {
        size_t distance = qyi_edit_distance(word, candidates[i]);

        if (distance < best) {
            best = distance;
            nearest = candidates[i];
        }
    }
    return nearest;
}
