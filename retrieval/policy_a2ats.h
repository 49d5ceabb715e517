/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `a2ats` and `a2ats+` have in common: index bytes made of codes of a frozen codebook and of
 * 4-bit keys, and the stages that score tokens by them. Private to policy_a2ats*.c.
 *
 * Index bytes of a slab: [codes | 4-bit keys], each part 64-byte aligned, either may be missing.
 */
#ifndef QYI_RETRIEVAL_POLICY_A2ATS_H
#define QYI_RETRIEVAL_POLICY_A2ATS_H

#include "retrieval/rank.h"

enum { QYI_A2ATS_BANDS = 7 };

/* A range of distances (newest token's position less a token's), scored as if all of it were at
 * `distance`. It ends where the next begins. */
struct qyi_a2ats_band {
    uint32_t least;
    int32_t distance;
};

struct qyi_a2ats {
    const struct qy_policy_params *params; /* kept */
    struct qy_quantizer *quantizers;       /* [layer][KV head]; NULL: no codes         */
    size_t code_bytes, key_bytes;          /* of a slab, whole lines; 0: no such bytes */
    uint32_t samples;                      /* of an estimate, per query head; 0: none  */
    /* Codes of keys before RoPE only: */
    uint32_t near; /* nearer tokens are scored by their keys */
    uint32_t n_bands;
    struct qyi_a2ats_band bands[QYI_A2ATS_BANDS];
    float *turns;     /* [slot][band][rope.dim]: tables that turn a query to a band's distance */
    uint32_t *turn_n; /* [slot] tokens that its tables are for; 0: none                        */
};

/* ---- policy_a2ats_open.c ---- */

/* Checks the codebook and takes its quantizers. name is the policy's, for errors. [alloc] */
QY_MUST enum qy_status qyi_a2ats_open_codes(struct qyi_a2ats *a, const char *name,
                                            enum qy_codebook_kind kind, struct qy_error *err);
/* One far distance (A2ATS, eq. 11 and 12), or bands of distances that double. [alloc] */
QY_MUST enum qy_status qyi_a2ats_open_wrope(struct qyi_a2ats *a, struct qy_error *err);
QY_MUST enum qy_status qyi_a2ats_open_bands(struct qyi_a2ats *a, struct qy_error *err);
void qyi_a2ats_open_keys(struct qyi_a2ats *a);
void qyi_a2ats_close(struct qyi_a2ats *a);

/* ---- policy_a2ats_estimate.c ---- */

/* Checks the settings of an estimate that is asked for. */
QY_MUST enum qy_status qyi_a2ats_open_estimate(struct qyi_a2ats *a, struct qy_error *err);
/* Writes part_out and part_lse of the items that have room for them; their ids are there. [noalloc]
 */
QY_MUST enum qy_status qyi_a2ats_estimate(const struct qyi_a2ats *a,
                                          const struct qy_select_item *items, uint32_t n_items,
                                          struct qy_arena *arena);
size_t qyi_a2ats_estimate_scratch(const struct qyi_a2ats *a, uint32_t n_items, uint32_t max_n);

/* ---- policy_a2ats_append.c ---- */

/* Codes of the views' keys as they are. [noalloc] */
QY_MUST enum qy_status qyi_a2ats_append_codes(const struct qyi_a2ats *a,
                                              const struct qy_append_view *views, uint32_t n_views,
                                              struct qy_arena *arena);
/* Codes of the views' keys turned back to before RoPE. [noalloc] */
QY_MUST enum qy_status qyi_a2ats_append_turned(const struct qyi_a2ats *a,
                                               const struct qy_append_view *views, uint32_t n_views,
                                               struct qy_arena *arena);
QY_MUST enum qy_status qyi_a2ats_append_keys(const struct qyi_a2ats *a,
                                             const struct qy_append_view *views, uint32_t n_views,
                                             struct qy_arena *arena);
/* Arena bytes of any of them. */
size_t qyi_a2ats_append_scratch(const struct qyi_a2ats *a, uint32_t n_views);

/* ---- policy_a2ats_stages.c, policy_a2ats_bands.c; the rank's ctx is a struct qyi_a2ats ---- */

extern const struct qyi_rank_stage qyi_stage_codes; /* codes of keys after RoPE                 */
extern const struct qyi_rank_stage qyi_stage_bands; /* codes of keys before RoPE, in bands      */
extern const struct qyi_rank_stage qyi_stage_keys;  /* 4-bit keys                               */

#endif
