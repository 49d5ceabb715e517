/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that did not move between home and device: which sequences are concerned, and what people are
 * told. */
#include "offload/cache.h"

#include <stdio.h>

enum { MOST_NAMED = 8 };

void qyi_step_fail(struct qy_cache *cache, enum qy_status status, uint32_t layer)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);

    if (!cache->tier.present || (status != QY_ERR_DEVICE && status != QY_ERR_TIMEOUT)) {
        return;
    }
    cache->step.failure = (struct qyi_failure){.status = status, .layer = layer};
    for (uint32_t i = now->begin; i < now->end; i++) {
        cache->step.slices[i].seq->failed_in = cache->step.serial;
    }
}

int qy_sequence_failed(const struct qy_sequence *seq)
{
    return seq->cache->step.failure.status != QY_OK && seq->failed_in == seq->cache->step.serial;
}

/* "sequence 3" or "sequences 0, 1 and 7 more" */
static void name_sequences(const struct qy_cache *cache, char *text, size_t bytes)
{
    uint32_t named[MOST_NAMED];
    uint32_t n = 0;

    for (uint32_t i = 0; i < cache->params.max_sequences; i++) {
        if (qy_sequence_failed(&cache->sequences[i])) {
            if (n < MOST_NAMED) {
                named[n] = i;
            }
            n++;
        }
    }
    size_t at = (size_t)snprintf(text, bytes, n == 1 ? "sequence" : "sequences");
    for (uint32_t i = 0; i < n && i < MOST_NAMED; i++) {
        at += (size_t)snprintf(text + at, bytes - at, "%s %u", i > 0 ? "," : "", named[i]);
    }
    if (n > MOST_NAMED) {
        (void)snprintf(text + at, bytes - at, " and %u more", n - MOST_NAMED);
    }
}

const char *qy_step_failure(const struct qy_cache *cache, char *text, size_t bytes)
{
    const struct qyi_failure *f = &cache->step.failure;
    char who[160];

    text[0] = '\0';
    if (f->status == QY_OK) {
        return text;
    }
    name_sequences(cache, who, sizeof(who));
    if (f->status == QY_ERR_TIMEOUT) {
        (void)snprintf(
            text, bytes,
            "layer %u: rows of %s did not arrive within cache.copy_timeout_ms '%lld'; the "
            "link stalls or is slower than that; raise it, or try the step again",
            f->layer, who, (long long)cache->params.settings.copy_timeout_ms);
    } else {
        (void)snprintf(text, bytes,
                       "layer %u: a copy between home and device of rows of %s failed; nothing was "
                       "added; try the step again",
                       f->layer, who);
    }
    return text;
}
