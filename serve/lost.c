/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that went with a memory server: their sequences are cut where the first of them begins, and
 * computed again from their token ids, on what remains. Servers may be lost meanwhile too.
 */
#include "serve/memory/memory_link.h"
#include "serve/repair.h"

#include <string.h>

enum { NAMES_BYTES = 256 };

/* Token ids of a sequence, which a cut would take with it. */
struct kept {
    int32_t *ids;
    uint8_t *origins;
    uint32_t n;
};

/* The first n. */
static enum qy_status keep(const struct qyi_engine *engine, const struct qy_sequence *seq,
                           uint32_t n, struct kept *kept, struct qy_error *err)
{
    const struct qy_allocator *mem = &engine->app->rt.mem;

    kept->n = n;
    kept->ids = qy_alloc_zero(mem, (size_t)n * sizeof *kept->ids + 1);
    kept->origins = qy_alloc_zero(mem, (size_t)n + 1);
    if (kept->ids == NULL || kept->origins == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "sequence: out of memory for %u token ids", n);
    }
    memcpy(kept->ids, qy_sequence_ids(seq), n * sizeof *kept->ids);
    memcpy(kept->origins, qy_sequence_origins(seq), n);
    return QY_OK;
}

static void drop(const struct qyi_engine *engine, struct kept *kept)
{
    qy_free(&engine->app->rt.mem, kept->origins);
    qy_free(&engine->app->rt.mem, kept->ids);
}

uint32_t qyi_lost_tries(const struct qyi_engine *engine)
{
    /* chosen: each server may go and, started again, go once more */
    return engine->memory != NULL ? 2 * engine->memory->servers.n : 0;
}

static void note(struct qyi_mended *mended, const struct qy_lost *lost, uint32_t n_tokens)
{
    if (mended->servers == 0 || lost->first_token < mended->first_token) {
        mended->first_token = lost->first_token;
    }
    mended->servers |= lost->servers;
    mended->n_blocks += lost->n_blocks;
    mended->n_tokens += n_tokens - lost->first_token;
}

/* Cuts a sequence before what it lost, and gives it its tokens back: all that were kept. */
static enum qy_status rebuild(struct qyi_engine *engine, struct qy_sequence *seq,
                              const struct kept *kept, struct qyi_mended *mended,
                              struct qy_error *err)
{
    enum qy_status st = QY_ERR_DEVICE;
    struct qy_lost lost;

    mended->n_sequences++;
    for (uint32_t tries = qyi_lost_tries(engine);
         st == QY_ERR_DEVICE && tries > 0 && qy_sequence_lost(seq, &lost); tries--) {
        note(mended, &lost, kept->n);
        st = qy_sequence_truncate(seq, lost.first_token);
        st = st == QY_OK
                 ? qy_model_replay(engine->model, engine->cache, seq, kept->ids, kept->origins,
                                   kept->n, err)
                 : qy_error_set(err, st, "it cannot be cut to %u tokens: %s: %s", lost.first_token,
                                qy_status_name(st), qy_cache_fault(engine->cache));
    }
    return st;
}

/* "memory server a", "memory servers a, b" */
static void name_servers(const struct qyi_engine *engine, uint64_t bits, char *text, size_t bytes)
{
    const int many = (bits & (bits - 1)) != 0;
    size_t at = (size_t)snprintf(text, bytes, "memory server%s", many ? "s" : "");
    const char *between = " ";

    for (uint32_t i = 0; i < engine->memory->servers.n && at < bytes; i++) {
        if (bits >> i & 1) {
            at += (size_t)snprintf(text + at, bytes - at, "%s%s", between,
                                   qy_peer_name(engine->memory->servers.peers[i]));
            between = ", ";
        }
    }
}

/* One line of what happened, or the error. */
static enum qy_status tell(struct qyi_engine *engine, const struct qyi_mended *mended,
                           enum qy_status st, struct qy_error *err)
{
    char names[NAMES_BYTES];

