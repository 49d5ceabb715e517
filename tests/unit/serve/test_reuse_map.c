/* SPDX-License-Identifier: Apache-2.0 */
/* Maps of layers from choices that are written down here. */
#include "serve/reuse_map.h"
#include "tests/support/test.h"

#include <string.h>

enum { LAYERS = 4, HEADS = 2 };

/* Two steps. Layer 1 chooses what layer 0 does, layer 2 a quarter of it, layer 3 what layer 1 does. */
static void fill(struct qyi_agreement *a)
{
    static const uint32_t even[4] = {2, 4, 6, 8};
    static const uint32_t odd[4] = {1, 3, 5, 8};
    const struct qy_allocator mem = qy_allocator_system();

    assert_int_equal(qyi_agreement_open(&mem, LAYERS, HEADS, 8, a), QY_OK);
    for (int step = 0; step < 2; step++) {
        qyi_agreement_step(a);
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            for (uint32_t h = 0; h < HEADS; h++) {
                qyi_agreement_add(a, layer, h, layer == 2 ? odd : even, 4);
            }
        }
    }
}

static void map_takes_the_layer_that_agrees_most(void **state)
{
    const struct qy_allocator mem = qy_allocator_system();
    struct qyi_agreement a;
    uint32_t source[LAYERS];
    char text[64];
    (void)state;

    fill(&a);
    assert_true(qyi_agreement_share(&a, 1, 0) == 1.0);
    assert_true(qyi_agreement_share(&a, 2, 0) == 0.25);
    assert_true(qyi_agreement_share(&a, 3, 2) == 0.25);
    assert_int_equal(qyi_reuse_map(&a, 0.8, source), 2);
    assert_int_equal(source[0], QYI_OWN_CHOICE);
    assert_int_equal(source[2], QYI_OWN_CHOICE);
    assert_int_equal(source[1], 0);
    assert_int_equal(source[3], 0); /* layer 1 has no choice of its own any more */
    assert_int_equal(qyi_reuse_map_print(source, LAYERS, text, sizeof text), 1);
    assert_string_equal(text, "1:0,3:0");
    assert_int_equal(qyi_reuse_map_print(source, LAYERS, text, 7), 0);
    assert_int_equal(qyi_reuse_map(&a, 0.2, source), 3);
    assert_int_equal(source[2], 0);
    qyi_agreement_close(&mem, &a);
}

static void map_of_layers_that_choose_nothing_is_off(void **state)
{
    const struct qy_allocator mem = qy_allocator_system();
    struct qyi_agreement a;
    uint32_t source[LAYERS];
    char text[64];
    (void)state;

    assert_int_equal(qyi_agreement_open(&mem, LAYERS, HEADS, 8, &a), QY_OK);
    qyi_agreement_step(&a);
    assert_int_equal(qyi_reuse_map(&a, 0.5, source), 0);
    assert_int_equal(qyi_reuse_map_print(source, LAYERS, text, sizeof text), 1);
    assert_string_equal(text, "off");
    qyi_agreement_close(&mem, &a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_takes_the_layer_that_agrees_most),
        cmocka_unit_test(map_of_layers_that_choose_nothing_is_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
