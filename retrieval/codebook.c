/* SPDX-License-Identifier: Apache-2.0 */
/* Codebooks in memory: filling the record of a (layer, KV head), and the tables kernels read. */
#include "retrieval/codebook.h"

#include <math.h>
#include <string.h>

/* ---- shape --------------------------------------------------------------------------------------- */

static const char *kind_name(enum qy_codebook_kind kind)
{
    static const char *const names[] = {"none", "pq4", "vq"};

    return (unsigned)kind < sizeof names / sizeof names[0] ? names[kind] : "?";
}

static enum qy_status check_info(const struct qy_codebook_info *info, struct qy_error *err)
{
    const uint32_t d = info->head_dim;
    const int shape = info->n_layers >= 1 && info->n_layers <= 4096 && info->n_kv_heads >= 1 &&
                      info->n_kv_heads <= 1024 && d >= 1 && d <= 1024;
    const int pq4 = info->kind == QY_CODEBOOK_PQ4 && info->bits == 4 && info->n_words == 16 &&
                    info->m >= 1 && info->m <= d && d % info->m == 0;
    const int vq =
        info->kind == QY_CODEBOOK_VQ && info->m == 1 && info->n_words >= 2 &&
        ((info->bits == 8 && info->n_words <= 256) || (info->bits == 16 && info->n_words <= 65536));

    if (!shape || (!pq4 && !vq)) {
        return qy_error_set(
            err, QY_ERR_INVALID,
            "codebook '%s' of %u layers, %u KV heads of %u, %u sub-vectors, %u bits, "
            "%u words: no such codebook; pq4 has 16 words in 4 bits, vq one "
            "sub-vector in 8 or 16 bits",
            kind_name(info->kind), info->n_layers, info->n_kv_heads, d, info->m, info->bits,
            info->n_words);
    }
    return QY_OK;
}

static size_t root_floats(const struct qy_codebook_info *info)
{
    const size_t d = info->head_dim;

    return info->kind == QY_CODEBOOK_VQ ? d * (d + 1) / 2 : 0;
}

static size_t record_bytes(const struct qy_codebook_info *info)
{
    const size_t d = info->head_dim;
    const size_t pq4 = info->kind == QY_CODEBOOK_PQ4 ? d : 0;
    const size_t bytes = sizeof(struct qyi_record_head) +
                         (pq4 + root_floats(info)) * sizeof(float) +
                         (pq4 + d * info->n_words) * sizeof(uint16_t) + sizeof(uint64_t);

    return (bytes + 63) / 64 * 64;
}

enum qy_status qyi_codebook_record_bytes(const struct qy_codebook_info *info, size_t *bytes,
                                         struct qy_error *err)
{
    const enum qy_status st = check_info(info, err);

    *bytes = st == QY_OK ? record_bytes(info) : 0;
    return st;
}

struct qyi_record qyi_codebook_record(const struct qy_codebook *codebook, uint32_t i)
{
    const size_t pq4 = codebook->info.kind == QY_CODEBOOK_PQ4 ? codebook->info.head_dim : 0;
    uint8_t *base = codebook->records + i * codebook->record_bytes;
    struct qyi_record record;

    record.head = (struct qyi_record_head *)base;
    record.scale = (float *)(record.head + 1);
    record.root = record.scale + pq4;
    record.order = (uint16_t *)(record.root + root_floats(&codebook->info));
    record.words = record.order + pq4;
    record.checksum = (uint64_t *)(base + codebook->record_bytes) - 1;
    return record;
}

uint64_t qyi_codebook_record_checksum(const struct qy_codebook *codebook, uint32_t i)
{
    return qy_checksum(codebook->records + i * codebook->record_bytes,
                       codebook->record_bytes - sizeof(uint64_t), i + (uint64_t)1);
}

