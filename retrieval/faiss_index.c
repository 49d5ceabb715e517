/* SPDX-License-Identifier: Apache-2.0 */
/* See faiss_index.h. Source: Johnson et al. 2017, arXiv:1702.08734; FAISS's C API. */
#include "retrieval/faiss_index.h"

#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <stdlib.h>
#include <string.h>

/* Declared here: not every compiler brings omp.h, and OpenBLAS may not be FAISS's BLAS. OpenMP's
 * numbers are of the calling thread; OpenBLAS's is one for all, and 1 wherever we set it. */
int omp_get_max_threads(void);
void omp_set_num_threads(int n);
void openblas_set_num_threads(int n) __attribute__((weak));

static int one_thread(void)
{
    const int before = omp_get_max_threads();

    omp_set_num_threads(1);
    if (openblas_set_num_threads) {
        openblas_set_num_threads(1);
    }
    return before;
}

enum {
    POINTS_PER_WORD = 39, /* below it FAISS warns on stderr, once per sub-quantizer of each index */
    MOST_POINTS = 16384
};

/* Trains on keys [n][d], a few times over where that keeps FAISS quiet: the means are the same. */
static int train(const struct qyi_faiss_string *string, uint32_t d, uint32_t n, const float *keys,
                 FaissIndex *index)
{
    const uint64_t wanted = (uint64_t)POINTS_PER_WORD * string->least_points;
    const uint64_t repeats = (wanted + n - 1) / n;
    const size_t values = (size_t)n * d;

    if (string->least_points == 1 || repeats < 2 || wanted > MOST_POINTS) {
        return faiss_Index_train(index, n, keys);
    }
    float *all = malloc(repeats * values * sizeof(*all));
    if (!all) {
        return faiss_Index_train(index, n, keys);
    }
    for (uint64_t i = 0; i < repeats; i++) {
        memcpy(all + i * values, keys, values * sizeof(*all));
    }
    const int code = faiss_Index_train(index, (idx_t)(repeats * n), all);
    free(all);
    return code;
}

/* Search parameters are set after training: some belong to what training makes. */
static int fill_index(const struct qyi_faiss_string *string, int flat, uint32_t d, uint32_t n,
                      const float *keys, FaissIndex *index)
{
    FaissParameterSpace *space = NULL;
    int code = 0;

    if (!faiss_Index_is_trained(index)) {
        code = train(string, d, n, keys, index);
    }
    if (code == 0) {
        code = faiss_Index_add(index, n, keys);
    }
    if (code != 0 || flat || string->parameters[0] == '\0') {
        return code;
    }
    code = faiss_ParameterSpace_new(&space);
    if (code == 0) {
        code = faiss_ParameterSpace_set_index_parameters(space, index, string->parameters);
        faiss_ParameterSpace_free(space);
    }
    return code;
}

int qyi_faiss_index_make(const struct qyi_faiss_string *string, int flat, uint32_t d, uint32_t n,
                         const float *keys, struct qyi_faiss_index **index)
{
    FaissIndex *made = NULL;
    const int before = one_thread();
    int code =
        faiss_index_factory(&made, (int)d, flat ? "Flat" : string->factory, METRIC_INNER_PRODUCT);

    *index = NULL;
    if (code == 0) {
        code = fill_index(string, flat, d, n, keys, made);
        if (code == 0) {
            *index = (struct qyi_faiss_index *)(void *)made;
        } else {
            faiss_Index_free(made);
        }
    }
    omp_set_num_threads(before);
    return code;
}

void qyi_faiss_index_free(struct qyi_faiss_index *index)
{
    if (index) {
        faiss_Index_free((FaissIndex *)(void *)index);
    }
}

int qyi_faiss_index_add(struct qyi_faiss_index *index, uint32_t n, const float *keys)
{
    const int before = one_thread();
    const int code = faiss_Index_add((FaissIndex *)(void *)index, n, keys);

    omp_set_num_threads(before);
    return code;
}

int qyi_faiss_index_search(const struct qyi_faiss_index *index, uint32_t n, const float *q,
                           uint32_t k, float *scores, int64_t *labels)
{
    const int before = one_thread();
    const int code =
        faiss_Index_search((const FaissIndex *)(const void *)index, n, q, k, scores, labels);

    omp_set_num_threads(before);
    return code;
}

const char *qyi_faiss_index_why(void)
{
    const char *why = faiss_get_last_error();

    return why ? why : "no cause given";
}
