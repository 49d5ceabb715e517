/* SPDX-License-Identifier: Apache-2.0 */
/* Quantizers: which ones the kernels take, and where their codes lie. */
#include <string.h>

#include "gpu/host/code.h"

/* What is wrong with the shape; NULL: nothing. */
static const char *shape_fault(const struct qy_quantizer *q, uint64_t *value, const char **name)
{
    *name = "d";
    *value = q->d;
    if (q->d < 1 || q->d > QYI_CODE_MAX_D) {
        return "1..512 elements";
    }
    *name = "m";
    *value = q->m;
    if (q->m < 1 || q->m > QYI_CODE_MAX_M || q->d % q->m != 0) {
        return "1..256 sub-vectors that divide d";
    }
    *name = "bits";
    *value = q->bits;
    if (q->bits != 4 && q->bits != 8 && q->bits != 16) {
        return "4, 8 or 16";
    }
    if (q->bits == 16 && q->m != 1) {
        return "4 or 8 when m is above 1";
    }
    *name = "n_words";
    *value = q->n_words;
    if (q->bits == 4) {
        return q->n_words == 16 ? NULL : "16 words with 4 bits";
    }
    if (q->n_words < 1 || q->n_words > (uint32_t)1 << q->bits) {
        return q->bits == 8 ? "1..256 words with 8 bits" : "1..65536 words with 16 bits";
    }
    return NULL;
}

int qyi_quantizer_valid(const struct qy_quantizer *quantizer)
{
    uint64_t value;
    const char *name;

    return quantizer != NULL && shape_fault(quantizer, &value, &name) == NULL;
}

enum qy_status qy_quantizer_check(const struct qy_quantizer *quantizer, struct qy_error *err)
{
    uint8_t seen[QYI_CODE_MAX_D];
    uint64_t value;
    const char *name;
    const char *fault = shape_fault(quantizer, &value, &name);

    if (fault != NULL) {
        return qy_error_set(err, QY_ERR_INVALID, "quantizer '%s': %llu refused; accepted is %s",
                            name, (unsigned long long)value, fault);
    }
    if (quantizer->encode == NULL || quantizer->bias == NULL || quantizer->decode == NULL) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "quantizer: encode, bias and decode must all be given");
    }
    memset(seen, 0, sizeof(seen));
    for (uint32_t i = 0; quantizer->order != NULL && i < quantizer->d; i++) {
        const uint32_t at = quantizer->order[i];
        if (at >= quantizer->d || seen[at]) {
            return qy_error_set(err, QY_ERR_INVALID,
                                "quantizer 'order': element %u is %u; each of 0..%u must be there "
                                "once",
                                i, at, quantizer->d - 1);
        }
        seen[at] = 1;
    }
    return QY_OK;
}

size_t qy_code_slab_bytes(const struct qy_quantizer *quantizer, uint32_t n_tokens)
{
    if (quantizer->bits == 4) {
        const size_t group = 2 * (size_t)qyi_code4_lane(n_tokens);
        return (n_tokens + group - 1) / group * group / 2 * quantizer->m;
    }
    return (size_t)n_tokens * quantizer->m * (quantizer->bits / 8);
}

uint32_t qy_code_at(const struct qy_quantizer *quantizer, const struct qy_slab *codes,
                    uint32_t token, uint32_t j)
{
    const uint32_t n_tokens = (uint32_t)1 << codes->shift;
    const uint8_t *slab = codes->blocks[token >> codes->shift] + codes->offset;
    const uint32_t in_slab = token & (n_tokens - 1);

    if (quantizer->bits == 4) {
        const uint32_t lane = qyi_code4_lane(n_tokens);
        uint32_t bit;
        const size_t at = qyi_code4_at(lane, quantizer->m, in_slab, &bit);
        return (uint32_t)slab[at + (size_t)j * lane] >> bit & 15;
    }
    if (quantizer->bits == 8) {
        return slab[(size_t)in_slab * quantizer->m + j];
    }
    uint16_t code;
    memcpy(&code, slab + (size_t)in_slab * 2, sizeof(code));
    return code;
}
