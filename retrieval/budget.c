/* SPDX-License-Identifier: Apache-2.0 */
/* Budgets: text to struct, and struct to a number of tokens. Pure functions. */
#include "retrieval/retrieval.h"

#include <math.h>
#include <string.h>

/* Reads digits with at most one point ("12", "0.05", "1."); no sign, exponent, hex, nan or
 * locale. Returns what follows, or NULL when there is no such number. */
static const char *read_decimal(const char *text, double *value, int *whole)
{
    double sum = 0.0;
    double unit = 1.0;
    int digits = 0;
    int point = 0;

    for (; (*text >= '0' && *text <= '9') || (*text == '.' && !point); text++) {
        if (*text == '.') {
            point = 1;
            continue;
        }
        digits++;
        sum = sum * 10.0 + (*text - '0');
        unit *= point ? 10.0 : 1.0;
    }
    if (digits == 0 || digits > 18) {
        return NULL;
    }
    *value = sum / unit;
    *whole = !point;
    return text;
}

/* A share ("0.05", "1.0") or a count of tokens ("2048"), up to the end of the text. */
static int read_size(const char *text, struct qy_budget *budget)
{
    double value;
    int whole;
    const char *end = read_decimal(text, &value, &whole);

    if (!end || *end != '\0' || !(value > 0.0)) {
        return -1;
    }
    if (value <= 1.0) {
        budget->ratio = value;
        return 0;
    }
    if (!whole || value > (double)UINT32_MAX) {
        return -1;
    }
    budget->tokens = (uint32_t)value;
    return 0;
}

/* "0.95:0.10" or "0.95~4096:0.10", after the p. */
static int read_mass(const char *text, struct qy_budget *budget)
{
    int whole;
    double at;
    const char *end = read_decimal(text, &budget->mass, &whole);

    if (end && *end == '~') {
        end = read_decimal(end + 1, &at, &whole);
        if (!end || !whole || !(at >= 1.0) || at > (double)UINT32_MAX) {
            return -1;
        }
        budget->mass_at = (uint32_t)at;
    }
    if (!end || *end != ':' || !(budget->mass > 0.0 && budget->mass <= 1.0)) {
        return -1;
    }
    return read_size(end + 1, budget);
}

enum qy_status qy_budget_parse(const char *text, struct qy_budget *budget, struct qy_error *err)
{
    struct qy_budget read = {0};
    int bad = text[0] == 'p' ? read_mass(text + 1, &read) : read_size(text, &read);

    if (bad) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "budget '%.60s': not a budget; accepted are a share of the context "
                            "above 0 and at most 1.0 (0.05), a whole number of tokens above 1 "
                            "(2048), or attention mass under such a cap (p0.95:0.10; "
                            "p0.95~4096:0.10: more mass of more than 4096 tokens)",
                            text);
    }
    *budget = read;
    return QY_OK;
}

uint32_t qy_budget_tokens(const struct qy_budget *budget, uint32_t n)
{
    double want = budget->tokens;

    if (budget->tokens == 0) {
        /* 0.1 of 30 is 3, not 4: the product may be one rounding error above the whole number */
        want = ceil(budget->ratio * n - 1e-12 * n);
    }
    return want < (double)n ? (uint32_t)want : n;
}

double qy_budget_mass(const struct qy_budget *budget, uint32_t n)
{
    const double missing = 1.0 - budget->mass;

    if (!(budget->mass > 0.0) || budget->mass_at == 0 || n <= budget->mass_at) {
        return budget->mass;
    }
    return 1.0 - missing * budget->mass_at / n;
}
