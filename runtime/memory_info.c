/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory this process may take: the machine's, and the limits of its cgroup and of every
 * cgroup above it (v1 and v2). It reads files and decides nothing.
 * Source: Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
 */
#include "runtime/memory_info.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

/* The names that differ between the two versions of the memory controller. */
struct cgroup_kind {
    const char *mount; /* below <root>, tried in order of the table          */
    int version;
    const char *limit, *used, *active_file, *inactive_file;
};

static const struct cgroup_kind kinds[] = {
    {"/sys/fs/cgroup", 2, "memory.max", "memory.current", "active_file", "inactive_file"},
    {"/sys/fs/cgroup/unified", 2, "memory.max", "memory.current", "active_file", "inactive_file"},
    {"/sys/fs/cgroup/memory", 1, "memory.limit_in_bytes", "memory.usage_in_bytes",
     "total_active_file", "total_inactive_file"},
};

/* cgroup v1 writes "no limit" as the largest multiple of the page size. */
#define NO_LIMIT_V1 ((uint64_t)1 << 62)

/* The number after `key` and white space or a colon in a file of such lines. Returns 1 if found. */
static int read_key(const char *path, const char *key, uint64_t *value)
{
    size_t length = strlen(key);
    char line[256];
    int found = 0;
    FILE *file = fopen(path, "re");

    if (file == NULL) {
        return 0;
    }
    while (!found && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, key, length) == 0 && strchr(" \t:", line[length]) != NULL) {
            found = sscanf(line + length + (line[length] == ':'), "%" SCNu64, value) == 1;
        }
    }
    fclose(file);
    return found;
}

/* The first word of a file. Returns 1 if there is one. */
static int read_word(const char *path, char *word, size_t bytes)
{
    FILE *file = fopen(path, "re");
    int ok = 0;

    if (file != NULL) {
        ok = fgets(word, (int)bytes, file) != NULL;
        fclose(file);
    }
    if (ok) {
        word[strcspn(word, " \t\n")] = '\0';
    }
    return ok;
}

static int read_number(const char *path, uint64_t *value)
{
    char word[64], *end;

    if (!read_word(path, word, sizeof(word)) || word[0] < '0' || word[0] > '9') {
        return 0; /* "max" of cgroup v2 is no number: no limit */
    }
    *value = strtoull(word, &end, 10);
    return *end == '\0';
}

/* Adds what the cgroup in one folder allows: the smallest limit, and the smallest rest. */
static void add_folder(const char *folder, const struct cgroup_kind *kind,
                       struct qy_memory_info *out, uint64_t *room)
{
    char path[PATH_MAX + 64];
    uint64_t limit, used = 0, active = 0, inactive = 0, left;

    snprintf(path, sizeof(path), "%s/%s", folder, kind->limit);
    if (!read_number(path, &limit) || limit >= NO_LIMIT_V1) {
        return;
    }
    snprintf(path, sizeof(path), "%s/%s", folder, kind->used);
    (void)read_number(path, &used);
    snprintf(path, sizeof(path), "%s/memory.stat", folder);
    (void)read_key(path, kind->active_file, &active);
    (void)read_key(path, kind->inactive_file, &inactive);
    /* The kernel drops file pages before it refuses memory, so they do not count as used. */
    used = used > active + inactive ? used - active - inactive : 0;
    left = limit > used ? limit - used : 0;
    if (limit < out->limit) {
        out->limit = limit;
        out->limit_used = used;
    }
    if (left < *room) {
        *room = left;
    }
}

/* Walks from the process's cgroup up to the mount. In a container without its own cgroup name space
 * the lower folders do not exist under the mount; the walk then ends at the mount, which is the
 * container's own group. */
static void add_cgroup(const char *root, const struct cgroup_kind *kind, const char *group,
                       struct qy_memory_info *out, uint64_t *room)
{
    char folder[PATH_MAX];
    size_t top;
    int n = snprintf(folder, sizeof(folder), "%s%s", root, kind->mount);

    if (n < 0 || (size_t)n + strlen(group) >= sizeof(folder)) {
        return;
    }
    top = (size_t)n;
    snprintf(folder + top, sizeof(folder) - top, "%s", group);
    for (;;) {
        char *slash;

        add_folder(folder, kind, out, room);
        slash = strrchr(folder + top, '/');
        if (slash == NULL) {
            return;
        }
        *slash = '\0';
    }
}

/* 1 when a line of /proc/self/cgroup names the memory controller of this version. */
static int line_is_memory(const char *line, const char *path, int version)
{
    size_t n = (size_t)(path - line);
    char head[256];

    if (n >= sizeof(head)) {
        return 0;
    }
    memcpy(head, line, n);
    head[n] = '\0';
    if (version == 2) {
        return strcmp(head, "0::") == 0;
    }
    for (char *save = NULL, *p = strtok_r(head, ":,", &save); p != NULL;
         p = strtok_r(NULL, ":,", &save)) {
        if (strcmp(p, "memory") == 0) {
            return 1;
        }
    }
    return 0;
}

static void read_cgroups(const char *root, struct qy_memory_info *out, uint64_t *room)
{
    char path[PATH_MAX], line[PATH_MAX];
    FILE *file;

    snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    file = fopen(path, "re");
    if (file == NULL) {
        return;
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        char *group = strchr(line, '/');

        if (group == NULL) {
            continue;
        }
        line[strcspn(line, "\n")] = '\0';
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
            if (line_is_memory(line, group, kinds[i].version)) {
                add_cgroup(root, &kinds[i], group, out, room);
            }
        }
    }
    fclose(file);
}

static uint64_t read_huge_page(const char *root)
{
    char path[PATH_MAX], line[128] = "";
    uint64_t bytes = 0;
    FILE *file;

    snprintf(path, sizeof(path), "%s/sys/kernel/mm/transparent_hugepage/enabled", root);
    file = fopen(path, "re");
    if (file == NULL) {
        return 0;
    }
    if (fgets(line, sizeof(line), file) == NULL || strstr(line, "[never]") != NULL) {
        line[0] = '\0';
    }
    fclose(file);
    snprintf(path, sizeof(path), "%s/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", root);
    return line[0] != '\0' && read_number(path, &bytes) ? bytes : 0;
}

void qyi_memory_read_from(const char *root, struct qy_memory_info *out)
{
    char path[PATH_MAX];
    uint64_t room = UINT64_MAX, kib = 0;
    struct rlimit lock;
    struct statvfs shm;

    memset(out, 0, sizeof(*out));
    out->limit = UINT64_MAX;
    snprintf(path, sizeof(path), "%s/proc/meminfo", root);
    if (read_key(path, "MemTotal", &kib)) {
        out->total = kib * 1024;
    }
    if (read_key(path, "MemAvailable", &kib)) {
        out->available = kib * 1024;
    }
    read_cgroups(root, out, &room);
    out->usable = room < out->available ? room : out->available;
    out->huge_page_bytes = read_huge_page(root);
    out->memlock = UINT64_MAX;
    if (getrlimit(RLIMIT_MEMLOCK, &lock) == 0 && lock.rlim_cur != RLIM_INFINITY) {
        out->memlock = lock.rlim_cur;
    }
    if (statvfs("/dev/shm", &shm) == 0) {
        out->shm_total = (uint64_t)shm.f_blocks * shm.f_frsize;
        out->shm_free = (uint64_t)shm.f_bavail * shm.f_frsize;
    }
}

void qy_memory_read(struct qy_memory_info *out)
{
    qyi_memory_read_from("", out);
}
