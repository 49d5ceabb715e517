/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the codebook of a run: by name, among those at hand, or by learning it now. */
#include "serve/codebook.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve/calibrate/calibrate.h"

enum { PATH_BYTES = QYI_CODEBOOK_PATH_BYTES };

/* ---- names and places ------------------------------------------------------------------------- */

void qyi_cache_folder(char *path, size_t bytes)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache != NULL && cache[0] == '/') {
        snprintf(path, bytes, "%s/quarry", cache);
    } else {
        snprintf(path, bytes, "%s/.cache/quarry", home != NULL ? home : "");
    }
}

const char *qyi_codebook_policy(enum qy_codebook_kind kind)
{
    return kind == QY_CODEBOOK_PQ4 ? "a2ats+" : "a2ats";
}

struct qy_codebook_info qyi_codebook_wanted(const struct qyi_engine *engine,
                                            enum qy_codebook_kind kind)
{
    struct qy_codebook_info info = {.kind = kind, .model_hash = qy_gguf_hash(engine->gguf)};
    struct qy_text name;
    if (qy_gguf_get_text(engine->gguf, "general.name", &name) == 0 && name.bytes > 0) {
        snprintf(info.model_name, sizeof info.model_name, "%.*s", (int)name.bytes, name.data);
    } else {
        snprintf(info.model_name, sizeof info.model_name, "without a name");
    }
    return info;
}

enum qy_status qyi_codebook_path(const struct qyi_engine *engine, enum qy_codebook_kind kind,
                                 char *path, size_t bytes, struct qy_error *err)
{
    char cache[480], folder[PATH_BYTES];
    qyi_cache_folder(cache, sizeof cache);
    snprintf(folder, sizeof folder, "%s/codebooks", cache);
    for (char *at = folder + 1;; at++) { /* each folder above it, then itself */
        const char was = *at;
        if (was != '/' && was != '\0') {
            continue;
        }
        *at = '\0';
        if (mkdir(folder, 0777) != 0 && errno != EEXIST) {
            return qy_error_set(err, QY_ERR_NOT_FOUND, "folder '%s': cannot be made: %s", folder,
                                strerror(errno));
        }
        *at = was;
        if (was == '\0') {
            break;
        }
    }
    snprintf(path, bytes, "%s/%016llx.%s.qcb", folder,
             (unsigned long long)qy_gguf_hash(engine->gguf), qyi_codebook_policy(kind));
    return QY_OK;
}

/* ---- searching ---------------------------------------------------------------------------------- */

static int ends_in(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* The first file by name in the folder that is a codebook as wanted; 0: none. */
static int search_folder(const char *folder, const struct qy_codebook_info *want, char *found)
{
    struct dirent **entries = NULL;
    const int n = scandir(folder, &entries, NULL, alphasort);
    int hit = 0;
    for (int i = 0; i < n; i++) {
        char path[PATH_BYTES];
        struct qy_codebook_info info;
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        if (!hit && ends_in(path, ".qcb") && qy_codebook_read_info(path, &info, NULL) == QY_OK &&
            info.kind == want->kind && info.model_hash == want->model_hash) {
            snprintf(found, PATH_BYTES, "%s", path);
            hit = 1;
        }
        free(entries[i]);
    }
    free(entries);
    return hit;
}

static int search(const struct qy_codebook_info *want, char *found)
{
    char program[PATH_BYTES], cache[480], folder[PATH_BYTES + 64];
    const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n > 0) {
        program[n] = '\0';
        *strrchr(program, '/') = '\0';
        snprintf(folder, sizeof folder, "%s/../share/quarry/codebooks", program);
        if (search_folder(folder, want, found)) {
            return 1;
        }
        snprintf(folder, sizeof folder, "%s/../../configs/codebooks", program);
        if (search_folder(folder, want, found)) {
            return 1;
        }
    }
    qyi_cache_folder(cache, sizeof cache);
    snprintf(folder, sizeof folder, "%s/codebooks", cache);
    return search_folder(folder, want, found);
}

static enum qy_status open_named(struct qyi_engine *engine, const char *path,
                                 const struct qy_codebook_info *want, struct qy_error *err)
{
    enum qy_status st = qy_codebook_open(&engine->app->rt.mem, path, &engine->codebook, err);
    if (st == QY_OK) {
        st = qy_codebook_check(engine->codebook, want, err);
        if (st != QY_OK) {
            st = qy_error_wrap(err, st, "'%s'", path);
        }
    }
    return st;
}

/* Learns it into the cache folder, once for all runs to come. */
static enum qy_status learn(struct qyi_engine *engine, const struct qy_codebook_info *want,
                            struct qy_error *err)
{
    struct qyi_app *app = engine->app;
    char path[PATH_BYTES];
    if (!app->retrieval.auto_calibrate) {
        return qy_error_set(err, QY_ERR_NOT_FOUND,
                            "policy '%s': no codebook of model '%s' is at hand; make one with: "
                            "quarry calibrate%s%s --policy %s (or set "
                            "retrieval.auto_calibrate=on, or name a file in retrieval.codebook)",
                            engine->policy->name, want->model_name,
                            app->program.model[0] != '\0' ? " -m " : "", app->program.model,
                            qyi_codebook_policy(want->kind));
    }
    enum qy_status st = qyi_codebook_path(engine, want->kind, path, sizeof path, err);
    if (st == QY_OK) {
        fprintf(stderr,
                "policy '%s': no codebook of model '%s' is at hand; learning one from texts that "
                "the model writes (once; quarry calibrate learns from texts of yours)\n",
                engine->policy->name, want->model_name);
        const struct qyi_calibration calibration = {
            .kind = want->kind, .out = path, .quality = QYI_QUALITY_DEFAULT};
        struct qyi_calibrated result;
        st = qyi_calibrate(app, &calibration, &result, err);
    }
    return st == QY_OK ? open_named(engine, path, want, err) : st;
}

static enum qy_codebook_kind kind_of(const struct qyi_engine *engine)
{
    return engine->policy->codebook != NULL ? engine->policy->codebook(&engine->app->retrieval)
                                            : QY_CODEBOOK_NONE;
}

int qyi_codebook_needed(const struct qyi_engine *engine)
{
    return kind_of(engine) != QY_CODEBOOK_NONE;
}

int qyi_codebook_file(const struct qyi_engine *engine, char *path)
{
    const char *named = engine->app->retrieval.codebook;
    if (!qyi_codebook_needed(engine)) {
        return 0;
    }
    if (named[0] != '\0' && strcmp(named, "auto") != 0) {
        snprintf(path, PATH_BYTES, "%s", named);
        return 1;
    }
    const struct qy_codebook_info want = qyi_codebook_wanted(engine, kind_of(engine));
    return search(&want, path);
}

enum qy_status qyi_codebook_find(struct qyi_engine *engine, struct qy_error *err)
{
    char found[PATH_BYTES];
    if (!qyi_codebook_needed(engine)) {
        return QY_OK;
    }
    const struct qy_codebook_info want = qyi_codebook_wanted(engine, kind_of(engine));
    return qyi_codebook_file(engine, found) ? open_named(engine, found, &want, err)
                                            : learn(engine, &want, err);
}