enum qy_status qy_codebook_new(const struct qy_allocator *mem, const struct qy_codebook_info *info,
                               struct qy_codebook **codebook, struct qy_error *err)
{
    const enum qy_status st = check_info(info, err);

    if (st != QY_OK) {
        return st;
    }
    struct qy_codebook *made = qy_alloc_zero(mem, sizeof *made);
    if (made != NULL) {
        made->mem = *mem;
        made->info = *info;
        made->info.model_name[sizeof made->info.model_name - 1] = '\0';
        made->info.metric[sizeof made->info.metric - 1] = '\0';
        made->n_records = info->n_layers * info->n_kv_heads;
        made->record_bytes = record_bytes(info);
        made->table_floats = (size_t)info->head_dim * info->n_words;
        made->bias_floats = (size_t)info->m * info->n_words;
        made->records = qy_alloc_zero(mem, made->n_records * made->record_bytes);
        made->tables = qy_alloc_zero(
            mem, made->n_records * (2 * made->table_floats + made->bias_floats) * sizeof(float));
    }
    if (made == NULL || made->records == NULL || made->tables == NULL) {
        qy_codebook_close(made);
        return qy_error_set(err, QY_ERR_NOMEM,
                            "codebook of %u layers, %u KV heads, %u words: out "
                            "of memory",
                            info->n_layers, info->n_kv_heads, info->n_words);
    }
    *codebook = made;
    return QY_OK;
}

void qy_codebook_close(struct qy_codebook *codebook)
{
    if (codebook != NULL) {
        const struct qy_allocator mem = codebook->mem;

        qy_free(&mem, codebook->records);
        qy_free(&mem, codebook->tables);
        qy_free(&mem, codebook);
    }
}

const struct qy_codebook_info *qy_codebook_info(const struct qy_codebook *codebook)
{
    return &codebook->info;
}

static float *record_tables(const struct qy_codebook *codebook, uint32_t i)
{
    return codebook->tables + i * (2 * codebook->table_floats + codebook->bias_floats);
}

struct qy_quantizer qy_codebook_quantizer(const struct qy_codebook *codebook, uint32_t layer,
                                          uint32_t kv_head)
{
    const struct qy_codebook_info *info = &codebook->info;
    const uint32_t i = layer * info->n_kv_heads + kv_head;
    const float *tables = record_tables(codebook, i);
    const struct qy_quantizer quantizer = {
        .d = info->head_dim,
        .m = info->m,
        .bits = info->bits,
        .n_words = info->n_words,
        .order = info->kind == QY_CODEBOOK_PQ4 ? qyi_codebook_record(codebook, i).order : NULL,
        .encode = tables,
        .decode = tables + codebook->table_floats,
        .bias = tables + 2 * codebook->table_floats};

    return quantizer;
}

/* ---- tables of one record ------------------------------------------------------------------------ */

/* encode = scale * word, decode = word / scale; z = scale * k[order]. */
static void fold_scale(const struct qy_codebook_info *info, const struct qyi_record *record,
                       float *encode, float *decode)
{
    for (uint32_t e = 0; e < info->head_dim; e++) {
        for (uint32_t w = 0; w < info->n_words; w++) {
            const size_t at = (size_t)e * info->n_words + w;
            const float word = encode[at];

            encode[at] = word * record->scale[e];
            decode[at] = word / record->scale[e];
        }
    }
}

/* encode = L word, decode = word L^-1, a vector of words at a time; L packed row after row. encode
 * holds the words before. */
