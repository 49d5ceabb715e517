/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Union of ascending lists by a bitmap of a window of ids, which moves on to the least id that is
 * left. Part of a kernel file: define the words first (topk_plain.c says which).
 */
#ifndef QY_GPU_HOST_UNION_BODY_H
#define QY_GPU_HOST_UNION_BODY_H

enum {
    WINDOW_WORDS = 64,
    WINDOW_IDS = WINDOW_WORDS * 64,
    DENSE_IDS = 8 /* ids of a word from which on vectors write them faster than one by one */
};

/* Ids of one word of the bitmap. room: how many words from ids on may be written. */
static inline uint32_t union_word(uint64_t word, uint32_t base, uint32_t *ids, size_t room)
{
    uint32_t n = 0;
    if (WORD_N == 16 && room >= 64 && __builtin_popcountll(word) >= DENSE_IDS) {
        for (uint32_t i = 0; i < 64; i += WORD_N) {
            const uint32_t mask = (uint32_t)(word >> i) & 0xffff;
            words_places(ids + n, base + i, mask);
            n += (uint32_t)__builtin_popcount(mask);
        }
        return n;
    }
    for (; word != 0; word &= word - 1) {
        ids[n++] = base + (uint32_t)__builtin_ctzll(word);
    }
    return n;
}

/* As qyi_topk_kernels.unite. */
static void union_item(const struct qy_union_item *item)
{
    uint64_t words[WINDOW_WORDS] = {0};
    uint32_t at[QYI_UNION_LISTS] = {0};
    size_t room = 0;
    size_t n = 0;
    for (uint32_t j = 0; j < item->n_lists; j++) {
        room += item->counts[j];
    }
    for (;;) {
        uint64_t least = UINT64_MAX;
        uint64_t used = 0; /* words of the window that are not 0 */
        for (uint32_t j = 0; j < item->n_lists; j++) {
            if (at[j] < item->counts[j]) {
                const uint32_t id = item->lists[(size_t)j * item->stride + at[j]];
                least = id < least ? id : least;
            }
        }
        if (least == UINT64_MAX) {
            break;
        }
        const uint32_t base = (uint32_t)least / WINDOW_IDS * WINDOW_IDS;
        for (uint32_t j = 0; j < item->n_lists; j++) {
            const uint32_t *list = item->lists + (size_t)j * item->stride;
            uint32_t i = at[j];
            for (; i < item->counts[j] && list[i] - base < WINDOW_IDS; i++) {
                const uint32_t bit = list[i] - base;
                words[bit / 64] |= (uint64_t)1 << bit % 64;
                used |= (uint64_t)1 << bit / 64;
            }
            at[j] = i;
        }
        for (; used != 0; used &= used - 1) {
            const uint32_t w = (uint32_t)__builtin_ctzll(used);
            n += union_word(words[w], base + w * 64, item->ids + n, room - n);
            words[w] = 0;
        }
    }
    *item->n_ids = (uint32_t)n;
}

#endif
