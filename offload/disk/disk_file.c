/* SPDX-License-Identifier: Apache-2.0 */
/* The file of a disk: made without a name, with all its bytes, for its owner alone. See disk.h. */
#include "offload/disk/disk_engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { SIZE_TEXT = 32, PATH_TEXT = 512 };

/* Filesystems that know no O_TMPFILE: a name that lives for a moment. -1 with errno. */
static int open_named(const char *folder)
{
    char path[PATH_TEXT];

    if (snprintf(path, sizeof(path), "%s/.quarry-XXXXXX", folder) >= (int)sizeof(path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    const int fd = mkostemp(path, O_CLOEXEC); /* 0600 */
    if (fd >= 0) {
        (void)unlink(path);
    }
    return fd;
}

static int open_unnamed(const char *folder)
{
    const int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);

    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT)) {
        return fd;
    }
    return open_named(folder);
}

/* Is there room, as far as can be told without taking any? */
static enum qy_status check_room(int fd, const char *folder, uint64_t bytes, struct qy_error *err)
{
    struct statvfs fs;
    struct rlimit limit;
    char text[2][SIZE_TEXT];

    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < bytes) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "cache.disk_bytes '%s': this process may write files of at most %s "
                            "(ulimit -f); raise the limit or lower cache.disk_bytes",
                            qy_format_size(bytes, text[0], SIZE_TEXT),
                            qy_format_size(limit.rlim_cur, text[1], SIZE_TEXT));
    }
    if (fstatvfs(fd, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < bytes) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "cache.disk_bytes '%s': only %s are free in '%.200s'; lower it, "
                            "free some, or choose another folder with cache.disk_path",
                            qy_format_size(bytes, text[0], SIZE_TEXT),
                            qy_format_size((uint64_t)fs.f_bavail * fs.f_frsize, text[1], SIZE_TEXT),
                            folder);
    }
    return QY_OK;
}

static enum qy_status allocate(int fd, const char *folder, uint64_t bytes, struct qy_error *err)
{
    char text[SIZE_TEXT];
    const enum qy_status st = check_room(fd, folder, bytes, err);

    if (st != QY_OK) {
        return st;
    }
    const int why = posix_fallocate(fd, 0, (off_t)bytes);
    return why == 0 ? QY_OK
                    : qy_error_set(err, QY_ERR_NOMEM,
                                   "cache.disk_bytes '%s': not given by the disk of '%.200s' (%s); "
                                   "lower it, or choose another folder with cache.disk_path",
                                   qy_format_size(bytes, text, SIZE_TEXT), folder, strerror(why));
}

/* Past the page cache, where that is possible: the tier has a better idea of what is worth keeping
 * in memory. Some filesystems take the flag and refuse the first read. */
static int set_direct(const struct qy_allocator *mem, int fd)
{
    const int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_DIRECT) != 0) {
        return 0;
    }
    void *page = mem->alloc(mem->ctx, QYI_DISK_PAGE, QYI_DISK_PAGE);
    const ssize_t n = page ? pread(fd, page, QYI_DISK_PAGE, 0) : -1;

    qy_free(mem, page);
    if (n == QYI_DISK_PAGE) {
        return 1;
    }
    (void)fcntl(fd, F_SETFL, flags);
    return 0;
}

enum qy_status qyi_disk_file_open(struct qyi_disk *disk, const char *folder, struct qy_error *err)
{
    const int fd = open_unnamed(folder);

    if (fd < 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "cache.disk_path '%.200s': no file can be made there (%s); name a "
                            "folder of a disk that this user may write to",
                            folder, strerror(errno));
    }
    const enum qy_status st = allocate(fd, folder, disk->store.bytes, err);
    if (st != QY_OK) {
        (void)close(fd);
        return st;
    }
    disk->fd = fd;
    disk->direct = set_direct(&disk->rt->mem, fd);
    return QY_OK;
}
