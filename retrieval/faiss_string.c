/* SPDX-License-Identifier: Apache-2.0 */
/* See faiss_string.h. Names of components as in FAISS's wiki, "The index factory". */
#include "retrieval/faiss_string.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Letters that a component may begin with, before its first digit. */
static const char *const known[] = {"Flat", "PQ",       "SQ",   "SQfp",  "IVF",    "HNSW",  "NSG",
                                    "OPQ",  "PCA",      "PCAR", "PCAW",  "RR",     "PCAWR", "ITQ",
                                    "LSH",  "Pad",      "L",    "RFlat", "Refine", "RQ",    "LSQ",
                                    "PRQ",  "Residual", "IMI",  "IDMap", "Fast",   "PLSQ"};
enum { N_KNOWN = sizeof(known) / sizeof(known[0]), MOST_LISTS = 1 << 20 };

static enum qy_status refused(const char *argument, const char *part, size_t n, const char *why,
                              struct qy_error *err)
{
    return qy_error_set(err, QY_ERR_CONFIG,
                        "policy 'faiss:%.80s': component '%.*s': %s; accepted are factory strings "
                        "of FAISS, such as Flat, PQ8, SQ8, HNSW32 or IVF64,PQ8, with search "
                        "parameters after an '@', such as IVF64,Flat@nprobe=8",
                        argument, (int)(n < 40 ? n : 40), part, why);
}

static int is_known(const char *part, size_t letters)
{
    for (size_t i = 0; i < N_KNOWN; i++) {
        if (strlen(known[i]) == letters && strncmp(known[i], part, letters) == 0) {
            return 1;
        }
    }
    return 0;
}

/* What a component does to the vectors, and what it wants. */
struct reading {
    int plain_pq; /* a PQ without a suffix */
    uint32_t d;   /* elements of a vector that reaches this component */
    uint32_t least_points;
};

static void want_points(struct reading *r, unsigned long n)
{
    if (n > r->least_points) {
        r->least_points = (uint32_t)(n < MOST_LISTS ? n : MOST_LISTS);
    }
}

/* PQ<m>, PQ<m>x<bits>, either with fs or np; OPQ<m>, OPQ<m>_<d>. NULL: fine. */
static const char *read_quantizer(const char *part, size_t letters, struct reading *r)
{
    const int rotation = part[0] == 'O';
    char *end = NULL;
    const unsigned long m = strtoul(part + letters, &end, 10);
    unsigned long bits = 8;

    if (rotation && *end == '_') {
        r->d = (uint32_t)strtoul(end + 1, NULL, 10);
    }
    if (m == 0 || r->d == 0 || r->d % m != 0) {
        return "the number of sub-vectors must divide the number of elements";
    }
    if (!rotation && *end == 'x') {
        bits = strtoul(end + 1, &end, 10);
        if (bits < 1 || bits > 12) {
            return "1 to 12 bits per sub-vector are accepted";
        }
    }
    if (!rotation && strncmp(end, "fs", 2) == 0 && bits != 4) {
        return "fast scan has 4 bits per sub-vector: PQ<m>x4fs";
    }
    want_points(r, 1UL << bits);
    r->plain_pq = !rotation && (*end == ',' || *end == '@' || *end == '\0');
    return NULL;
}

static const char *read_part(const char *part, size_t letters, size_t n, struct reading *r)
{
    const unsigned long number = letters < n ? strtoul(part + letters, NULL, 10) : 0;

    if (!is_known(part, letters)) {
        return "FAISS has no index of that name";
    }
    if (strncmp(part, "PQ", 2) == 0 || strncmp(part, "OPQ", 3) == 0) {
        return read_quantizer(part, letters, r);
    }
    if (strncmp(part, "IVF", 3) == 0) {
        want_points(r, number);
        return number == 0 || number > MOST_LISTS ? "a number of lists is missing" : NULL;
    }
    if (strncmp(part, "PCA", 3) == 0) {
        if (number == 0 || number > r->d) {
            return "it keeps 1 up to as many elements as there are";
        }
        want_points(r, r->d);
        r->d = (uint32_t)number;
    } else if (strncmp(part, "HNSW", 4) == 0 || strncmp(part, "NSG", 3) == 0) {
        return number < 2 || number > 512 ? "2 to 512 links are accepted" : NULL;
    }
    return NULL;
}

enum qy_status qyi_faiss_string_read(const char *argument, uint32_t d,
                                     struct qyi_faiss_string *string, struct qy_error *err)
{
    struct reading r = {.d = d, .least_points = 1};
    const size_t length = strcspn(argument, "@");
    int used = 0;

    if (length == 0) {
        return refused(argument, "", 0, "a factory string is missing", err);
    }
    if (strlen(argument) >= QYI_FAISS_TEXT) {
        return refused(argument, argument, length, "it is too long", err);
    }
    for (const char *part = argument; part < argument + length;) {
        const size_t rest = (size_t)(argument + length - part);
        const size_t to_comma = strcspn(part, ",@");
        const size_t n = to_comma < rest ? to_comma : rest;
        size_t letters = 0;

        while (letters < n && isalpha((unsigned char)part[letters])) {
            letters++;
        }
        for (size_t i = 0; i < n; i++) {
            if (!isalnum((unsigned char)part[i]) && !strchr("_()", part[i])) {
                return refused(argument, part, n, "letters, digits, '_' and ',' are accepted", err);
            }
        }
        r.plain_pq = 0;
        const char *why = read_part(part, letters, n, &r);
        if (why) {
            return refused(argument, part, n, why, err);
        }
        used += snprintf(string->factory + used, sizeof(string->factory) - (size_t)used, "%s%.*s%s",
                         used > 0 ? "," : "", (int)n, part, r.plain_pq ? "np" : "");
        if (used >= QYI_FAISS_TEXT) {
            return refused(argument, part, n, "the whole is too long", err);
        }
        part += n + (part[n] == ',');
        if (part == argument + length && argument[length - 1] == ',') {
            return refused(argument, "", 0, "nothing follows the last comma", err);
        }
    }
    snprintf(string->parameters, sizeof(string->parameters), "%s",
             argument[length] == '@' ? argument + length + 1 : "");
    string->least_points = r.least_points;
    return QY_OK;
}
