/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scan of one group of 4-bit codes: 16-entry tables looked up in registers. Part of a kernel file:
 * include code_bytes.h first. After Andre, Kermarrec and Le Scouarnec, "Quicker ADC", 2019,
 * arXiv:1812.09162.
 *
 * QYI_CODE_ADDS entries are added in 8 bits. Sums of 16 bits are then kept twice: of whole words
 * (even byte + 256 * odd byte, modulo 2^16) and of odd bytes alone, which gives both.
 */
#ifndef QY_GPU_HOST_CODE_SCAN_BODY_H
#define QY_GPU_HOST_CODE_SCAN_BODY_H

#include "gpu/host/code.h"
#include "gpu/host/kernels.h"

#ifndef ALWAYS_INLINE
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#endif

/* Registers: two sums per head and half. */
enum { SCAN_HALVES = BYTES == 64 ? 2 : 1, SCAN_LINE = 64 };

struct scan_sums {
    bytes words, odd;
};

/* n sub-vectors: codes of the first, lane bytes apart; entries of the first, head_bytes apart. */
ALWAYS_INLINE void scan_step(const uint8_t *codes, size_t lane, const uint8_t *entries,
                             size_t head_bytes, const int n, const int half, const int nh,
                             struct scan_sums sums[QYI_CODE_HEADS][SCAN_HALVES])
{
    bytes nibbles[QYI_CODE_ADDS][SCAN_HALVES];

    QYI_UNROLL
    for (int i = 0; i < n; i++, codes += lane) {
        const bytes both = bytes_load(codes);
        QYI_UNROLL
        for (int p = 0; p < SCAN_HALVES; p++) {
            nibbles[i][p] = bytes_nibbles(both, SCAN_HALVES == 2 ? p : half);
        }
    }
    QYI_UNROLL
    for (int h = 0; h < nh; h++, entries += head_bytes) {
        bytes sum[SCAN_HALVES];
        QYI_UNROLL
        for (int i = 0; i < n; i++) {
            const bytes table = bytes_table(entries + (size_t)i * 16);
            QYI_UNROLL
            for (int p = 0; p < SCAN_HALVES; p++) {
                const bytes found = bytes_look_up(table, nibbles[i][p]);
                sum[p] = i == 0 ? found : bytes_add8(sum[p], found);
            }
        }
        QYI_UNROLL
        for (int p = 0; p < SCAN_HALVES; p++) {
            sums[h][p].words = bytes_add16(sums[h][p].words, sum[p]);
            sums[h][p].odd = bytes_add16(sums[h][p].odd, bytes_down8(sum[p]));
        }
    }
}

/* One column of BYTES bytes: half (or both) of 2 * BYTES tokens. */
ALWAYS_INLINE void scan_column(const struct qyi_code_group *g, uint32_t column, const int half,
                               const int nh)
{
    struct scan_sums sums[QYI_CODE_HEADS][SCAN_HALVES];
    const size_t lane = g->lane;
    const size_t head_bytes = (size_t)g->m * 16;
    const uint8_t *codes = g->codes + column;
    const uint8_t *entries = g->entries;
    uint32_t left = g->m;

    QYI_UNROLL
    for (int h = 0; h < nh; h++) {
        QYI_UNROLL
        for (int p = 0; p < SCAN_HALVES; p++) {
            sums[h][p] = (struct scan_sums){bytes_zero(), bytes_zero()};
        }
    }
    for (; left >= QYI_CODE_ADDS; left -= QYI_CODE_ADDS) {
        scan_step(codes, lane, entries, head_bytes, QYI_CODE_ADDS, half, nh, sums);
        codes += QYI_CODE_ADDS * lane;
        entries += (size_t)QYI_CODE_ADDS * 16;
    }
    for (; left > 0; left--, codes += lane, entries += 16) {
        scan_step(codes, lane, entries, head_bytes, 1, half, nh, sums);
    }
    QYI_UNROLL
    for (int h = 0; h < nh; h++) {
        QYI_UNROLL
        for (int p = 0; p < SCAN_HALVES; p++) {
            const size_t begin = (size_t)(SCAN_HALVES == 2 ? p : half) * lane + column / 2;
            uint16_t *to = g->sums + (size_t)h * g->stride + begin;
            const bytes odd = sums[h][p].odd;
            bytes_store(to, bytes_sub16(sums[h][p].words, bytes_up8(odd)));
            bytes_store(to + lane / 2, odd);
        }
    }
}

ALWAYS_INLINE void scan_heads(const struct qyi_code_group *g, const int nh)
{
    for (uint32_t column = 0; column < g->lane; column += BYTES) {
        for (int half = 0; half < 2; half += SCAN_HALVES) {
            scan_column(g, column, half, nh);
        }
    }
}

/* As qyi_code_scan_fn. */
static void scan_group(const struct qyi_code_group *g)
{
    for (size_t at = 0; g->next != NULL && at < (size_t)g->m * g->lane; at += SCAN_LINE) {
        __builtin_prefetch(g->next + at);
    }
    if (g->n_heads == 4) {
        scan_heads(g, 4);
    } else if (g->n_heads == 3) {
        scan_heads(g, 3);
    } else if (g->n_heads == 2) {
        scan_heads(g, 2);
    } else {
        scan_heads(g, 1);
    }
}

#endif
