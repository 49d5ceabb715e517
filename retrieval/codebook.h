/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A codebook in memory, shared by codebook.c (tables) and codebook_file.c (the file).
 *
 * What is learnt of one (layer, KV head) is a *record*; the file holds the records as they lie in
 * memory, little-endian. All records of a codebook have the same size:
 *   struct qyi_record_head
 *   scale f32 [d]               PQ4
 *   root  f32 [d (d + 1) / 2]   VQ: lower triangle, row after row
 *   order u16 [d]               PQ4
 *   words f16 [m][n_words][d / m], times `unit`
 *   zero up to the next multiple of 64; the last 8 bytes: XXH3 of the rest, seeded by the record's
 *   place
 * The f32 tables that kernels read are derived from the record, so that a saved codebook gives the
 * same bits as the one that was trained.
 */
#ifndef QY_RETRIEVAL_CODEBOOK_H
#define QY_RETRIEVAL_CODEBOOK_H

#include "retrieval/retrieval.h"

struct qyi_record_head {
    uint32_t filled; /* 0: nothing is known of this (layer, KV head) yet                         */
    float unit;      /* a power of two: the largest word element / unit lies in [0.5, 1]          */
    uint32_t reserved[2];
};

struct qy_codebook {
    struct qy_allocator mem;
    struct qy_codebook_info info;
    uint32_t n_records;
    size_t record_bytes;
    size_t table_floats, bias_floats; /* of one record's encode or decode, and its bias */
    uint8_t *records;                 /* [n_records][record_bytes]                       */
    float *tables;                    /* [n_records][encode, decode, bias]               */
};

/* The parts of record i. */
struct qyi_record {
    struct qyi_record_head *head;
    float *scale, *root;
    uint16_t *order, *words;
    uint64_t *checksum;
};
/* Bytes of a record of such a codebook. QY_ERR_INVALID: there is no such codebook. */
QY_MUST enum qy_status qyi_codebook_record_bytes(const struct qy_codebook_info *info, size_t *bytes,
                                                 struct qy_error *err);
struct qyi_record qyi_codebook_record(const struct qy_codebook *codebook, uint32_t i);
/* Checksum of record i as it stands. */
uint64_t qyi_codebook_record_checksum(const struct qy_codebook *codebook, uint32_t i);
/* Derives the f32 tables of record i. QY_ERR_INVALID: the record makes no sense. */
QY_MUST enum qy_status qyi_codebook_derive(struct qy_codebook *codebook, uint32_t i,
                                           struct qy_error *err);

/* ---- the file: codebook_file.c; its bytes elsewhere: codebook_image.c ---- */

struct qyi_codebook_header {
    char magic[4];
    uint32_t version;
    uint32_t kind, n_layers, n_kv_heads, head_dim, m, bits, n_words, reserved;
    uint64_t tag, model_hash, seed, n_tokens, record_bytes;
    char model_name[96];
    char metric[32];
    uint8_t zero[40];
    uint64_t checksum; /* of all before */
};
_Static_assert(sizeof(struct qyi_codebook_header) == QY_CODEBOOK_HEADER_BYTES,
               "the header is a part of the file format");

void qyi_codebook_header_make(const struct qy_codebook *codebook, uint64_t tag,
                              struct qyi_codebook_header *header);
/* The first `got` bytes of `name`, and what they say in info. QY_ERR_CORRUPT, QY_ERR_UNSUPPORTED. */
QY_MUST enum qy_status qyi_codebook_header_read(const struct qyi_codebook_header *header,
                                                size_t got, const char *name,
                                                struct qy_codebook_info *info,
                                                struct qy_error *err);
/* Record i was read: is it whole? Derives its tables, if it is filled. QY_ERR_CORRUPT. */
QY_MUST enum qy_status qyi_codebook_record_check(struct qy_codebook *codebook, uint32_t i,
                                                 const char *name, struct qy_error *err);
/* QY_ERR_CORRUPT. */
enum qy_status qyi_codebook_corrupt(const char *name, const char *why, struct qy_error *err);

#endif
