/* SPDX-License-Identifier: Apache-2.0 */
/*
 * k-means by FAISS (Johnson et al. 2017, arXiv:1702.08734), through its C API.
 *
 * FAISS splits empty cells after each update but not after the last one, so a word that is nobody's
 * can be left: such words move to the points that are served worst.
 * FAISS runs OpenMP and OpenBLAS inside: both are asked for one thread, since our threads run many
 * clusterings side by side, each bound to its core.
 */
#include "retrieval/kmeans.h"

#include <faiss/c_api/Clustering_c.h>
#include <faiss/c_api/IndexFlat_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum qy_status check_arguments(const struct qyi_kmeans_params *params, const float *points,
                                      size_t n, struct qy_error *err)
{
    const char *wrong = NULL;

    if (n == 0 || params->d == 0 || params->n_words == 0 || params->iterations == 0) {
        wrong = "at least one point, element, word and iteration are accepted";
    }
    for (size_t i = 0; wrong == NULL && i < n * params->d; i++) {
        if (!isfinite(points[i])) {
            wrong = "a point is not finite";
        }
    }
    if (wrong != NULL) {
        return qy_error_set(err, QY_ERR_INVALID, "k-means of %zu points, %u words: %s", n,
                            params->n_words, wrong);
    }
    return QY_OK;
}

/* Declared here: not every compiler brings omp.h, and OpenBLAS may not be FAISS's BLAS. */
int omp_get_max_threads(void);
void omp_set_num_threads(int n);
void openblas_set_num_threads(int n) __attribute__((weak));

enum { RESEED_ROUNDS = 16 };

/* A clustering's points under its words. */
struct cells {
    size_t n;
    idx_t *word;     /* [n] the nearest            */
    float *distance; /* [n] squared                */
    uint32_t *count; /* [n_words] points of a word */
};

enum qy_status qyi_kmeans_present(struct qy_error *err)
{
    (void)err;
    return QY_OK;
}

static enum qy_status faiss_failed(int code, struct qy_error *err)
{
    const char *why = faiss_get_last_error();

    return qy_error_set(err, QY_ERR_UNSUPPORTED, "k-means: FAISS failed (%d): %s", code,
                        why != NULL ? why : "no cause given");
}

static void normalise(float *x, uint32_t d)
{
    double sum = 0;

    for (uint32_t e = 0; e < d; e++) {
        sum += (double)x[e] * x[e];
    }
    for (uint32_t e = 0; e < d && sum > 0; e++) {
        x[e] = (float)(x[e] / sqrt(sum));
    }
}

/* As many points as words, or fewer: they are the words; what is left repeats them. Returns the
 * objective. */
static double take_points(const struct qyi_kmeans_params *params, const float *points, size_t n,
                          float *words)
{
    double sum = 0;

    for (size_t w = 0; w < params->n_words; w++) {
        float *word = words + w * params->d;

        memcpy(word, points + w % n * params->d, params->d * sizeof *word);
        if (params->spherical) {
            normalise(word, params->d);
        }
        for (uint32_t e = 0; w < n && e < params->d; e++) {
            const double off = points[w * params->d + e] - word[e];

            sum += off * off;
        }
    }
    return sum;
}

static int cluster(const struct qyi_kmeans_params *params, const float *points, size_t n,
                   FaissIndex *index, float *words)
{
    FaissClusteringParameters cp;
    FaissClustering *clustering = NULL;
    float *centroids = NULL;
    size_t n_floats = 0;

    faiss_ClusteringParameters_init(&cp);
    cp.niter = (int)params->iterations;
    cp.seed = (int)(qy_checksum(&params->seed, sizeof params->seed, 0) & 0x3fffffff);
    cp.spherical = params->spherical;
    cp.min_points_per_centroid = 1; /* fewer are only worth a warning, on stderr */
    cp.max_points_per_centroid = params->max_points > 0 ? (int)params->max_points : 1 << 30;
    int code =
        faiss_Clustering_new_with_params(&clustering, (int)params->d, (int)params->n_words, &cp);
    if (code == 0) {
        code = faiss_Clustering_train(clustering, (idx_t)n, points, index);
    }
    if (code == 0) {
        faiss_Clustering_centroids(clustering, &centroids, &n_floats);
        memcpy(words, centroids, (size_t)params->n_words * params->d * sizeof *words);
    }
    faiss_Clustering_free(clustering);
    return code;
}

