/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to value and back, by the type of the row, with the check of its range. It knows no source
 * and no file.
 */
#include "runtime/config_internal.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* !(a && b) refuses NaN, which every plain comparison lets through. */
static int in_range(const struct qy_setting *setting, double value)
{
    return !(value >= setting->min && value <= setting->max) ? 0 : 1;
}

/* Place of text in "a|b|c", -1 when it is none of them. */
static int find_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);
    int place = 0;

    for (const char *p = choices;; place++) {
        size_t n = strcspn(p, "|");

        if (n == length && memcmp(p, text, n) == 0) {
            return place;
        }
        if (p[n] == '\0') {
            return -1;
        }
        p += n + 1;
    }
}

static int parse_int(const struct qy_setting *setting, const char *text, int64_t *value)
{
    char *end;
    long long number;

    /* strtoll would pass over white space and take "+5" */
    if (!isdigit((unsigned char)text[0]) && text[0] != '-') {
        return -1;
    }
    errno = 0;
    number = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || !in_range(setting, (double)number)) {
        return -1;
    }
    *value = number;
    return 0;
}

static int parse_size(const struct qy_setting *setting, const char *text, uint64_t *value)
{
    uint64_t bytes;

    if (qy_parse_size(text, &bytes) != 0 || !in_range(setting, (double)bytes)) {
        return -1;
    }
    *value = bytes;
    return 0;
}

static int parse_real(const struct qy_setting *setting, const char *text, double *value)
{
    char *end;
    double number;

    if (isspace((unsigned char)text[0])) {
        return -1;
    }
    number = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(number) || !in_range(setting, number)) {
        return -1;
    }
    *value = number;
    return 0;
}

int qyi_value_parse(const struct qy_setting *setting, const char *text, void *value)
{
    int is_auto = setting->allow_auto && strcmp(text, "auto") == 0;
    int choice;

    switch (setting->type) {
    case QY_SETTING_BOOL:
        choice = find_choice("off|on", text);
        break;
    case QY_SETTING_INT:
        if (is_auto) {
            *(int64_t *)value = 0;
            return 0;
        }
        return parse_int(setting, text, value);
    case QY_SETTING_SIZE:
        if (is_auto) {
            *(uint64_t *)value = 0;
            return 0;
        }
        return parse_size(setting, text, value);
    case QY_SETTING_REAL:
        return parse_real(setting, text, value);
    case QY_SETTING_TEXT:
        if (strlen(text) >= QY_SETTING_TEXT_BYTES) {
            return -1;
        }
        memset(value, 0, QY_SETTING_TEXT_BYTES);
        memcpy(value, text, strlen(text));
        return 0;
    case QY_SETTING_CHOICE:
        choice = find_choice(setting->choices, text);
        break;
    default:
        return -1;
    }
    if (choice < 0) {
        return -1;
    }
    *(int *)value = choice;
    return 0;
}

/* A size in the largest unit that keeps it exact. */
static void format_size_exact(uint64_t bytes, char *out, size_t out_bytes)
{
    static const char units[] = "KMGT";
    const char *unit = "";

    for (size_t i = 0; i < 4 && bytes > 0 && bytes % 1024 == 0; i++) {
        bytes /= 1024;
        unit = units + i;
    }
    snprintf(out, out_bytes, "%" PRIu64 "%.1s", bytes, unit);
}

/* The shortest of the two usual precisions that reads back as the same number. */
static void format_real(double value, char *out, size_t bytes)
{
    snprintf(out, bytes, "%.15g", value);
    if (strtod(out, NULL) < value || strtod(out, NULL) > value) {
        snprintf(out, bytes, "%.17g", value);
    }
}

static void format_choice(const char *choices, int place, char *out, size_t bytes)
{
    const char *p = choices;

    for (; place > 0 && *p != '\0'; place--) {
        p += strcspn(p, "|");
        p += *p == '|';
    }
    snprintf(out, bytes, "%.*s", (int)strcspn(p, "|"), p);
}

char *qyi_value_format(const struct qy_setting *setting, const void *value, char *out, size_t bytes)
{
    switch (setting->type) {
    case QY_SETTING_BOOL:
        format_choice("off|on", *(const int *)value != 0, out, bytes);
        return out;
    case QY_SETTING_INT:
        if (setting->allow_auto && *(const int64_t *)value == 0) {
            break;
        }
        snprintf(out, bytes, "%" PRId64, *(const int64_t *)value);
        return out;
    case QY_SETTING_SIZE:
        if (setting->allow_auto && *(const uint64_t *)value == 0) {
            break;
        }
        format_size_exact(*(const uint64_t *)value, out, bytes);
        return out;
    case QY_SETTING_REAL:
        format_real(*(const double *)value, out, bytes);
        return out;
    case QY_SETTING_TEXT:
        snprintf(out, bytes, "%.*s", QY_SETTING_TEXT_BYTES - 1, (const char *)value);
        return out;
    case QY_SETTING_CHOICE:
        format_choice(setting->choices, *(const int *)value, out, bytes);
        return out;
    }
    snprintf(out, bytes, "auto");
    return out;
}

/* "a|b|c" as "a, b and c". */
static void list_choices(const char *choices, char *out, size_t bytes)
{
    size_t used = 0;

    for (const char *p = choices; *p != '\0' && used < bytes; p++) {
        const char *more = strchr(p + 1, '|');
        const char *text = more != NULL ? ", " : " and ";

        used += (size_t)(*p == '|' ? snprintf(out + used, bytes - used, "%s", text)
                                   : snprintf(out + used, bytes - used, "%c", *p));
    }
}

char *qyi_value_accepted(const struct qy_setting *setting, char *out, size_t bytes)
{
    const char *automatic = setting->allow_auto ? ", and 'auto'," : "";
    char low[64], high[64];

    switch (setting->type) {
    case QY_SETTING_BOOL:
        snprintf(out, bytes, "on and off are accepted");
        break;
    case QY_SETTING_INT:
        snprintf(out, bytes, "whole numbers %.0f to %.0f%s are accepted", setting->min,
                 setting->max, automatic);
        break;
    case QY_SETTING_SIZE:
        format_size_exact((uint64_t)setting->min, low, sizeof(low));
        format_size_exact(setting->max >= 0x1p64 ? UINT64_MAX : (uint64_t)setting->max, high,
                          sizeof(high));
        snprintf(out, bytes, "sizes %s to %s (K, M, G and T are powers of 1024)%s are accepted",
                 low, high, automatic);
        break;
    case QY_SETTING_REAL:
        snprintf(out, bytes, "numbers %g to %g are accepted", setting->min, setting->max);
        break;
    case QY_SETTING_TEXT:
        snprintf(out, bytes, "text of at most %d bytes is accepted", QY_SETTING_TEXT_BYTES - 1);
        break;
    case QY_SETTING_CHOICE:
        list_choices(setting->choices, low, sizeof(low));
        snprintf(out, bytes, "%s are accepted", low);
        break;
    }
    return out;
}
