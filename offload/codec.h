/* SPDX-License-Identifier: Apache-2.0 */
/* In which form rows lie at home, layer by layer: cache.home_codec, cache.home_group. */
#ifndef QYI_OFFLOAD_CODEC_H
#define QYI_OFFLOAD_CODEC_H

#include "offload/layout.h"

/* A list of forms, with a plus between; a later one goes before an earlier one:
 *
 *   FORM | FIRST-LAST:FORM | LAYER:FORM      FORM: f16, 8bit, 4bit, k<bits>v<bits>, a preset
 *
 * Writes layers [n_layers], of which the codec alone is set; *n_coded: those that are not f16.
 * QY_ERR_CONFIG: the text is no such list, or head_dim is no multiple of the group. */
QY_MUST enum qy_status qyi_codec_parse(const struct qy_kv_shape *shape,
                                       const struct qy_cache_settings *settings,
                                       struct qyi_home_layer *layers, uint32_t *n_coded,
                                       struct qy_error *err);
/* May rows at home be coded for who opens this cache? QY_ERR_CONFIG says why not. */
QY_MUST enum qy_status qyi_codec_check(const struct qy_cache_params *params, struct qy_error *err);

#endif
