/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The UCX wire against another process that dies or stops, and with two threads that each have a wire. The
 * other process is this program with the argument `peer`: it echoes what comes.
 */
#include "tests/support/test.h"
#include "tests/unit/net/ucx_bed.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint64_t second = 1000000000u;

/* ---- the other process ----------------------------------------------------------------------- */

/* Until it is killed, or its parent is gone. */
static int run_peer(const char *listen)
{
    struct bed_end end = {.replies = 1000000};
    const pid_t parent = getppid();

    bed_open(&end, listen);
    printf("%s\n", bed_address(&end));
    fflush(stdout);
    while (getppid() == parent) {
        if (bed_poll(&end) == 0) {
            qyi_wire_ucx.wait(end.wire, qy_clock_ns() + second / 20, 0);
        }
        bed_close_broken(&end);
    }
    return 0;
}

struct peer {
    pid_t pid;
    char address[QY_NET_ADDRESS_BYTES];
};

static void start_peer(struct peer *peer, const char *listen)
{
    char name[] = "test_ucx_processes", word[] = "peer", where[QY_NET_ADDRESS_BYTES];
    char *arguments[] = {name, word, where, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2];
    FILE *text;

    snprintf(where, sizeof(where), "%s", listen);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, ends[1], 1), 0);
    assert_int_equal(posix_spawn_file_actions_addclose(&actions, ends[0]), 0);
    assert_int_equal(posix_spawn(&peer->pid, "/proc/self/exe", &actions, NULL, arguments, environ),
                     0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    text = fdopen(ends[0], "r");
    assert_non_null(text);
    assert_non_null(fgets(peer->address, sizeof(peer->address), text));
    peer->address[strcspn(peer->address, "\n")] = '\0';
    fclose(text);
}

static void end_peer(const struct peer *peer)
{
    kill(peer->pid, SIGKILL);
    assert_int_equal(waitpid(peer->pid, NULL, 0), peer->pid);
}

static void connect_to(struct bed_end *end, const struct peer *peer)
{
    const uint32_t n_connected = end->n_connected;

    bed_connect(end, peer->address);
    BED_UNTIL(end->n_connected > n_connected, end, NULL);
}

static void echo(struct bed_end *end, uint64_t id, size_t bytes)
{
    const uint32_t arrived = end->n_arrived;

    assert_int_equal(bed_send(end, end->conns[0], id, bytes), QY_OK);
    BED_UNTIL(end->n_arrived == arrived + 1, end, NULL);
    assert_int_equal(end->last_id, id + 1000000);
    assert_int_equal(end->last_bytes, bytes);
}

/* ---- killed ---------------------------------------------------------------------------------- */

static void peer_killed_while_idle_is_noticed(void **state)
{
    struct bed_end end = {0};
    struct peer peer;

    (void)state;
    bed_open(&end, NULL);
    start_peer(&peer, "127.0.0.1:0");
    connect_to(&end, &peer);
    echo(&end, 1, 100000);
    end_peer(&peer);
    BED_UNTIL(end.n_broke == 1, &end, NULL);
    bed_close(&end);
}

static void peer_killed_with_much_under_way_gives_all_of_it_back(void **state)
{
    static const size_t sizes[] = {500, 60000, 1 << 20};
    struct bed_end end = {0};

    (void)state;
    bed_open(&end, NULL);
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        struct peer peer;
        uint32_t posted = 0, polls = 0;
        const uint32_t told = end.n_sent + end.n_unsent, broke = end.n_broke;

        start_peer(&peer, "127.0.0.1:0");
        connect_to(&end, &peer);
        for (; polls < 300; polls++) {
            if (!bed_full(&end)) {
                posted++;
                assert_int_equal(bed_send(&end, end.conns[0], posted, sizes[s]), QY_OK);
            }
            bed_poll(&end);
        }
        end_peer(&peer); /* payloads go both ways */
        BED_UNTIL(end.n_broke == broke + 1 && end.n_sent + end.n_unsent == told + posted, &end,
                  NULL);
        bed_close_conn(&end, end.conns[0]);
        assert_int_equal(end.n_broke, broke + 1);
    }
    bed_close(&end);
}

static void peer_started_again_on_its_port_is_reached_again(void **state)
{
    struct bed_end end = {0};
    struct peer peer, again;

    (void)state;
    bed_open(&end, NULL);
    start_peer(&peer, "127.0.0.1:0");
    for (uint32_t i = 0; i < 3; i++) {
        connect_to(&end, &peer);
        echo(&end, i + 1, 1 << 20);
        end_peer(&peer);
        BED_UNTIL(end.n_broke == i + 1, &end, NULL);
        bed_close_conn(&end, end.conns[0]);
        start_peer(&again, peer.address);
        assert_string_equal(again.address, peer.address);
        peer = again;
    }
    end_peer(&peer);
    bed_close(&end);
}

/* UCX tells of settings that it does not know on stdout, before the peer's address, and goes on without. */
static void peer_takes_every_setting(void **state)
{
    struct peer peer;

    (void)state;
    setenv("UCX_LOG_LEVEL", "warn", 1);
    start_peer(&peer, "127.0.0.1:0");
    unsetenv("UCX_LOG_LEVEL");
    end_peer(&peer);
    assert_memory_equal(peer.address, "127.0.0.1:", 10);
}

