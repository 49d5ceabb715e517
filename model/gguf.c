/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens a GGUF file: maps it read-only, reads the header and has the metadata and the tensor table
 * checked. After a successful open every offset that the accessors hand out lies inside the file.
 *
 * Not done here: nothing is converted or copied, and no key is interpreted but general.alignment
 * and split.count. A file that another process shortens while it is mapped makes later reads fail
 * with SIGBUS, as with any mapping: replace model files by renaming, never by writing into them.
 */
#include "model/gguf_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Smallest entry of the file: key length, one byte of key, type, one byte of value. */
enum { MIN_VALUE_BYTES = 8 + 1 + 4 + 1 };
/* Name length, one byte of name, number of dims, one dim, type, offset. */
enum { MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8 };

static enum qy_status check_magic(struct qyi_gguf_cursor *cursor)
{
    const struct qy_gguf *gguf = cursor->gguf;
    char shown[QYI_GGUF_SHOWN_BYTES];

    if (gguf->n_bytes >= 4 && memcmp(gguf->bytes, "GGUF", 4) == 0) {
        cursor->at = 4;
        return QY_OK;
    }
    if (gguf->n_bytes >= 4 && memcmp(gguf->bytes, "FUGG", 4) == 0) {
        return qy_error_set(cursor->err, QY_ERR_UNSUPPORTED,
                            "file '%s': big-endian GGUF; little-endian files are read; convert it "
                            "with gguf_convert_endian.py",
                            gguf->name);
    }
    const struct qy_text head = {(const char *)gguf->bytes, gguf->n_bytes < 4 ? gguf->n_bytes : 4};
    return qy_error_set(cursor->err, QY_ERR_CORRUPT,
                        "file '%s': starts with '%s'; a GGUF file starts with 'GGUF'; is this a "
                        "model file, and was it downloaded whole?",
                        gguf->name, qyi_gguf_show(head, shown));
}

static enum qy_status check_version(struct qyi_gguf_cursor *cursor)
{
    uint32_t version;
    enum qy_status st = qyi_gguf_read_u32(cursor, "the version", &version);

    if (st != QY_OK || version == 2 || version == 3) {
        return st;
    }
    if ((version & 0xffff) == 0 && version != 0) {
        return qy_error_set(cursor->err, QY_ERR_UNSUPPORTED,
                            "file '%s': big-endian GGUF; little-endian files are read; convert it "
                            "with gguf_convert_endian.py",
                            cursor->gguf->name);
    }
    return qy_error_set(cursor->err, QY_ERR_UNSUPPORTED,
                        "file '%s': GGUF version %u; versions 2 and 3 are read; convert it again "
                        "with a current tool",
                        cursor->gguf->name, version);
}

/* A count of entries, bounded by what the rest of the file can hold, so that no allocation is
 * larger than a small multiple of the file. */
static enum qy_status read_count(struct qyi_gguf_cursor *cursor, const char *what,
                                 uint64_t entry_bytes, uint64_t max, uint64_t *out)
{
    const size_t at = cursor->at;
    uint64_t count;
    enum qy_status st = qyi_gguf_read_u64(cursor, what, &count);

    if (st != QY_OK) {
        return st;
    }
    const uint64_t room = (cursor->gguf->n_bytes - cursor->at) / entry_bytes;
    if (count > room || count > max) {
        return qy_error_set(cursor->err, QY_ERR_CORRUPT,
                            "file '%s': %s at offset %zu is %llu; at most %llu fit in this file; "
                            "it is damaged or not whole",
                            cursor->gguf->name, what, at, (unsigned long long)count,
                            (unsigned long long)(room < max ? room : max));
    }
    *out = count;
    return QY_OK;
}

static enum qy_status check_alignment(struct qy_gguf *gguf, struct qy_error *err)
{
    const struct qy_gguf_value *value = qy_gguf_find_value(gguf, "general.alignment");
    uint64_t alignment = QYI_GGUF_DEFAULT_ALIGNMENT;

    if (value && (value->type != QY_GGUF_U32 ||
                  qy_gguf_get_u64(gguf, "general.alignment", &alignment) != 0)) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "file '%s': general.alignment has type %d; it must be u32 (%d)",
                            gguf->name, (int)value->type, (int)QY_GGUF_U32);
    }
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 ||
        alignment > QYI_GGUF_MAX_ALIGNMENT) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "file '%s': general.alignment %llu; a power of two from 1 to %d is "
                            "accepted",
                            gguf->name, (unsigned long long)alignment, QYI_GGUF_MAX_ALIGNMENT);
    }
    gguf->alignment = (uint32_t)alignment;
    return QY_OK;
}

/* One part of a model that was split has all the metadata and only some of the tensors. */
static enum qy_status check_whole(const struct qy_gguf *gguf, struct qy_error *err)
{
    uint64_t parts;

    if (qy_gguf_get_u64(gguf, "split.count", &parts) == 0 && parts > 1) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "file '%s': one of %llu parts of a model; one file is read; join the "
                            "parts with llama-gguf-split --merge",
                            gguf->name, (unsigned long long)parts);
    }
    return QY_OK;
}

