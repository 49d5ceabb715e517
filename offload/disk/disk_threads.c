/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk I/O by threads that call pread and pwrite, for systems that refuse io_uring.
 *
 *   owner     writes a place's number to the ring, posts `work`
 *   a thread  waits for `work`, takes the next number, does the I/O, sets finished, posts `done`
 */
#include "offload/disk/disk_engine.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

/* chosen: disks want several reads at once, and the threads only wait */
enum { N_THREADS = 4 };

struct threads {
    struct qyi_disk *disk;
    pthread_t threads[N_THREADS];
    uint32_t n_threads;
    sem_t work, done;
    _Atomic uint32_t ring[QYI_DISK_DEPTH]; /* no more than that many wait to be taken */
    uint32_t queued;
    _Atomic uint32_t taken;
    _Atomic int closing;
};

/*
 * The next number of the ring; the caller holds a post of `work`, so there is one. The number is
 * read before it is claimed: after the claim the owner may put another one there, for a thread that
 * claims and then waits may be passed by the others, and their places come back meanwhile.
 */
static uint32_t take(struct threads *t)
{
    /* acquire: whoever took the number before has seen the post that belongs to this one */
    uint32_t i = atomic_load_explicit(&t->taken, memory_order_acquire);
    uint32_t number;

    do { /* acquire: the fields of the place */
        number = atomic_load_explicit(&t->ring[i % QYI_DISK_DEPTH], memory_order_acquire);
    } while (!atomic_compare_exchange_weak_explicit(&t->taken, &i, i + 1, memory_order_acq_rel,
                                                    memory_order_acquire));
    return number;
}

static void *serve(void *arg)
{
    struct threads *t = arg;

    for (;;) {
        while (sem_wait(&t->work) != 0) {
        }
        /* acquire: what the owner wrote before the last post */
        if (atomic_load_explicit(&t->closing, memory_order_acquire)) {
            return NULL;
        }
        struct qyi_disk_place *place = &t->disk->places[take(t)];
        const ssize_t n = place->op == QYI_STORE_READ
                              ? pread(t->disk->fd, place->data, place->bytes, (off_t)place->at)
                              : pwrite(t->disk->fd, place->data, place->bytes, (off_t)place->at);

        place->result = n < 0 ? -errno : (int)n;
        /* release: the result and the bytes */
        atomic_store_explicit(&place->finished, 1, memory_order_release);
        sem_post(&t->done);
    }
}

static void threads_close(struct qyi_disk *disk)
{
    struct threads *t = disk->engine;

    /* release: nothing but the flag itself */
    atomic_store_explicit(&t->closing, 1, memory_order_release);
    for (uint32_t i = 0; i < t->n_threads; i++) {
        sem_post(&t->work);
    }
    for (uint32_t i = 0; i < t->n_threads; i++) {
        pthread_join(t->threads[i], NULL);
    }
    sem_destroy(&t->work);
    sem_destroy(&t->done);
    qy_free(&disk->rt->mem, t);
    disk->engine = NULL;
}

static int threads_open(struct qyi_disk *disk)
{
    struct threads *t = qy_alloc_zero(&disk->rt->mem, sizeof(*t));
    sigset_t all;
    sigset_t before;
    int rc = 0;

    if (!t) {
        return ENOMEM;
    }
    t->disk = disk;
    sem_init(&t->work, 0, 0);
    sem_init(&t->done, 0, 0);
    disk->engine = t;
    sigfillset(&all); /* Ctrl-C is for the program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (rc == 0 && t->n_threads < N_THREADS) {
        rc = pthread_create(&t->threads[t->n_threads], NULL, serve, t);
        t->n_threads += rc == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (t->n_threads == 0) {
        threads_close(disk);
        return rc;
    }
    return 0; /* with fewer than wanted it works too */
}

static void threads_start(struct qyi_disk *disk, uint32_t number)
{
    struct threads *t = disk->engine;

    /* release: the place's fields */
    atomic_store_explicit(&t->ring[t->queued++ % QYI_DISK_DEPTH], number, memory_order_release);
    sem_post(&t->work);
}

static void threads_flush(struct qyi_disk *disk)
{
    (void)disk;
}

/* The threads set `finished` themselves; their posts are taken back so that sleep sleeps. */
static void threads_reap(struct qyi_disk *disk)
{
    struct threads *t = disk->engine;

    while (sem_trywait(&t->done) == 0) {
    }
}

static void threads_sleep(struct qyi_disk *disk, uint64_t deadline_ns)
{
    struct threads *t = disk->engine;
    const struct timespec until = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
                                   .tv_nsec = (long)(deadline_ns % 1000000000u)};

    (void)sem_clockwait(&t->done, CLOCK_MONOTONIC, &until);
}

const struct qyi_disk_engine_ops qyi_disk_threads = {.open = threads_open,
                                                     .close = threads_close,
                                                     .start = threads_start,
                                                     .flush = threads_flush,
                                                     .reap = threads_reap,
                                                     .sleep = threads_sleep};
