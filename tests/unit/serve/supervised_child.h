/* SPDX-License-Identifier: Apache-2.0 */
/* The child that test_supervisor.c supervises: what it does is the first word of its brief. */
#ifndef QY_TESTS_SERVE_SUPERVISED_CHILD_H
#define QY_TESTS_SERVE_SUPERVISED_CHILD_H

#define CHILD_NAME "quarry-test-child"

/*
 * good      listens where it was told to, or at "first:1", as its restart's number + 1; beats; 7 on SIGTERM
 * again     the same, but its first start listens never and ends with code 3
 * exits     ends with code 3 at once
 * fails     says why it cannot listen, and ends
 * mute      beats, and never listens
 * stubborn  as good, but SIGTERM is ignored
 * alone     listens once, then sleeps, whatever its socket says
 * counts    as good, but its incarnation is 1000 + the descriptors it has
 */
int child_main(void);

#endif
