/* SPDX-License-Identifier: Apache-2.0 */
/* A build without FAISS learns no codebooks; it reads and uses them. */
#include "retrieval/train.h"

enum qy_status qyi_kmeans_present(struct qy_error *err)
{
    return qy_error_set(err, QY_ERR_UNSUPPORTED,
                        "learning a codebook: built without FAISS; run scripts/setup, which builds "
                        "its C API, then cmake with -DQY_FAISS=ON");
}

enum qy_status qyi_kmeans(const struct qyi_kmeans_params *params, const float *points, size_t n,
                          float *words, double *objective, struct qy_error *err)
{
    (void)params;
    (void)points;
    (void)n;
    (void)words;
    (void)objective;
    return qyi_kmeans_present(err);
}

int qyi_cholesky(double *a, uint32_t d)
{
    (void)a;
    (void)d;
    return 1;
}