static void fold_root(const struct qy_codebook_info *info, const float *root, float *encode,
                      float *decode)
{
    const uint32_t d = info->head_dim, n = info->n_words;

    /* x L = word: x_j = (word_j - sum over i > j of x_i L_ij) / L_jj */
    for (uint32_t j = d; j-- > 0;) {
        float *x = decode + (size_t)j * n;

        memcpy(x, encode + (size_t)j * n, n * sizeof *x);
        for (uint32_t i = j + 1; i < d; i++) {
            const float l = root[(size_t)i * (i + 1) / 2 + j];
            const float *xi = decode + (size_t)i * n;

            for (uint32_t w = 0; w < n; w++) {
                x[w] -= l * xi[w];
            }
        }
        const float diagonal = root[(size_t)j * (j + 1) / 2 + j];
        for (uint32_t w = 0; w < n; w++) {
            x[w] /= diagonal;
        }
    }
    /* Row i of L reads words 0 .. i only: from the last row on it can be done in place. */
    for (uint32_t i = d; i-- > 0;) {
        const float *row = root + (size_t)i * (i + 1) / 2;
        float *out = encode + (size_t)i * n;

        for (uint32_t w = 0; w < n; w++) {
            out[w] *= row[i];
        }
        for (uint32_t j = 0; j < i; j++) {
            const float *word = encode + (size_t)j * n;

            for (uint32_t w = 0; w < n; w++) {
                out[w] += row[j] * word[w];
            }
        }
    }
}

static int all_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            return 0;
        }
    }
    return 1;
}

/* Order is a permutation, scales and the diagonal of the root can be divided by. */
static int transform_is_sound(const struct qy_codebook_info *info, const struct qyi_record *record)
{
    const uint32_t d = info->head_dim;
    uint8_t seen[1024] = {0};

    if (info->kind == QY_CODEBOOK_PQ4) {
        for (uint32_t e = 0; e < d; e++) {
            if (record->order[e] >= d || seen[record->order[e]]++ != 0 || !(record->scale[e] > 0) ||
                !isfinite(record->scale[e])) {
                return 0;
            }
        }
        return 1;
    }
    for (uint32_t i = 0; i < d; i++) {
        if (record->root[(size_t)i * (i + 1) / 2 + i] == 0) {
            return 0;
        }
    }
    return all_finite(record->root, root_floats(info));
}

enum qy_status qyi_codebook_derive(struct qy_codebook *codebook, uint32_t i, struct qy_error *err)
{
    const struct qy_codebook_info *info = &codebook->info;
    const struct qyi_record record = qyi_codebook_record(codebook, i);
    const uint32_t sub = info->head_dim / info->m, n = info->n_words;
    float *encode = record_tables(codebook, i);
    float *decode = encode + codebook->table_floats;
    float *bias = decode + codebook->table_floats;

    memset(bias, 0, codebook->bias_floats * sizeof *bias);
    for (uint32_t j = 0; j < info->m; j++) {
        for (uint32_t w = 0; w < n; w++) {
            for (uint32_t e = 0; e < sub; e++) {
                const float word = record.head->unit *
                                   qy_f32_from_f16(record.words[((size_t)j * n + w) * sub + e]);

                encode[((size_t)j * sub + e) * n + w] = word;
                bias[(size_t)j * n + w] += 0.5f * word * word;
            }
        }
    }
    int sound = transform_is_sound(info, &record);
    if (sound && info->kind == QY_CODEBOOK_PQ4) {
        fold_scale(info, &record, encode, decode);
    } else if (sound) {
        fold_root(info, record.root, encode, decode);
    }
    sound = sound && all_finite(encode, 2 * codebook->table_floats + codebook->bias_floats);
    if (!sound) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "codebook, layer %u, KV head %u: words, order, scale or root refused; "
                            "finite words, a permutation, scales above 0 and a root that can be "
                            "inverted are accepted",
                            i / info->n_kv_heads, i % info->n_kv_heads);
    }
    return QY_OK;
}

/* ---- filling ------------------------------------------------------------------------------------- */

/* The largest element as a power of two, so that f16 keeps its full precision whatever the scale of
 * the space. */
static float unit_of(const float *words, size_t n)
{
    float most = 0;
    int exponent = 0;

    for (size_t i = 0; i < n; i++) {
        most = fabsf(words[i]) > most ? fabsf(words[i]) : most;
    }
    frexpf(most, &exponent);
    return most > 0 ? ldexpf(1.0f, exponent) : 1.0f;
}

