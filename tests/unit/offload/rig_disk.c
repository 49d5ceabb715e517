/* SPDX-License-Identifier: Apache-2.0 */
/* See rig_disk.h. */
#include "tests/unit/offload/rig_disk.h"
#include "tests/unit/offload/tier_rig.h"

#include "offload/cache.h"

struct rig_options rig_on_disk(const struct rig_options *options)
{
    struct rig_options o = *options;
    struct rig rig;

    o.device = "host-discrete:64M";
    o.disk_bytes = 16 << 20;
    rig_open(&rig, &o); /* without host_bytes: in memory, to learn how large blocks are */
    o.host_bytes = (qyi_home_far_least(rig.cache) + 1) * rig.cache->layout.block_bytes;
    assert_null(rig.cache->far.store);
    rig_close(&rig);
    o.device_bytes = tier_least_bytes(&o);
    return o;
}

void rig_verify(const struct qy_sequence *seq)
{
    struct qy_error err = {0};

    if (qy_sequence_verify(seq, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
}

void rig_expect_disk_sound(const struct qy_cache *cache)
{
    const struct qyi_home_far *d = &cache->far;
    uint32_t frames = 0;
    uint32_t slots = 0;
    uint32_t ids = 0;

    for (uint32_t i = 0; i < cache->params.max_sequences; i++) {
        const struct qy_sequence *seq = &cache->sequences[i];
        uint32_t down = 0;

        for (uint32_t b = 0; b < seq->n_blocks; b++) {
            down += seq->homes[b] == NULL;
            assert_true((seq->homes[b] == NULL) == (d->slots[seq->blocks[b]] != 0));
        }
        assert_int_equal(down, seq->n_down);
        slots += down;
        ids += seq->n_blocks;
        frames += seq->n_blocks - down;
    }
    for (uint32_t i = 0; i < QYI_FAR_WRITES; i++) {
        slots += d->writes[i].busy != 0;
    }
    assert_int_equal(ids, cache->home.n_ids - cache->home.n_free_ids);
    assert_int_equal(frames,
                     qy_pool_total(cache->home.pool) - qy_pool_free_count(cache->home.pool));
    assert_int_equal(slots, d->n_slots - d->n_free);
}
