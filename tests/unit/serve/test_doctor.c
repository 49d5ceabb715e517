/* SPDX-License-Identifier: Apache-2.0 */
/* Who of the ranks of quarry doctor measures with whom. Ranks of a real job are tests/dist/doctor.py's. */
#include "tests/support/test.h"

#include <string.h>

#include "serve/doctor/doctor_ranks.h"

static void each_pair_meets_once_and_nobody_meets_two_at_a_time(void **state)
{
    enum { MOST = 17 };
    (void)state;
    for (int n = 1; n <= MOST; n++) {
        int met[MOST][MOST];
        memset(met, 0, sizeof met);
        assert_true(qyi_doctor_rounds(n) <= n);
        for (int round = 0; round < qyi_doctor_rounds(n); round++) {
            int alone = 0;
            for (int i = 0; i < n; i++) {
                const int other = qyi_doctor_partner(i, n, round);
                assert_in_range(other + 1, 0, n);
                alone += other < 0;
                if (other >= 0) {
                    assert_int_not_equal(other, i);
                    assert_int_equal(qyi_doctor_partner(other, n, round), i);
                    met[i][other]++;
                }
            }
            assert_int_equal(alone, n % 2);
        }
        for (int i = 0; i < n; i++) {
            for (int k = 0; k < n; k++) {
                assert_int_equal(met[i][k], i != k);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_pair_meets_once_and_nobody_meets_two_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
