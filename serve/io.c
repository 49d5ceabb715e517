/* SPDX-License-Identifier: Apache-2.0 */
/* Reading files, printing errors. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve/serve.h"

enum qy_status qyi_read_file(const char *path, char **data, size_t *bytes, struct qy_error *err)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    struct stat info;
    if (file == NULL || (fstat(fileno(file), &info) == 0 && S_ISDIR(info.st_mode))) {
        const char *why = file == NULL ? strerror(errno) : "it is a directory";
        if (file != NULL) {
            fclose(file);
        }
        return qy_error_set(err, QY_ERR_NOT_FOUND,
                            "file '%s': cannot be read: %s; give a text file, or - for stdin", path,
                            why);
    }
    size_t used = 0, room = 1u << 16;
    char *text = malloc(room);
    enum qy_status st = QY_OK;
    while (text != NULL && st == QY_OK) {
        const size_t got = fread(text + used, 1, room - used - 1, file);
        used += got;
        if (got == 0) {
            if (ferror(file) && !qyi_interrupted()) {
                st = qy_error_set(err, QY_ERR_NOT_FOUND, "file '%s': reading failed: %s", path,
                                  strerror(errno));
            }
            break;
        }
        if (used + 1 == room) {
            char *more = realloc(text, room * 2);
            if (more == NULL) {
                free(text);
            }
            text = more;
            room *= 2;
        }
    }
    if (file != stdin) {
        fclose(file);
    }
    if (text == NULL) {
        st =
            qy_error_set(err, QY_ERR_NOMEM, "file '%s': out of memory after %zu bytes", path, used);
    }
    if (st != QY_OK) {
        free(text);
        return st;
    }
    text[used] = '\0';
    *data = text;
    *bytes = used;
    return QY_OK;
}

uint64_t qyi_file_checksum(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    uint64_t sum = 0;
    if (fd < 0) {
        return 0;
    }
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0) {
        const size_t bytes = (size_t)info.st_size;
        void *at = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (at != MAP_FAILED) {
            (void)madvise(at, bytes, MADV_SEQUENTIAL);
            sum = qy_checksum(at, bytes, bytes);
            munmap(at, bytes);
        }
    }
    close(fd);
    return sum;
}

int qyi_fail(const struct qy_error *err)
{
    fprintf(stderr, "quarry: error: %s\n", err->text);
    return err->status == QY_ERR_CONFIG ? 2 : 1;
}