/* ---- stopped --------------------------------------------------------------------------------- */

/* Nobody tells of it, closing does not wait for it, and nothing of ours is touched when it goes on. */
static void peer_stopped_is_not_noticed_and_is_closed_all_the_same(void **state)
{
    static const size_t sizes[] = {500, 8000, 60000, 1 << 20};
    struct bed_end end = {0};
    struct peer peer;

    (void)state;
    bed_open(&end, NULL);
    start_peer(&peer, "127.0.0.1:0");
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        connect_to(&end, &peer);
        echo(&end, 1, 100000);
        for (uint64_t id = 2; id < 6; id++) { /* answers are on their way, too */
            assert_int_equal(bed_send(&end, end.conns[0], id, sizes[s]), QY_OK);
        }
        bed_poll_for(&end, NULL, 300000);
        assert_int_equal(kill(peer.pid, SIGSTOP), 0);
        for (uint64_t id = 6; id < 200 && !bed_full(&end); id++) {
            assert_int_equal(bed_send(&end, end.conns[0], id, sizes[s]), QY_OK);
            bed_poll(&end);
        }
        bed_poll_for(&end, NULL, second / 5);
        assert_int_equal(end.n_broke, 0);
        bed_close_conn(&end,
                       end.conns[0]); /* frees all of it; an error in the log fails bed_close */
        bed_poll_for(&end, NULL, second / 20);
        assert_int_equal(kill(peer.pid, SIGCONT), 0);
        bed_poll_for(&end, NULL, second / 5);
        connect_to(&end, &peer);
        echo(&end, 1, 1 << 20);
        bed_close_conn(&end, end.conns[0]);
    }
    end_peer(&peer);
    assert_int_equal(end.n_broke, 0);
    bed_close(&end);
}

/* ---- two threads ----------------------------------------------------------------------------- */

enum { THREAD_ROUNDS = 200 };

struct thread {
    const char *listen; /* NULL: connects to `address` */
    char *address;
    sem_t *ready, *done;
    uint32_t n_arrived, n_wrong;
    int late;
};

static int thread_until(struct bed_end *end, const uint32_t *count, uint32_t wanted)
{
    for (const uint64_t begin = qy_clock_ns(); *count < wanted;) {
        if (bed_late(begin)) {
            return 0;
        }
        if (bed_poll(end) == 0) {
            qyi_wire_ucx.wait(end->wire, qy_clock_ns() + second / 20, second / 100000);
        }
    }
    return 1;
}

static void *run_thread(void *arg)
{
    struct thread *t = arg;
    struct bed_end end = {0};

    if (t->listen != NULL) {
        end.replies = 1000000;
        bed_open(&end, t->listen);
        strcpy(t->address, bed_address(&end));
        sem_post(t->ready);
        t->late = !thread_until(&end, &end.n_arrived, THREAD_ROUNDS) ||
                  !thread_until(&end, &end.n_sent, THREAD_ROUNDS);
        sem_wait(t->done);
    } else {
        sem_wait(t->ready);
        bed_open(&end, NULL);
        bed_connect(&end, t->address);
        for (uint32_t i = 0; i < THREAD_ROUNDS && !t->late; i++) {
            t->late = bed_send(&end, end.conns[0], i + 1, i % 7 == 0 ? 300000 : i * 10) != QY_OK ||
                      !thread_until(&end, &end.n_arrived, i + 1);
        }
        sem_post(t->done);
    }
    t->n_arrived = end.n_arrived;
    t->n_wrong = end.n_wrong;
    bed_close(&end);
    return NULL;
}

static void two_threads_talk_each_by_its_own_wire(void **state)
{
    char address[QY_NET_ADDRESS_BYTES] = "";
    sem_t ready, done;
    struct thread threads[2] = {
        {.listen = "127.0.0.1:0", .address = address, .ready = &ready, .done = &done},
        {.address = address, .ready = &ready, .done = &done}};
    pthread_t ids[2];

    (void)state;
    sem_init(&ready, 0, 0);
    sem_init(&done, 0, 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&ids[i], NULL, run_thread, &threads[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(ids[i], NULL);
        assert_false(threads[i].late);
        assert_int_equal(threads[i].n_arrived, THREAD_ROUNDS);
        assert_int_equal(threads[i].n_wrong, 0);
    }
    sem_destroy(&ready);
    sem_destroy(&done);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peer_killed_while_idle_is_noticed),
        cmocka_unit_test(peer_killed_with_much_under_way_gives_all_of_it_back),
        cmocka_unit_test(peer_started_again_on_its_port_is_reached_again),
        cmocka_unit_test(peer_takes_every_setting),
        cmocka_unit_test(peer_stopped_is_not_noticed_and_is_closed_all_the_same),
        cmocka_unit_test(two_threads_talk_each_by_its_own_wire),
    };
    const char *reason = bed_no_loopback();

    if (argc == 3 && strcmp(argv[1], "peer") == 0) {
        return run_peer(argv[2]);
    }
    if (reason != NULL) {
        printf("%s\n", reason);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
