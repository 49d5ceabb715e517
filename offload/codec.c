/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The setting cache.home_codec. Coded rows are half or a third as long, at home and on the link; the
 * device has f16. The newest tokens, those of the open block, are on the device alone and so not coded
 * yet, as KIVI's residual is not.
 *
 * Presets, as far as rows that are moved one by one allow:
 *
 *   kivi     KIVI (arXiv:2402.02750): 4 bits, groups of 32. differs: K is coded per token as V is, not
 *            per channel over groups of tokens, for a row is fetched alone; and not below 4 bits.
 *   kvtuner  KVTuner (arXiv:2502.04420): more bits for K than for V, most for the layers that feel it
 *            most. chosen: the first layer 8 bits, the others k8v4. differs: it searches for each
 *            layer's bits on the model and goes down to 2; the list of forms takes what was found.
 */
#include "offload/codec.h"

#include <stdlib.h>
#include <string.h>

struct form {
    const char *name;
    uint32_t k_bits, v_bits;
    uint32_t first_k, first_v; /* of layer 0, where the form is for all layers; 0: as the others */
};

static const struct form forms[] = {
    {"f16", 16, 16, 0, 0},  {"8bit", 8, 8, 0, 0},    {"4bit", 4, 4, 0, 0}, {"k16v8", 16, 8, 0, 0},
    {"k16v4", 16, 4, 0, 0}, {"k8v16", 8, 16, 0, 0},  {"k8v8", 8, 8, 0, 0}, {"k8v4", 8, 4, 0, 0},
    {"k4v16", 4, 16, 0, 0}, {"k4v8", 4, 8, 0, 0},    {"k4v4", 4, 4, 0, 0}, {"k16v16", 16, 16, 0, 0},
    {"kivi", 4, 4, 0, 0},   {"kvtuner", 8, 4, 8, 8},
};

static const struct form *find_form(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (strlen(forms[i].name) == length && memcmp(forms[i].name, name, length) == 0) {
            return &forms[i];
        }
    }
    return NULL;
}

/* FIRST-LAST or LAYER at text, up to end. 0: it is none. */
static int read_range(const char *text, const char *end, uint32_t n_layers, uint32_t *first,
                      uint32_t *last)
{
    char *after;

    if (*text < '0' || *text > '9') {
        return 0;
    }
    const unsigned long a = strtoul(text, &after, 10);
    unsigned long b = a;
    if (after < end && *after == '-' && after[1] >= '0' && after[1] <= '9') {
        b = strtoul(after + 1, &after, 10);
    }
    *first = (uint32_t)a;
    *last = (uint32_t)b;
    return after == end && a <= b && b < n_layers;
}

static void set_form(const struct form *form, uint32_t first, uint32_t last, int all,
                     struct qyi_home_layer *layers)
{
    for (uint32_t i = first; i <= last; i++) {
        layers[i].codec.k_bits = form->k_bits;
        layers[i].codec.v_bits = form->v_bits;
    }
    if (all && form->first_k > 0) {
        layers[0].codec.k_bits = form->first_k;
        layers[0].codec.v_bits = form->first_v;
    }
}

/* One form of the list, text up to end. */
static enum qy_status read_part(const char *text, const char *end, uint32_t n_layers,
                                struct qyi_home_layer *layers, struct qy_error *err)
{
    const char *colon = memchr(text, ':', (size_t)(end - text));
    const char *name = colon ? colon + 1 : text;
    const struct form *form = find_form(name, (size_t)(end - name));
    uint32_t first = 0;
    uint32_t last = n_layers - 1;

    if (colon && !read_range(text, colon, n_layers, &first, &last)) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "setting 'cache.home_codec': '%.*s' names no layers of this model; "
                            "accepted are FIRST-LAST or one of 0 to %u before the colon",
                            (int)(end - text), text, n_layers - 1);
    }
    if (!form) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "setting 'cache.home_codec': '%.*s' is no form; accepted are f16, 8bit, "
            "4bit, k16v8 and the like of 16, 8 and 4 bits, kivi, kvtuner; after "
            "FIRST-LAST: for some layers, as in 8bit+0-1:f16",
            (int)(end - name), name);
    }
    set_form(form, first, last, colon == NULL, layers);
    return QY_OK;
}

enum qy_status qyi_codec_parse(const struct qy_kv_shape *shape,
                               const struct qy_cache_settings *settings,
                               struct qyi_home_layer *layers, uint32_t *n_coded,
                               struct qy_error *err)
{
    const uint32_t group = settings->home_group == QY_HOME_GROUP_64 ? 64 : 32;
    const char *text = settings->home_codec;
    enum qy_status st = QY_OK;
    uint32_t coded = 0;

    for (uint32_t i = 0; i < shape->n_layers; i++) {
        layers[i] = (struct qyi_home_layer){
            .codec = {.k_bits = 16, .v_bits = 16, .group = group, .d = shape->head_dim}};
    }
    while (st == QY_OK && *text != '\0') { /* nothing at all is f16 */
        const size_t length = strcspn(text, "+");

        st = read_part(text, text + length, shape->n_layers, layers, err);
        text += length + (text[length] == '+' && text[length + 1] != '\0');
    }
    for (uint32_t i = 0; i < shape->n_layers; i++) {
        coded += layers[i].codec.k_bits < 16 || layers[i].codec.v_bits < 16;
    }
    if (st == QY_OK && coded > 0 && !qy_row_codec_valid(&layers[0].codec)) {
        st = qy_error_set(err, QY_ERR_CONFIG,
                          "setting 'cache.home_group': %u; heads of %u elements are no multiple of "
                          "it up to %d; set another, or cache.home_codec to f16",
                          group, shape->head_dim, QY_ROW_CODEC_MAX_D);
    }
    if (st == QY_OK) {
        *n_coded = coded;
    }
    return st;
}

enum qy_status qyi_codec_check(const struct qy_cache_params *p, struct qy_error *err)
{
    const char *text = p->settings.home_codec;

    if (qy_device_caps(p->dev)->unified) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "setting 'cache.home_codec': '%.60s'; device '%s' reads rows at their "
                            "home, as f16; set it to f16, or open a discrete device",
                            text, qy_device_caps(p->dev)->name);
    }
    if (p->settings.row_type != QY_ROW_F16) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "setting 'cache.home_codec': '%.60s' codes rows of f16; set "
                            "cache.row_type to f16, or cache.home_codec to f16",
                            text);
    }
    if (p->policy->prepare) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "setting 'cache.home_codec': '%.60s'; policy '%.60s' learns from the "
                            "rows at their home, as f16; set it to f16, or choose a policy with a "
                            "codebook or none",
                            text, p->policy->name);
    }
    if (p->retrieval->estimate > 0 && p->policy->caps.partial) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "setting 'cache.home_codec': '%.60s'; retrieval.estimate draws from the "
            "rows at their home, as f16; set one of them to f16, or to 0",
            text);
    }
    return QY_OK;
}