    name_servers(engine, mended->servers, names, sizeof names);
    if (st != QY_OK) {
        return qy_error_wrap(err, st == QY_AGAIN ? QY_ERR_NOMEM : st,
                             "%s gone with %u blocks that nobody else holds, and these cannot be "
                             "computed again",
                             names, mended->n_blocks);
    }
    qy_log_write(&engine->app->rt.log, QY_LOG_WARN, "cache",
                 "%s gone with %u blocks of %u sequence%s that nobody else holds: computed again, "
                 "%llu tokens in %.2f s",
                 names, mended->n_blocks, mended->n_sequences, mended->n_sequences == 1 ? "" : "s",
                 (unsigned long long)mended->n_tokens, (double)mended->ns * 1e-9);
    qyi_mended_note(engine, mended);
    return QY_OK;
}

enum qy_status qyi_lost_mend(struct qyi_engine *engine, const struct qy_step_slice *slices,
                             uint32_t n_slices, enum qy_status failed, struct qy_error *err)
{
    const uint64_t begin = qy_clock_ns();
    struct qyi_mended mended = {0};
    enum qy_status st = QY_OK;

    for (uint32_t i = 0; st == QY_OK && i < n_slices; i++) {
        struct qy_sequence *seq = slices[i].seq;
        struct kept kept = {0};
        struct qy_lost lost;

        if (qy_sequence_lost(seq, &lost)) {
            st = keep(engine, seq, qy_sequence_tokens(seq), &kept, err);
            st = st == QY_OK ? rebuild(engine, seq, &kept, &mended, err) : st;
            drop(engine, &kept);
        }
    }
    if (st == QY_OK && mended.n_sequences == 0) {
        return failed;
    }
    mended.ns = qy_clock_ns() - begin;
    return tell(engine, &mended, st, err);
}

enum qy_status qyi_engine_copy(struct qyi_engine *engine, struct qy_sequence *dst,
                               struct qy_sequence *src, struct qy_error *err)
{
    const struct qy_step_slice slice = {.seq = src};
    enum qy_status st = qy_sequence_copy(dst, src);

    for (uint32_t tries = qyi_lost_tries(engine); st == QY_ERR_DEVICE && tries > 0; tries--) {
        (void)qy_error_set(err, st, "a sequence cannot be copied: %s",
                           qy_cache_fault(engine->cache));
        st = qyi_lost_mend(engine, &slice, 1, st, err);
        if (st != QY_OK) {
            return st;
        }
        st = qy_sequence_copy(dst, src);
    }
    return st == QY_OK || st == QY_AGAIN
               ? st
               : qy_error_set(err, st, "a sequence cannot be copied: %s: %s", qy_status_name(st),
                              qy_cache_fault(engine->cache));
}

enum qy_status qyi_engine_truncate(struct qyi_engine *engine, struct qy_sequence *seq,
                                   uint32_t n_tokens, struct qy_error *err)
{
    const int remote = engine->memory != NULL && n_tokens < qy_sequence_tokens(seq);
    const uint64_t begin = qy_clock_ns();
    struct qyi_mended mended = {0};
    struct kept kept = {0};
    struct qy_lost lost;
    enum qy_status st = remote ? keep(engine, seq, n_tokens, &kept, err) : QY_OK;

    if (st == QY_OK) {
        st = qy_sequence_truncate(seq, n_tokens);
        if (st != QY_OK) {
            (void)qy_error_set(err, st, "a sequence cannot be cut to %u tokens: %s: %s", n_tokens,
                               qy_status_name(st), qy_cache_fault(engine->cache));
        }
        if (remote && st == QY_ERR_DEVICE && qy_sequence_lost(seq, &lost)) {
            st = rebuild(engine, seq, &kept, &mended, err);
            mended.ns = qy_clock_ns() - begin;
            st = tell(engine, &mended, st, err);
        }
    }
    drop(engine, &kept);
    return st;
}

void qyi_servers_json(const struct qyi_engine *engine, uint64_t bits, cJSON *object)
{
    cJSON *servers = cJSON_AddArrayToObject(object, "servers");

    for (uint32_t i = 0; i < engine->memory->servers.n; i++) {
        if (bits >> i & 1) {
            cJSON_AddItemToArray(
                servers, cJSON_CreateString(qy_peer_name(engine->memory->servers.peers[i])));
        }
    }
}