enum qy_status qy_codebook_set(struct qy_codebook *codebook, uint32_t layer, uint32_t kv_head,
                               const struct qy_codebook_words *words, struct qy_error *err)
{
    const struct qy_codebook_info *info = &codebook->info;
    const uint32_t d = info->head_dim;

    if (layer >= info->n_layers || kv_head >= info->n_kv_heads ||
        !all_finite(words->words, codebook->table_floats)) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "codebook, layer %u, KV head %u: refused; %u layers, %u KV heads and "
                            "finite words are accepted",
                            layer, kv_head, info->n_layers, info->n_kv_heads);
    }
    const uint32_t i = layer * info->n_kv_heads + kv_head;
    const struct qyi_record record = qyi_codebook_record(codebook, i);

    record.head->unit = unit_of(words->words, codebook->table_floats);
    for (size_t e = 0; e < codebook->table_floats; e++) {
        record.words[e] = qy_f16_from_f32(words->words[e] / record.head->unit);
    }
    for (uint32_t e = 0; e < d && info->kind == QY_CODEBOOK_PQ4; e++) {
        record.order[e] = words->order != NULL ? words->order[e] : (uint16_t)e;
        record.scale[e] = words->scale != NULL ? words->scale[e] : 1.0f;
    }
    for (uint32_t r = 0; r < d && info->kind == QY_CODEBOOK_VQ; r++) {
        for (uint32_t c = 0; c <= r; c++) {
            record.root[(size_t)r * (r + 1) / 2 + c] =
                words->root != NULL ? words->root[(size_t)r * d + c] : (float)(r == c);
        }
    }
    const enum qy_status st = qyi_codebook_derive(codebook, i, err);
    record.head->filled = st == QY_OK;
    *record.checksum = qyi_codebook_record_checksum(codebook, i);
    return st;
}

int qy_codebook_has(const struct qy_codebook *codebook, uint32_t layer, uint32_t kv_head)
{
    const uint32_t i = layer * codebook->info.n_kv_heads + kv_head;

    return i < codebook->n_records && qyi_codebook_record(codebook, i).head->filled != 0;
}

enum qy_status qy_codebook_check(const struct qy_codebook *codebook,
                                 const struct qy_codebook_info *want, struct qy_error *err)
{
    const struct qy_codebook_info *have = &codebook->info;

    if (want->model_hash != 0 && have->model_hash != want->model_hash) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "codebook of model '%s' (%016llx): the model is '%s' (%016llx); a "
                            "codebook of that very file is accepted: quarry calibrate makes one",
                            have->model_name, (unsigned long long)have->model_hash,
                            want->model_name, (unsigned long long)want->model_hash);
    }
    if (have->kind != want->kind) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "codebook of kind '%s': the policy needs '%s'; quarry calibrate "
                            "--policy makes one of the kind that a policy needs",
                            kind_name(have->kind), kind_name(want->kind));
    }
    const uint32_t pairs[][2] = {
        {want->n_layers, have->n_layers}, {want->n_kv_heads, have->n_kv_heads},
        {want->head_dim, have->head_dim}, {want->m, have->m},
        {want->bits, have->bits},         {want->n_words, have->n_words}};
    int differs = 0;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        differs |= pairs[i][0] != 0 && pairs[i][0] != pairs[i][1];
    }
    if (differs) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "codebook of '%s' with %u layers, %u KV heads of %u, %u x %u words: "
                            "'%s' needs %u layers, %u KV heads of %u, %u x %u words (0: any)",
                            have->model_name, have->n_layers, have->n_kv_heads, have->head_dim,
                            have->m, have->n_words, want->model_name, want->n_layers,
                            want->n_kv_heads, want->head_dim, want->m, want->n_words);
    }
    return QY_OK;
}
