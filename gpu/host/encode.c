/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encodes vectors: ranges of QYI_CODE_SPLIT tokens shared out over the team, codes put in their
 * place. Ranges begin at multiples of QYI_CODE_SPLIT, so that no two threads write nibbles of one
 * byte. Items of one token, many words and one quantizer (sequences that decode together) become one
 * range, so that the words are read once. The arithmetic is in encode_body.h; a code depends on its
 * vector alone.
 */
#include <string.h>

#include "gpu/host/code.h"
#include "gpu/host/host.h"
#include "gpu/host/rows.h"

enum {
    TEAM_WORK = 1024 * 1024, /* multiplications: below, the caller alone is faster   */
    JOIN_KEYS = 16,          /* items of one token that become one range at most     */
    JOIN_ITEMS = 1024        /* of a call: each looks at those before it             */
};

struct encode_job {
    const struct qy_encode_item *items;
    const struct qyi_code_kernels *kernels;
    uint32_t n_items;
    struct qyi_units units;
};

/* May item i be joined with others of its quantizer? */
static int joins(const struct encode_job *job, uint32_t i)
{
    return job->items[i].n == 1 && job->items[i].quantizer->bits != 4 && job->n_items <= JOIN_ITEMS;
}

/* Ranges of item i; none when an item before takes it along. */
static uint32_t ranges_of(const struct encode_job *job, uint32_t i)
{
    const struct qy_encode_item *item = &job->items[i];
    uint32_t before = 0;

    if (joins(job, i)) {
        for (uint32_t o = 0; o < i; o++) {
            before += joins(job, o) && job->items[o].quantizer == item->quantizer;
        }
        return before % JOIN_KEYS == 0;
    }
    const uint64_t lead = item->first % QYI_CODE_SPLIT;

    return (uint32_t)((lead + item->n + QYI_CODE_SPLIT - 1) / QYI_CODE_SPLIT);
}

/* QYI_CODE_KEYS tokens from a multiple of it on, in groups of 128: of every two bytes one, or
 * its nibble, is theirs. */
static void put_codes4_whole(uint8_t *to, uint32_t in_group, uint32_t m, const uint8_t *codes)
{
    const uint32_t lane = QYI_CODE_MAX_LANE;
    const uint32_t shift = in_group / lane * 4 + in_group % lane / QYI_CODE_KEYS * 8;
    const uint16_t keep = (uint16_t) ~((uint32_t)0x0f << shift);

    for (uint32_t j = 0; j < m; j++, to += lane, codes += QYI_CODE_KEYS) {
        uint16_t words[QYI_CODE_MAX_LANE / 2];
        memcpy(words, to, sizeof(words));
        for (uint32_t r = 0; r < lane / 2; r++) {
            words[r] = (uint16_t)((words[r] & keep) | (uint32_t)codes[r] << shift);
        }
        memcpy(to, words, sizeof(words));
    }
}

/* codes [m][QYI_CODE_KEYS] of n tokens from `token` on, all in one slab. */
static void put_codes4(const struct qy_encode_item *item, uint32_t token, uint32_t n,
                       const uint8_t *codes)
{
    const uint32_t n_tokens = (uint32_t)1 << item->codes.shift;
    const uint32_t lane = qyi_code4_lane(n_tokens);
    const uint32_t m = item->quantizer->m;
    uint8_t *slab = item->codes.blocks[token >> item->codes.shift] + item->codes.offset;

    if (lane == QYI_CODE_MAX_LANE && n == QYI_CODE_KEYS && token % QYI_CODE_KEYS == 0 &&
        __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) {
        const uint32_t in_slab = token & (n_tokens - 1);
        put_codes4_whole(slab + (size_t)(in_slab / (2 * lane)) * m * lane, in_slab % (2 * lane), m,
                         codes);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bit;
        uint8_t *to = slab + qyi_code4_at(lane, m, (token + i) & (n_tokens - 1), &bit);
        const uint8_t keep = bit == 0 ? 0xf0 : 0x0f;
        for (uint32_t j = 0; j < m; j++, to += lane) {
            *to = (uint8_t)((*to & keep) | codes[j * QYI_CODE_KEYS + i] << bit);
        }
    }
}

static void put_codes_wide(const struct qy_encode_item *item, uint32_t token, uint32_t n,
                           const uint16_t *codes)
{
    const uint32_t mask = ((uint32_t)1 << item->codes.shift) - 1;
    const uint32_t m = item->quantizer->m;
    uint8_t *slab = item->codes.blocks[token >> item->codes.shift] + item->codes.offset;

    if (item->quantizer->bits == 16) {
        memcpy(slab + (size_t)(token & mask) * 2, codes, (size_t)n * 2);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *to = slab + (size_t)((token & mask) + i) * m;
        for (uint32_t j = 0; j < m; j++) {
            to[j] = (uint8_t)codes[j * QYI_CODE_KEYS + i];
        }
    }
}

