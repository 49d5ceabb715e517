/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a codebook: a header of 256 bytes and the records (retrieval/codebook.h), nothing
 * between or behind. Both carry checksums, and the header alone says how long the file must be, so
 * that no damage and no cut goes unseen. A file is written under another name, then renamed.
 */
#include "retrieval/codebook.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the file holds little-endian numbers as they lie in memory"
#endif

enum { FILE_VERSION = 1 };
static const char file_magic[4] = {'Q', 'Y', 'C', 'B'};

static uint64_t header_checksum(const struct qyi_codebook_header *header)
{
    return qy_checksum(header, offsetof(struct qyi_codebook_header, checksum), FILE_VERSION);
}

/* ---- reading ------------------------------------------------------------------------------------- */

enum qy_status qyi_codebook_corrupt(const char *path, const char *why, struct qy_error *err)
{
    return qy_error_set(err, QY_ERR_CORRUPT,
                        "codebook '%s': %s; make it anew with quarry calibrate", path, why);
}

enum qy_status qyi_codebook_header_read(const struct qyi_codebook_header *header, size_t got,
                                        const char *path, struct qy_codebook_info *info,
                                        struct qy_error *err)
{
    if (got < sizeof header->magic || memcmp(header->magic, file_magic, sizeof file_magic) != 0) {
        return qyi_codebook_corrupt(path, "is no codebook", err);
    }
    if (got < sizeof *header) {
        return qyi_codebook_corrupt(path, "is cut short", err);
    }
    if (header->checksum != header_checksum(header)) {
        /* A later version may have another header altogether: its number is all there is to say. */
        if (header->version > FILE_VERSION && header->version < 256) {
            return qy_error_set(err, QY_ERR_UNSUPPORTED,
                                "codebook '%s': version %u; this build reads version %d; make it "
                                "anew with quarry calibrate",
                                path, header->version, FILE_VERSION);
        }
        return qyi_codebook_corrupt(path, "its header is damaged", err);
    }
    if (header->version != FILE_VERSION) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "codebook '%s': version %u; this build reads version %d", path,
                            header->version, FILE_VERSION);
    }
    *info = (struct qy_codebook_info){.kind = (enum qy_codebook_kind)header->kind,
                                      .model_hash = header->model_hash,
                                      .n_layers = header->n_layers,
                                      .n_kv_heads = header->n_kv_heads,
                                      .head_dim = header->head_dim,
                                      .m = header->m,
                                      .bits = header->bits,
                                      .n_words = header->n_words,
                                      .seed = header->seed,
                                      .n_tokens = header->n_tokens};
    memcpy(info->model_name, header->model_name, sizeof info->model_name);
    memcpy(info->metric, header->metric, sizeof info->metric);
    return QY_OK;
}

/* The header, and what it says in info. */
static enum qy_status read_header(FILE *file, const char *path, struct qyi_codebook_header *header,
                                  struct qy_codebook_info *info, struct qy_error *err)
{
    const size_t got = fread(header, 1, sizeof *header, file);

    return qyi_codebook_header_read(header, got, path, info, err);
}

/* Before anything is reserved: is the file as long as its header says? */
static enum qy_status check_length(FILE *file, const char *path,
                                   const struct qyi_codebook_header *header, struct qy_error *err)
{
    struct stat stat;
    const uint64_t n = (uint64_t)header->n_layers * header->n_kv_heads;

    if (fstat(fileno(file), &stat) != 0 || header->record_bytes == 0 ||
        header->record_bytes > UINT32_MAX ||
        (uint64_t)stat.st_size < sizeof *header + n * header->record_bytes) {
        return qyi_codebook_corrupt(path, "is cut short", err);
    }
    if ((uint64_t)stat.st_size > sizeof *header + n * header->record_bytes) {
        return qyi_codebook_corrupt(path, "has bytes behind its end", err);
    }
    return QY_OK;
}

enum qy_status qyi_codebook_record_check(struct qy_codebook *codebook, uint32_t i, const char *path,
                                         struct qy_error *err)
{
    const struct qyi_record record = qyi_codebook_record(codebook, i);
    const int same = *record.checksum == qyi_codebook_record_checksum(codebook, i);

    if (!same || (record.head->filled && qyi_codebook_derive(codebook, i, NULL) != QY_OK)) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "codebook '%s': the tables of layer %u, KV head %u are damaged; "
                            "make it anew with quarry calibrate",
                            path, i / codebook->info.n_kv_heads, i % codebook->info.n_kv_heads);
    }
    return QY_OK;
}

static enum qy_status read_records(FILE *file, const char *path, struct qy_codebook *codebook,
                                   struct qy_error *err)
{
    const size_t bytes = codebook->n_records * codebook->record_bytes;
    enum qy_status st = QY_OK;

    if (fread(codebook->records, 1, bytes, file) != bytes) {
        return qyi_codebook_corrupt(path, "is cut short", err);
    }
    for (uint32_t i = 0; st == QY_OK && i < codebook->n_records; i++) {
        st = qyi_codebook_record_check(codebook, i, path, err);
    }
    return st;
}

enum qy_status qy_codebook_open_part(const struct qy_allocator *mem, const char *path,
                                     struct qy_codebook **codebook, uint64_t *tag,
                                     struct qy_error *err)
{
    FILE *file = fopen(path, "rb");
    struct qyi_codebook_header header;
    struct qy_codebook_info info;
    struct qy_codebook *made = NULL;

