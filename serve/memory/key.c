/* SPDX-License-Identifier: Apache-2.0 */
/* Key files. What a file holds is never told, not even in errors. */
#include "serve/memory/key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIGITS = 2 * QY_NET_KEY_BYTES, TEXT_BYTES = DIGITS + 16 };

/* Reads up to n bytes; -1: error. */
static ssize_t read_all(int fd, char *to, size_t n)
{
    size_t have = 0;
    while (have < n) {
        const ssize_t got = read(fd, to + have, n - have);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        have += (size_t)got;
    }
    return (ssize_t)have;
}

/* -1: no digit. */
static int digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static enum qy_status check_file(const char *path, int fd, struct qy_error *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "key file '%s': is no regular file; quarry memory --new-key FILE writes "
            "a key file",
            path);
    }
    if (info.st_uid != geteuid() && info.st_uid != 0) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "key file '%s': belongs to another user (%u); copy it to a file of your "
            "own with mode 0600",
            path, (unsigned)info.st_uid);
    }
    if ((info.st_mode & 077) != 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "key file '%s': its mode is %04o, so others than its owner may use it; "
                            "chmod 600 it, or write a new key if somebody may have read it",
                            path, (unsigned)(info.st_mode & 07777));
    }
    return QY_OK;
}

static enum qy_status parse(const char *path, const char *text, size_t bytes, uint8_t *key,
                            struct qy_error *err)
{
    size_t n = bytes;
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' ')) {
        n--;
    }
    int good = n == DIGITS && bytes < TEXT_BYTES;
    for (size_t i = 0; good && i < DIGITS; i++) {
        good = digit(text[i]) >= 0;
    }
    if (!good) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "key file '%s': holds something else than %d hex digits; quarry memory "
                            "--new-key FILE writes a key file",
                            path, DIGITS);
    }
    for (size_t i = 0; i < QY_NET_KEY_BYTES; i++) {
        key[i] = (uint8_t)(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
    }
    return QY_OK;
}

enum qy_status qyi_key_read(const char *path, uint8_t *key, struct qy_error *err)
{
    /* not blocking: a name may be that of a pipe that nobody writes to */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "key file '%s': cannot be read: %s; quarry memory --new-key FILE writes "
            "a key file",
            path, strerror(errno));
    }
    char text[TEXT_BYTES];
    enum qy_status st = check_file(path, fd, err);
    if (st == QY_OK) {
        const ssize_t got = read_all(fd, text, sizeof text);
        st = got < 0 ? qy_error_set(err, QY_ERR_CONFIG, "key file '%s': reading failed: %s", path,
                                    strerror(errno))
                     : parse(path, text, (size_t)got, key, err);
    }
    close(fd);
    explicit_bzero(text, sizeof text);
    return st;
}

static int write_all(int fd, const char *from, size_t n)
{
    while (n > 0) {
        const ssize_t put = write(fd, from, n);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return -1;
        }
        from += put;
        n -= (size_t)put;
    }
    return fsync(fd) == 0 || errno == EINVAL ? 0 : -1; /* EINVAL: the file system has none */
}

enum qy_status qyi_key_write_new(const char *path, struct qy_error *err)
{
    uint8_t key[QY_NET_KEY_BYTES];
    char text[DIGITS + 2];
    if (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED, "key: the system gave no random bytes: %s",
                            strerror(errno));
    }
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        explicit_bzero(key, sizeof key);
        return qy_error_set(err, QY_ERR_CONFIG,
                            "key file '%s': cannot be written: %s; give the name of a file that is "
                            "not there yet",
                            path, strerror(errno));
    }
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < QY_NET_KEY_BYTES; i++) {
        text[2 * i] = digits[key[i] >> 4];
        text[2 * i + 1] = digits[key[i] & 15];
    }
    text[DIGITS] = '\n';
    const int failed = fchmod(fd, 0600) != 0 || write_all(fd, text, DIGITS + 1) != 0;
    const int cause = errno;
    explicit_bzero(key, sizeof key);
    explicit_bzero(text, sizeof text);
    close(fd);
    if (failed) {
        unlink(path);
        return qy_error_set(err, QY_ERR_CONFIG, "key file '%s': writing failed: %s", path,
                            strerror(cause));
    }
    return QY_OK;
}
