// SPDX-License-Identifier: MPL-2.0
// Watches the CPU's accesses to dma-bufs; to be loaded by LD_PRELOAD. The mappings of a dma-buf are
// open only between DMA_BUF_SYNC_START and DMA_BUF_SYNC_END, and for writing only if START asked
// for that. Any other access by the CPU ends in SIGSEGV, and one by the kernel, as in read(), in
// EFAULT. A write that no page table stops (io_uring with fixed buffers) changes the bytes between
// an END and the next START, which compares them. (A START for writing alone also opens the memory
// for reading, because page tables have no other way.)
//
// Lines are appended to the file CPU_ACCESS_LOG. I is the inode of the dma-buf:
//
//   start I r|w|rw    end I r|w|rw    changed I (outside of an access)    touched I (outside)
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/udmabuf.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define DMA_BUF_FS_MAGIC 0x444d4142

struct mapping {
    void *start;
    size_t len;
    dev_t dev;          // of the mapped file, a dma-buf or a memfd
    ino_t ino;
    ino_t dma_buf;      // 0: a memfd of which no udmabuf has been made yet
};

struct dma_buf {
    ino_t ino;          // 0: free
    int accesses, writes;
    int has_sum;
    uint64_t sum;       // of the bytes at the last END
};

// A test has few mappings and dma-bufs. If the tables are full, the program aborts.
static struct mapping mappings[512];
static struct dma_buf dma_bufs[512];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;

static void note(const char *event, ino_t ino, const char *direction)
{
    char line[96];
    int len = snprintf(line, sizeof line, "%s %llu %s\n", event, (unsigned long long)ino, direction);
    if (log_fd >= 0 && write(log_fd, line, (size_t)len) != len)
        abort();
}

static void touched(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    // After the handler the instruction faults again, which now ends the process.
    signal(signal_number, SIG_DFL);
    for (size_t i = 0; i < sizeof mappings / sizeof *mappings; i++) {
        struct mapping *m = &mappings[i];
        uintptr_t at = (uintptr_t)info->si_addr, start = (uintptr_t)m->start;
        if (m->dma_buf && at >= start && at - start < m->len)
            note("touched", m->dma_buf, "");
    }
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CPU_ACCESS_LOG");
    if (path)
        log_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    struct sigaction action = { .sa_flags = SA_SIGINFO };
    action.sa_sigaction = touched;
    sigaction(SIGSEGV, &action, NULL);
}

static int is_dma_buf(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && fs.f_type == DMA_BUF_FS_MAGIC;
}

static struct dma_buf *find(ino_t ino)
{
    struct dma_buf *free_place = NULL;
    for (size_t i = 0; i < sizeof dma_bufs / sizeof *dma_bufs; i++) {
        if (dma_bufs[i].ino == ino)
            return &dma_bufs[i];
        if (!dma_bufs[i].ino && !free_place)
            free_place = &dma_bufs[i];
    }
    if (!free_place)
        abort();
    free_place->ino = ino;
    return free_place;
}

static int protection(const struct dma_buf *buf)
{
    if (!buf->accesses)
        return PROT_NONE;
    return buf->writes ? PROT_READ | PROT_WRITE : PROT_READ;
}

static void protect(const struct dma_buf *buf, int prot)
{
    for (size_t i = 0; i < sizeof mappings / sizeof *mappings; i++)
        if (mappings[i].dma_buf == buf->ino && mprotect(mappings[i].start, mappings[i].len, prot))
            abort();
}

/* The checksum of the bytes, while the mappings are open. Returns 0 if there is no mapping. */
static int sum_up(const struct dma_buf *buf, uint64_t *sum)
{
    for (size_t i = 0; i < sizeof mappings / sizeof *mappings; i++) {
        if (mappings[i].dma_buf != buf->ino)
            continue;
        const volatile uint64_t *words = mappings[i].start;
        *sum = 14695981039346656037u;
        for (size_t n = 0; n < mappings[i].len / sizeof *words; n++)
            *sum = (*sum ^ words[n]) * 1099511628211u;
        return 1;
    }
    return 0;
}

static const char *name(uint64_t flags)
{
    switch (flags & DMA_BUF_SYNC_RW) {
    case DMA_BUF_SYNC_READ:
        return "r";
    case DMA_BUF_SYNC_WRITE:
        return "w";
    default:
        return "rw";
    }
}

static void started(ino_t ino, uint64_t flags)
{
    struct dma_buf *buf = find(ino);
    uint64_t sum;
    if (buf->accesses == 0) {
        protect(buf, PROT_READ);
        if (buf->has_sum && sum_up(buf, &sum) && sum != buf->sum)
            note("changed", ino, "");
    }
    buf->accesses++;
    buf->writes += (flags & DMA_BUF_SYNC_WRITE) != 0;
    protect(buf, protection(buf));
    note("start", ino, name(flags));
}