    if (file == NULL) {
        return qy_error_set(err, QY_ERR_NOT_FOUND, "codebook '%s': cannot be read: %s", path,
                            strerror(errno));
    }
    enum qy_status st = read_header(file, path, &header, &info, err);
    if (st == QY_OK) {
        st = check_length(file, path, &header, err);
    }
    if (st == QY_OK) {
        st = qy_codebook_new(mem, &info, &made, err);
    }
    if (st == QY_OK && made->record_bytes != header.record_bytes) {
        st = qyi_codebook_corrupt(path, "its header makes no sense", err);
    }
    if (st == QY_OK) {
        st = read_records(file, path, made, err);
    }
    fclose(file);
    if (st != QY_OK) {
        qy_codebook_close(made);
        return st;
    }
    *codebook = made;
    *tag = header.tag;
    return QY_OK;
}

enum qy_status qy_codebook_read_info(const char *path, struct qy_codebook_info *info,
                                     struct qy_error *err)
{
    FILE *file = fopen(path, "rb");
    struct qyi_codebook_header header;

    if (file == NULL) {
        return qy_error_set(err, QY_ERR_NOT_FOUND, "codebook '%s': cannot be read: %s", path,
                            strerror(errno));
    }
    enum qy_status st = read_header(file, path, &header, info, err);
    if (st == QY_OK) {
        st = check_length(file, path, &header, err);
    }
    fclose(file);
    return st;
}

static uint32_t count_filled(const struct qy_codebook *codebook)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < codebook->n_records; i++) {
        n += qyi_codebook_record(codebook, i).head->filled != 0;
    }
    return n;
}

enum qy_status qy_codebook_open(const struct qy_allocator *mem, const char *path,
                                struct qy_codebook **codebook, struct qy_error *err)
{
    struct qy_codebook *made = NULL;
    uint64_t tag = 0;
    enum qy_status st = qy_codebook_open_part(mem, path, &made, &tag, err);

    if (st == QY_OK && count_filled(made) < made->n_records) {
        st = qy_error_set(err, QY_ERR_CORRUPT,
                          "codebook '%s': %u of %u tables are there: a calibration that did not "
                          "end; run it again",
                          path, count_filled(made), made->n_records);
        qy_codebook_close(made);
    }
    if (st == QY_OK) {
        *codebook = made;
    }
    return st;
}

/* ---- writing ------------------------------------------------------------------------------------- */

void qyi_codebook_header_make(const struct qy_codebook *codebook, uint64_t tag,
                              struct qyi_codebook_header *header)
{
    const struct qy_codebook_info *info = &codebook->info;

    *header = (struct qyi_codebook_header){.version = FILE_VERSION,
                                           .kind = (uint32_t)info->kind,
                                           .n_layers = info->n_layers,
                                           .n_kv_heads = info->n_kv_heads,
                                           .head_dim = info->head_dim,
                                           .m = info->m,
                                           .bits = info->bits,
                                           .n_words = info->n_words,
                                           .tag = tag,
                                           .model_hash = info->model_hash,
                                           .seed = info->seed,
                                           .n_tokens = info->n_tokens,
                                           .record_bytes = codebook->record_bytes};
    memcpy(header->magic, file_magic, sizeof header->magic);
    memcpy(header->model_name, info->model_name, sizeof header->model_name);
    memcpy(header->metric, info->metric, sizeof header->metric);
    header->checksum = header_checksum(header);
}

static int write_all(FILE *file, const struct qy_codebook *codebook, uint64_t tag)
{
    struct qyi_codebook_header header;

    qyi_codebook_header_make(codebook, tag, &header);
    for (uint32_t i = 0; i < codebook->n_records; i++) {
        *qyi_codebook_record(codebook, i).checksum = qyi_codebook_record_checksum(codebook, i);
    }
    return fwrite(&header, sizeof header, 1, file) == 1 &&
           fwrite(codebook->records, codebook->record_bytes, codebook->n_records, file) ==
               codebook->n_records &&
           fflush(file) == 0 && fsync(fileno(file)) == 0;
}

enum qy_status qy_codebook_save_part(const struct qy_codebook *codebook, uint64_t tag,
                                     const char *path, struct qy_error *err)
{
    char temporary[4096];
    const int n = snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid());

    if (n < 0 || (size_t)n >= sizeof temporary) {
        return qy_error_set(err, QY_ERR_INVALID, "codebook '%.200s...': the path is too long",
                            path);
    }
    FILE *file = fopen(temporary, "wb");
    int ok = file != NULL && write_all(file, codebook, tag);
    int cause = errno;

    if (file != NULL && fclose(file) != 0) {
        cause = ok ? errno : cause;
        ok = 0;
    }
    if (ok && rename(temporary, path) != 0) {
        cause = errno;
        ok = 0;
    }
    if (!ok) {
        if (file != NULL) {
            unlink(temporary);
        }
        return qy_error_set(err, QY_ERR_NOT_FOUND, "codebook '%s': cannot be written: %s", path,
                            strerror(cause));
    }
    return QY_OK;
}

enum qy_status qy_codebook_save(const struct qy_codebook *codebook, const char *path,
                                struct qy_error *err)
{
    if (count_filled(codebook) < codebook->n_records) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "codebook '%s': %u of %u tables are filled; fill them all first", path,
                            count_filled(codebook), codebook->n_records);
    }
    return qy_codebook_save_part(codebook, 0, path, err);
}