/* Nearest word of every point; count per word. */
static int assign(const struct qyi_kmeans_params *params, const float *points, FaissIndex *index,
                  const float *words, struct cells *cells)
{
    int code = faiss_Index_reset(index);

    if (code == 0) {
        code = faiss_Index_add(index, params->n_words, words);
    }
    if (code == 0) {
        code = faiss_Index_search(index, (idx_t)cells->n, points, 1, cells->distance, cells->word);
    }
    memset(cells->count, 0, params->n_words * sizeof *cells->count);
    for (size_t i = 0; code == 0 && i < cells->n; i++) {
        cells->count[cells->word[i]]++;
    }
    return code;
}

/* Point whose word is furthest away and keeps others; n: every point lies on its word. */
static size_t worst_served(const struct cells *cells)
{
    size_t worst = cells->n;
    float most = 0;

    for (size_t i = 0; i < cells->n; i++) {
        if (cells->distance[i] > most && cells->count[cells->word[i]] > 1) {
            most = cells->distance[i];
            worst = i;
        }
    }
    return worst;
}

/* Moves each word without points onto the point served worst. 0: nothing was moved. */
static int reseed(const struct qyi_kmeans_params *params, const float *points, float *words,
                  struct cells *cells)
{
    int moved = 0;

    for (uint32_t w = 0; w < params->n_words; w++) {
        const size_t i = cells->count[w] == 0 ? worst_served(cells) : cells->n;
        float *word = words + (size_t)w * params->d;

        if (i == cells->n) {
            continue;
        }
        memcpy(word, points + i * params->d, params->d * sizeof *word);
        if (params->spherical) {
            normalise(word, params->d);
        }
        cells->count[cells->word[i]]--;
        cells->count[w] = 1;
        cells->word[i] = w;
        cells->distance[i] = 0;
        moved = 1;
    }
    return moved;
}

static enum qy_status cluster_and_reseed(const struct qyi_kmeans_params *params,
                                         const float *points, float *words, double *objective,
                                         struct cells *cells, struct qy_error *err)
{
    FaissIndexFlatL2 *index = NULL;
    int code = faiss_IndexFlatL2_new_with(&index, params->d);

    if (code == 0) {
        code = cluster(params, points, cells->n, index, words);
    }
    if (code == 0) {
        code = assign(params, points, index, words, cells);
    }
    for (int round = 0; code == 0 && round < RESEED_ROUNDS; round++) {
        if (!reseed(params, points, words, cells)) {
            break;
        }
        code = assign(params, points, index, words, cells);
    }
    faiss_Index_free(index);
    if (code != 0) {
        return faiss_failed(code, err);
    }
    double sum = 0;
    for (size_t i = 0; i < cells->n; i++) {
        sum += cells->distance[i] > 0 ? cells->distance[i] : 0; /* rounding may go below 0 */
    }
    if (objective != NULL) {
        *objective = sum;
    }
    return QY_OK;
}

enum qy_status qyi_kmeans(const struct qyi_kmeans_params *params, const float *points, size_t n,
                          float *words, double *objective, struct qy_error *err)
{
    enum qy_status st = check_arguments(params, points, n, err);

    if (st != QY_OK) {
        return st;
    }
    if (n <= params->n_words) {
        const double sum = take_points(params, points, n, words);

        if (objective != NULL) {
            *objective = sum;
        }
        return QY_OK;
    }
    struct cells cells = {.n = n,
                          .word = malloc(n * sizeof *cells.word),
                          .distance = malloc(n * sizeof *cells.distance),
                          .count = malloc(params->n_words * sizeof *cells.count)};
    if (cells.word == NULL || cells.distance == NULL || cells.count == NULL) {
        st = qy_error_set(err, QY_ERR_NOMEM, "k-means of %zu points: out of memory", n);
    } else {
        const int before = omp_get_max_threads(); /* of this thread */

        omp_set_num_threads(1);
        if (openblas_set_num_threads != NULL) {
            openblas_set_num_threads(1);
        }
        st = cluster_and_reseed(params, points, words, objective, &cells, err);
        omp_set_num_threads(before);
    }
    free(cells.word);
    free(cells.distance);
    free(cells.count);
    return st;
}
