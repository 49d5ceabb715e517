/* SPDX-License-Identifier: Apache-2.0 */
/* What stores have in common: requests that wait, and those that are done. See store.h. */
#include "offload/home/store.h"

void qyi_store_queue_put(struct qyi_store_queue *queue, struct qyi_store_request *request)
{
    request->next = NULL;
    if (queue->first) {
        queue->last->next = request;
    } else {
        queue->first = request;
    }
    queue->last = request;
}

struct qyi_store_request *qyi_store_queue_take(struct qyi_store_queue *queue)
{
    struct qyi_store_request *request = queue->first;

    if (request) {
        queue->first = request->next;
    }
    return request;
}

void qyi_store_queue_batch(struct qyi_store_queue *queue, struct qyi_store_batch *batch)
{
    batch->n_left = batch->n;
    batch->failed = 0;
    for (uint32_t i = 0; i < batch->n; i++) {
        struct qyi_store_request *r = &batch->requests[i];

        r->done = 0;
        r->error = 0;
        r->batch = batch;
        r->tried = 0;
        r->left = 0;
        qyi_store_queue_put(queue, r);
    }
}

void qyi_store_finish(struct qyi_store_stats *counts, struct qyi_store_request *request, int error)
{
    struct qyi_store_batch *batch = request->batch;
    const uint32_t number = (uint32_t)(request - batch->requests);

    request->error = error;
    request->next = NULL;
    batch->n_left--;
    if (error != 0) {
        counts->failures++;
        if (!batch->failed || number < batch->first_bad) {
            batch->failed = 1;
            batch->first_bad = number;
        }
    } else if (request->op == QYI_STORE_WRITE) {
        counts->writes++;
        counts->written_bytes += request->bytes;
    } else if (request->op == QYI_STORE_ATTEND) {
        counts->attends++;
        counts->attended_rows += request->list.n;
    } else if (request->op == QYI_STORE_CHUNK) {
        counts->chunks++;
    } else if (request->op == QYI_STORE_SCORE) {
        counts->scores++;
        counts->scored_blocks += request->list.n;
    } else {
        counts->reads++;
        counts->read_bytes += request->bytes;
        counts->rows += request->op == QYI_STORE_ROWS ? request->list.n : 0;
    }
}