static void encode_range(const struct encode_job *job, const struct qy_encode_item *item,
                         uint32_t range)
{
    _Alignas(64) uint16_t codes[QYI_CODE_MAX_M * QYI_CODE_KEYS];
    const uint32_t block = (uint32_t)1 << item->codes.shift;
    const uint64_t start = item->first / QYI_CODE_SPLIT + (uint64_t)range;
    uint64_t token = start * QYI_CODE_SPLIT;
    uint64_t end = token + QYI_CODE_SPLIT;

    token = token < item->first ? item->first : token;
    end = end > (uint64_t)item->first + item->n ? (uint64_t)item->first + item->n : end;
    while (token < end) {
        const uint64_t in_block = block - (token & (block - 1));
        uint64_t n = end - token < in_block ? end - token : in_block;
        const uint64_t aligned = QYI_CODE_KEYS - token % QYI_CODE_KEYS;
        n = n < aligned ? n : aligned;
        const float *k = item->k + (token - item->first) * item->stride;
        if (item->quantizer->bits == 4) {
            uint8_t *bytes = (uint8_t *)codes;
            job->kernels->encode4(item->quantizer, k, item->stride, (uint32_t)n, bytes);
            put_codes4(item, (uint32_t)token, (uint32_t)n, bytes);
        } else {
            job->kernels->encode_wide(item->quantizer, k, item->stride, (uint32_t)n, codes);
            put_codes_wide(item, (uint32_t)token, (uint32_t)n, codes);
        }
        token += n;
    }
}

/* Item i and the next of its quantizer, JOIN_KEYS together. */
static void encode_joined(const struct encode_job *job, uint32_t i)
{
    _Alignas(64) uint16_t codes[QYI_CODE_MAX_M * QYI_CODE_KEYS];
    float k[JOIN_KEYS * QYI_CODE_MAX_D];
    uint32_t joined[JOIN_KEYS] = {i};
    const struct qy_quantizer *quantizer = job->items[i].quantizer;
    uint32_t n = 1;

    memcpy(k, job->items[i].k, quantizer->d * sizeof(*k));
    for (uint32_t o = i + 1; o < job->n_items && n < JOIN_KEYS; o++) {
        if (joins(job, o) && job->items[o].quantizer == quantizer) {
            memcpy(k + (size_t)n * quantizer->d, job->items[o].k, quantizer->d * sizeof(*k));
            joined[n++] = o;
        }
    }
    job->kernels->encode_wide(quantizer, k, quantizer->d, n, codes);
    for (uint32_t t = 0; t < n; t++) {
        const struct qy_encode_item *item = &job->items[joined[t]];
        put_codes_wide(item, item->first, 1, codes + t);
    }
}

static void encode_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct encode_job *job = arg;
    uint32_t begin;
    uint32_t end;
    uint32_t i = 0;
    uint32_t base = 0; /* first range of item i */
    uint32_t ranges = ranges_of(job, 0);

    (void)thread;
    while (qyi_units_take(&job->units, n_threads, &begin, &end)) {
        for (uint32_t u = begin; u < end; u++) {
            while (u - base >= ranges) {
                base += ranges;
                ranges = ranges_of(job, ++i);
            }
            if (joins(job, i)) {
                encode_joined(job, i);
            } else {
                encode_range(job, &job->items[i], u - base);
            }
        }
    }
}

enum qy_status qy_device_encode(struct qy_device *dev, const struct qy_encode_item *items,
                                uint32_t n_items)
{
    struct encode_job job = {
        .items = items, .kernels = qyi_code_for(dev->level), .n_items = n_items, .units = {0, 0}};
    uint64_t work = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        const struct qy_quantizer *quantizer = items[i].quantizer;
        if (!qyi_quantizer_valid(quantizer) || items[i].codes.shift >= 32) {
            return QY_ERR_INVALID;
        }
        work += (uint64_t)items[i].n * quantizer->d * quantizer->n_words;
    }
    for (uint32_t i = 0; i < n_items; i++) {
        job.units.total += ranges_of(&job, i);
    }
    if (job.units.total == 0) {
        return QY_OK;
    }
    qy_team_run(work < TEAM_WORK ? NULL : dev->rt->team, encode_run, &job);
    return QY_OK;
}
