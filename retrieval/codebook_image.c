/* SPDX-License-Identifier: Apache-2.0 */
/* A codebook as bytes for another process: the file's, without the file. See codebook_file.c. */
#include "retrieval/codebook.h"

#include <string.h>

uint64_t qy_codebook_image_bytes(const struct qy_codebook *codebook)
{
    return sizeof(struct qyi_codebook_header) +
           (uint64_t)codebook->n_records * codebook->record_bytes;
}

void qy_codebook_image(const struct qy_codebook *codebook, uint64_t at, size_t bytes, void *to)
{
    struct qyi_codebook_header header;
    uint8_t *out = to;

    if (at < sizeof header) {
        const size_t n = bytes < sizeof header - at ? bytes : (size_t)(sizeof header - at);

        qyi_codebook_header_make(codebook, 0, &header);
        memcpy(out, (const uint8_t *)&header + at, n);
        out += n;
        at += n;
        bytes -= n;
    }
    if (bytes > 0) {
        memcpy(out, codebook->records + (at - sizeof header), bytes);
    }
}

uint64_t qy_codebook_hash(const struct qy_codebook *codebook)
{
    struct qyi_codebook_header header;

    qyi_codebook_header_make(codebook, 0, &header);
    uint64_t hash = header.checksum;
    for (uint32_t i = 0; i < codebook->n_records; i++) {
        const uint64_t *sum = qyi_codebook_record(codebook, i).checksum;

        hash = qy_checksum(sum, sizeof *sum, hash);
    }
    return hash;
}

static const char name[] = "image"; /* for messages */

/* Before anything is reserved: are there as many bytes as the header says, for a codebook that can be? */
static enum qy_status check_bytes(const struct qyi_codebook_header *header,
                                  const struct qy_codebook_info *info, uint64_t bytes,
                                  struct qy_error *err)
{
    size_t record;
    const enum qy_status st = qyi_codebook_record_bytes(info, &record, err);

    if (st != QY_OK || record != header->record_bytes) {
        return qyi_codebook_corrupt(name, "its header makes no sense", err);
    }
    /* numbers that make a codebook are far from overflowing */
    if (bytes != sizeof *header + (uint64_t)info->n_layers * info->n_kv_heads * record) {
        return qyi_codebook_corrupt(name, "has another length than its header says", err);
    }
    return QY_OK;
}

enum qy_status qy_codebook_begin(const struct qy_allocator *mem, const void *first, uint64_t bytes,
                                 struct qy_codebook **codebook, struct qy_error *err)
{
    struct qyi_codebook_header header;
    struct qy_codebook_info info;

    memcpy(&header, first, sizeof header);
    enum qy_status st = qyi_codebook_header_read(&header, sizeof header, name, &info, err);
    if (st == QY_OK) {
        st = check_bytes(&header, &info, bytes, err);
    }
    return st == QY_OK ? qy_codebook_new(mem, &info, codebook, err) : st;
}

enum qy_status qy_codebook_add(struct qy_codebook *codebook, uint64_t at, const void *piece,
                               size_t bytes, struct qy_error *err)
{
    const uint64_t whole = qy_codebook_image_bytes(codebook);
    enum qy_status st = QY_OK;

    if (at < sizeof(struct qyi_codebook_header) || at > whole || bytes > whole - at) {
        return QY_ERR_INVALID;
    }
    at -= sizeof(struct qyi_codebook_header);
    memcpy(codebook->records + at, piece, bytes);
    const uint32_t end = (uint32_t)((at + bytes) / codebook->record_bytes);
    for (uint32_t i = (uint32_t)(at / codebook->record_bytes); st == QY_OK && i < end; i++) {
        st = qyi_codebook_record_check(codebook, i, name, err);
        if (st == QY_OK && !qyi_codebook_record(codebook, i).head->filled) {
            st = qyi_codebook_corrupt(name, "lacks tables", err);
        }
    }
    return st;
}
