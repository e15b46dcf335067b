/* Gives a process the clocks of a host of its own: preloaded, it answers in place of the C library.
 * A page that a test writes holds three numbers:
 *
 * - by how many nanoseconds the wall clock differs from the machine's;
 * - by how many millionths all clocks run faster than the machine's;
 * - since when they do, in nanoseconds of the machine's CLOCK_MONOTONIC.
 *
 * CLOCK_MONOTONIC_RAW shows the machine's CLOCK_MONOTONIC: the times that a process reports have to
 * be comparable with those of others. The kernel counts time-outs, by the machine's clock.
 *
 * The kernel is asked directly: a look-up of the real function would allocate, and an allocator
 * that asks for the time while it is being set up would come back here. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)

struct page {
    int64_t offset, rate, since;
};

static const volatile struct page *page;

__attribute__((constructor)) static void find_page(void) {
    const char *path = getenv("HOST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        abort(); /* a clock that is the machine's would let its test pass */
    void *mapped = mmap(NULL, sizeof *page, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED)
        abort();
    close(file);
    page = mapped;
}

static int machine(clockid_t clock, int64_t *nanos) {
    struct timespec now;
    int outcome = (int)syscall(SYS_clock_gettime, clock, &now);
    *nanos = outcome == 0 ? now.tv_sec * SECOND + now.tv_nsec : 0;
    return outcome;
}

/* By how much this host's clocks have gone ahead of the machine's. */
static int64_t ahead(void) {
    int64_t now;
    if (page->rate == 0 || machine(CLOCK_MONOTONIC, &now) != 0)
        return 0;
    return (now - page->since) * page->rate / 1000000;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int64_t nanos;
    int outcome = machine(clock == CLOCK_MONOTONIC_RAW ? CLOCK_MONOTONIC : clock, &nanos);
    if (outcome != 0)
        return outcome;
    switch (page ? clock : CLOCK_MONOTONIC_RAW) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        nanos += page->offset + ahead();
        break;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
        nanos += ahead();
        break;
    }
    now->tv_sec = nanos / SECOND;
    now->tv_nsec = nanos % SECOND;
    return 0;
}

int gettimeofday(struct timeval *now, void *zone) {
    (void)zone;
    struct timespec precise;
    int outcome = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return outcome;
}

time_t time(time_t *seconds) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (seconds)
        *seconds = precise.tv_sec;
    return precise.tv_sec;
}
