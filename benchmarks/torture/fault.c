/* A disk that is full from the n-th call that writes into a folder on: preloaded, so that every library's calls are counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4096];
static size_t length;
static long fails_from, fails_to, calls;

void torture_arm(const char *path, long from, long to) {
    calls = 0, fails_from = from, fails_to = to;
    length = strlen(path);
    memcpy(folder, path, length + 1);
}

long torture_calls(void) { return calls; }

static int fails(const char *path) {
    if (!length || !path || strncmp(path, folder, length)) return 0;
    long number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (!fails_from || number < fails_from || number > fails_to) return 0;
    errno = ENOSPC;
    return 1;
}

static int fails_there(int descriptor) {
    char link[64], path[4096];
    if (!length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t found = readlink(link, path, sizeof path - 1);
    if (found < 0) return 0;
    path[found] = 0;
    return fails(path);
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ON_FILE(type, name, declared, given) \
    type name declared { REAL(name); return fails_there(fd) ? -1 : real given; }
#define ON_PATH(name, declared, given) \
    int name declared { REAL(name); return fails(path) ? -1 : real given; }
#define OPENING(name, declared, given) \
    int name declared { \
        REAL(name); \
        mode_t mode = 0; \
        va_list more; \
        va_start(more, flags); \
        if (flags & O_CREAT) mode = va_arg(more, mode_t); \
        va_end(more); \
        return (flags & O_CREAT) && fails(path) ? -1 : real given; \
    }

ON_FILE(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
ON_FILE(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
ON_FILE(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
ON_FILE(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
ON_FILE(int, fsync, (int fd), (fd))
ON_FILE(int, fdatasync, (int fd), (fd))
ON_FILE(int, ftruncate, (int fd, off_t size), (fd, size))
ON_FILE(int, ftruncate64, (int fd, off64_t size), (fd, size))
ON_FILE(ssize_t, sendfile, (int fd, int from, off_t *at, size_t size), (fd, from, at, size))
ON_FILE(ssize_t, sendfile64, (int fd, int from, off64_t *at, size_t size), (fd, from, at, size))
ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode))
ON_PATH(rename, (const char *path, const char *other), (path, other))
ON_PATH(creat, (const char *path, mode_t mode), (path, mode))
OPENING(open, (const char *path, int flags, ...), (path, flags, mode))
OPENING(open64, (const char *path, int flags, ...), (path, flags, mode))
OPENING(openat, (int in, const char *path, int flags, ...), (in, path, flags, mode))
OPENING(openat64, (int in, const char *path, int flags, ...), (in, path, flags, mode))

ssize_t copy_file_range(int from, off64_t *start, int fd, off64_t *at, size_t size, unsigned flags) {
    REAL(copy_file_range);
    return fails_there(fd) ? -1 : real(from, start, fd, at, size, flags);
}
