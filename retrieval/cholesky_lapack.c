/* SPDX-License-Identifier: Apache-2.0 */
/* Cholesky factors by LAPACK. */
#include "retrieval/train.h"

/* By columns, as Fortran has it. Declared here: any LAPACK has it, few bring a header. The last
 * argument is the length of uplo, which Fortran compilers pass. */
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info,
             size_t uplo_length);

int qyi_cholesky(double *a, uint32_t d)
{
    const int n = (int)d;
    int info = 0;

    /* Our lower triangle, row after row, is its upper one by columns: a = U^T U, U = L^T. */
    dpotrf_("U", &n, a, &n, &info, 1);
    return info;
}
