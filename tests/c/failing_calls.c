// SPDX-License-Identifier: MPL-2.0
// Makes system calls fail; to be loaded by LD_PRELOAD. The environment says which:
//   FAIL_CALL   io_uring_enter, io_uring_setup, inotify_init1, inotify_add_watch, eventfd,
//               or read, which means pread and its like on paths that contain FAIL_PATH
//   FAIL_ERRNO  the error; 0 makes a read return fewer bytes than it was asked for
//   FAIL_EVERY  every Nth call fails, or
//   FAIL_FROM   the Nth call fails and all after it
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static long number(const char *name)
{
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static int is_due(const char *call)
{
    static long calls;
    const char *wanted = getenv("FAIL_CALL");
    if (!wanted || strcmp(wanted, call) != 0)
        return 0;
    long n = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    long every = number("FAIL_EVERY"), from = number("FAIL_FROM");
    return (every && n % every == 0) || (from && n >= from);
}

long syscall(long nr, ...)
{
    long (*real)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    long x[6];
    va_list arguments;
    va_start(arguments, nr);
    for (int i = 0; i < 6; i++)
        x[i] = va_arg(arguments, long);
    va_end(arguments);
    if ((nr == SYS_io_uring_enter && is_due("io_uring_enter"))
        || (nr == SYS_io_uring_setup && is_due("io_uring_setup"))) {
        errno = (int)number("FAIL_ERRNO");
        return -1;
    }
    return real(nr, x[0], x[1], x[2], x[3], x[4], x[5]);
}

static int refused(const char *call)
{
    if (!is_due(call))
        return 0;
    errno = (int)number("FAIL_ERRNO");
    return 1;
}

int inotify_init1(int flags)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "inotify_init1");
    return refused("inotify_init1") ? -1 : real(flags);
}

int inotify_add_watch(int fd, const char *path, uint32_t mask)
{
    int (*real)(int, const char *, uint32_t) = (int (*)(int, const char *, uint32_t))dlsym(RTLD_NEXT, "inotify_add_watch");
    return refused("inotify_add_watch") ? -1 : real(fd, path, mask);
}

int eventfd(unsigned int first, int flags)
{
    int (*real)(unsigned int, int) = (int (*)(unsigned int, int))dlsym(RTLD_NEXT, "eventfd");
    return refused("eventfd") ? -1 : real(first, flags);
}

static int is_watched(int fd)
{
    char link[64], path[4096];
    const char *part = getenv("FAIL_PATH");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (!part || len <= 0)
        return 0;
    path[len] = 0;
    return strstr(path, part) != NULL;
}

/* The number of bytes that may be read; 0 with errno set if the read must fail. */
static size_t allowed(int fd, size_t wanted)
{
    if (!is_watched(fd) || !is_due("read"))
        return wanted;
    errno = (int)number("FAIL_ERRNO");
    if (errno)
        return 0;
    // With O_DIRECT only whole blocks can be read.
    size_t unit = fcntl(fd, F_GETFL) & O_DIRECT ? 4096 : 1;
    size_t fewer = (wanted / 3 / unit + 1) * unit;
    return fewer < wanted ? fewer : wanted;
}

typedef ssize_t pread_type(int, void *, size_t, off_t);

static ssize_t read_at(const char *name, int fd, void *to, size_t count, off_t offset)
{
    pread_type *real = (pread_type *)dlsym(RTLD_NEXT, name);
    size_t most = allowed(fd, count);
    return most == 0 && count != 0 ? -1 : real(fd, to, most, offset);
}

ssize_t pread(int fd, void *to, size_t count, off_t offset)
{
    return read_at("pread", fd, to, count, offset);
}

ssize_t pread64(int fd, void *to, size_t count, off64_t offset)
{
    return read_at("pread64", fd, to, count, offset);
}

typedef ssize_t preadv_type(int, const struct iovec *, int, off_t);
typedef ssize_t preadv2_type(int, const struct iovec *, int, off_t, int);

static ssize_t call_real(const char *name, int fd, const struct iovec *pieces, int count, off_t offset, int flags)
{
    void *real = dlsym(RTLD_NEXT, name);
    if (flags)
        return ((preadv2_type *)real)(fd, pieces, count, offset, flags);
    return ((preadv_type *)real)(fd, pieces, count, offset);
}

/* `flags` is 0 except for preadv64v2, which is not called without flags. */
static ssize_t read_pieces_at(const char *name, int fd, const struct iovec *pieces, int count, off_t offset, int flags)
{
    struct iovec fewer[1024];
    size_t wanted = 0;
    int n = 0;
    for (int i = 0; i < count; i++)
        wanted += pieces[i].iov_len;
    size_t most = allowed(fd, wanted);
    if (most == wanted)
        return call_real(name, fd, pieces, count, offset, flags);
    if (most == 0)
        return -1;
    for (; n < count && most > 0; n++) {
        fewer[n] = pieces[n];
        if (fewer[n].iov_len > most)
            fewer[n].iov_len = most;
        most -= fewer[n].iov_len;
    }
    return call_real(name, fd, fewer, n, offset, flags);
}

ssize_t preadv(int fd, const struct iovec *pieces, int count, off_t offset)
{
    return read_pieces_at("preadv", fd, pieces, count, offset, 0);
}

ssize_t preadv64(int fd, const struct iovec *pieces, int count, off64_t offset)
{
    return read_pieces_at("preadv64", fd, pieces, count, offset, 0);
}

ssize_t preadv64v2(int fd, const struct iovec *pieces, int count, off64_t offset, int flags)
{
    return read_pieces_at("preadv64v2", fd, pieces, count, offset, flags);
}