static void ends(ino_t ino, uint64_t flags)
{
    struct dma_buf *buf = find(ino);
    note("end", ino, name(flags));
    buf->accesses--;
    buf->writes -= (flags & DMA_BUF_SYNC_WRITE) != 0;
    if (buf->accesses == 0)
        buf->has_sum = sum_up(buf, &buf->sum);
    protect(buf, protection(buf));
}

static void udmabuf_made(const struct udmabuf_create *request, int fd)
{
    struct stat memfd, dma_buf;
    if (fstat((int)request->memfd, &memfd) || fstat(fd, &dma_buf))
        abort();
    for (size_t i = 0; i < sizeof mappings / sizeof *mappings; i++)
        if (mappings[i].start && mappings[i].dev == memfd.st_dev && mappings[i].ino == memfd.st_ino)
            mappings[i].dma_buf = dma_buf.st_ino;
    protect(find(dma_buf.st_ino), PROT_NONE);
}

typedef int ioctl_type(int, unsigned long, ...);

int ioctl(int fd, unsigned long request, ...)
{
    ioctl_type *real = (ioctl_type *)dlsym(RTLD_NEXT, "ioctl");
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    struct stat file;
    if ((uint32_t)request == (uint32_t)DMA_BUF_IOCTL_SYNC && fstat(fd, &file) == 0) {
        const struct dma_buf_sync *sync = argument;
        int result, is_end = (sync->flags & DMA_BUF_SYNC_END) != 0;
        pthread_mutex_lock(&lock);
        // An END closes the mapping before the kernel learns of it.
        if (is_end)
            ends(file.st_ino, sync->flags);
        result = real(fd, request, argument);
        if (!is_end && result == 0)
            started(file.st_ino, sync->flags);
        pthread_mutex_unlock(&lock);
        return result;
    }
    int result = real(fd, request, argument);
    if ((uint32_t)request == (uint32_t)UDMABUF_CREATE && result >= 0) {
        pthread_mutex_lock(&lock);
        udmabuf_made(argument, result);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

static void mapped(void *start, size_t len, int fd)
{
    struct stat file;
    if (start == MAP_FAILED || fd < 0 || fstat(fd, &file))
        return;
    int is_buf = is_dma_buf(fd);
    pthread_mutex_lock(&lock);
    size_t i = 0;
    while (i < sizeof mappings / sizeof *mappings && mappings[i].start)
        i++;
    if (i == sizeof mappings / sizeof *mappings)
        abort();
    mappings[i] = (struct mapping) { start, len, file.st_dev, file.st_ino, is_buf ? file.st_ino : 0 };
    if (is_buf) {
        const struct dma_buf *buf = find(file.st_ino);
        protect(buf, protection(buf));
    }
    pthread_mutex_unlock(&lock);
}

typedef void *mmap_type(void *, size_t, int, int, int, off_t);

void *mmap(void *start, size_t len, int prot, int flags, int fd, off_t offset)
{
    mmap_type *real = (mmap_type *)dlsym(RTLD_NEXT, "mmap");
    void *result = real(start, len, prot, flags, fd, offset);
    if (flags & MAP_SHARED)
        mapped(result, len, fd);
    return result;
}

typedef void *mmap64_type(void *, size_t, int, int, int, off64_t);

void *mmap64(void *start, size_t len, int prot, int flags, int fd, off64_t offset)
{
    mmap64_type *real = (mmap64_type *)dlsym(RTLD_NEXT, "mmap64");
    void *result = real(start, len, prot, flags, fd, offset);
    if (flags & MAP_SHARED)
        mapped(result, len, fd);
    return result;
}

int munmap(void *start, size_t len)
{
    int (*real)(void *, size_t) = (int (*)(void *, size_t))dlsym(RTLD_NEXT, "munmap");
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < sizeof mappings / sizeof *mappings; i++) {
        if (mappings[i].start != start)
            continue;
        ino_t ino = mappings[i].dma_buf;
        mappings[i] = (struct mapping) { 0 };
        // The dma-buf may have another mapping.
        for (size_t n = 0; n < sizeof mappings / sizeof *mappings; n++)
            if (ino && mappings[n].dma_buf == ino)
                ino = 0;
        if (ino && !find(ino)->accesses)
            *find(ino) = (struct dma_buf) { 0 };
    }
    pthread_mutex_unlock(&lock);
    return real(start, len);
}
