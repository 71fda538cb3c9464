/* Shifts the wall clock of one process by an offset in a file.
 *
 * CLOCK_OFFSET names a file of eight bytes: an int64 in native byte order, the microseconds to add. The file is mapped,
 * so a write to the file steps the clock at once. Only wall clocks are shifted; CLOCK_MONOTONIC and other clocks are not.
 *
 *     cc -shared -fPIC -o clock_shim.so clock_shim.c && LD_PRELOAD=./clock_shim.so CLOCK_OFFSET=FILE redis-server
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *offset;

__attribute__((constructor)) static void map_offset(void) {
    const char *name = getenv("CLOCK_OFFSET");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) {
        perror("CLOCK_OFFSET");
        exit(2);
    }
    close(file);
    offset = mapped;
}

static int64_t wall_us(int64_t *rest_ns) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    *rest_ns = now.tv_nsec % 1000;
    return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000 + (offset ? *offset : 0);
}

int clock_gettime(clockid_t clock, struct timespec *result) {
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) return (int)syscall(SYS_clock_gettime, clock, result);
    int64_t rest, us = wall_us(&rest);
    result->tv_sec = us / 1000000;
    result->tv_nsec = us % 1000000 * 1000 + rest;
    return 0;
}

int gettimeofday(struct timeval *restrict result, void *restrict zone) {
    (void)zone;
    int64_t rest, us = wall_us(&rest);
    result->tv_sec = us / 1000000;
    result->tv_usec = us % 1000000;
    return 0;
}

time_t time(time_t *result) {
    int64_t rest;
    time_t now = wall_us(&rest) / 1000000;
    if (result) *result = now;
    return now;
}