static enum qy_status parse(struct qy_gguf *gguf, struct qy_error *err)
{
    struct qyi_gguf_cursor cursor = {.gguf = gguf, .at = 0, .err = err};
    uint64_t n_tensors = 0;
    uint64_t n_values = 0;
    enum qy_status st = check_magic(&cursor);

    if (st == QY_OK) {
        st = check_version(&cursor);
    }
    if (st == QY_OK) {
        st = read_count(&cursor, "the number of tensors", MIN_TENSOR_BYTES, QYI_GGUF_MAX_TENSORS,
                        &n_tensors);
    }
    if (st == QY_OK) {
        st = read_count(&cursor, "the number of metadata values", MIN_VALUE_BYTES,
                        QYI_GGUF_MAX_VALUES, &n_values);
    }
    if (st == QY_OK) {
        st = qyi_gguf_read_values(gguf, &cursor, n_values);
    }
    if (st == QY_OK) {
        st = check_alignment(gguf, err);
    }
    if (st == QY_OK) {
        st = check_whole(gguf, err);
    }
    if (st == QY_OK) {
        st = qyi_gguf_read_tensors(gguf, &cursor, n_tensors);
    }
    return st;
}

/* Takes over the mapping when mapped is set, also on failure. */
static enum qy_status open_bytes(const struct qy_allocator *mem, const void *bytes, size_t n_bytes,
                                 int mapped, const char *name, struct qy_gguf **out,
                                 struct qy_error *err)
{
    const size_t name_bytes = strlen(name) + 1;
    struct qy_gguf *gguf = qy_alloc_zero(mem, sizeof(*gguf) + name_bytes);

    if (!gguf) {
        if (mapped) {
            (void)munmap((void *)(uintptr_t)bytes, n_bytes);
        }
        return qy_error_set(err, QY_ERR_NOMEM, "file '%s': no memory to open it", name);
    }
    gguf->mem = *mem;
    gguf->name = memcpy(gguf + 1, name, name_bytes);
    gguf->bytes = bytes;
    gguf->n_bytes = n_bytes;
    gguf->mapped = mapped;
    const enum qy_status st = parse(gguf, err);
    if (st != QY_OK) {
        qy_gguf_close(gguf);
        return st;
    }
    *out = gguf;
    return QY_OK;
}

enum qy_status qy_gguf_open_memory(const struct qy_allocator *mem, const void *bytes,
                                   size_t n_bytes, const char *name, struct qy_gguf **gguf,
                                   struct qy_error *err)
{
    return open_bytes(mem, bytes, n_bytes, 0, name, gguf, err);
}

enum qy_status qy_gguf_open(const struct qy_allocator *mem, const char *path, struct qy_gguf **gguf,
                            struct qy_error *err)
{
    struct stat info;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return qy_error_set(err, QY_ERR_NOT_FOUND, "file '%s': %s; a GGUF file is needed", path,
                            strerror(errno));
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        (void)close(fd);
        return qy_error_set(err, QY_ERR_INVALID,
                            "file '%s': not a regular file; a GGUF file is "
                            "needed",
                            path);
    }
    if (info.st_size <= 0 || (uint64_t)info.st_size > SIZE_MAX) {
        (void)close(fd);
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "file '%s': %lld bytes; a GGUF file is needed; "
                            "was it downloaded whole?",
                            path, (long long)info.st_size);
    }
    const size_t n_bytes = (size_t)info.st_size;
    void *bytes = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    const int map_errno = errno;
    (void)close(fd); /* the mapping stays */
    if (bytes == MAP_FAILED) {
        return qy_error_set(err, QY_ERR_NOMEM, "file '%s': mapping %zu bytes: %s", path, n_bytes,
                            strerror(map_errno));
    }
    return open_bytes(mem, bytes, n_bytes, 1, path, gguf, err);
}

void qy_gguf_close(struct qy_gguf *gguf)
{
    if (!gguf) {
        return;
    }
    const struct qy_allocator mem = gguf->mem;
    qy_free(&mem, gguf->values);
    qy_free(&mem, gguf->tensors);
    qy_free(&mem, gguf->value_order);
    qy_free(&mem, gguf->tensor_order);
    if (gguf->mapped) {
        (void)munmap((void *)(uintptr_t)gguf->bytes, gguf->n_bytes);
    }
    qy_free(&mem, gguf);
}

/* Everything before the data, then the start, middle and end of every tensor: an edit of the
 * metadata or a model with other weights changes it; reading all the data would cost seconds. */
uint64_t qy_gguf_hash(const struct qy_gguf *gguf)
{
    enum { SAMPLE_BYTES = 256 };
    uint64_t hash = qy_checksum(gguf->bytes, gguf->data_offset, gguf->n_bytes);

    for (size_t i = 0; i < gguf->n_tensors; i++) {
        const struct qy_gguf_tensor *tensor = &gguf->tensors[i];
        const uint8_t *data = tensor->data;
        const size_t bytes = (size_t)tensor->bytes;
        const size_t n = bytes < SAMPLE_BYTES ? bytes : SAMPLE_BYTES;
        hash = qy_checksum(data, n, hash);
        hash = qy_checksum(data + (bytes - n) / 2, n, hash);
        hash = qy_checksum(data + (bytes - n), n, hash);
    }
    return hash;
}
