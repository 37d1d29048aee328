/* A disk that goes bad under files that are open: whatever would change something below $FAILING answers with the error
 * whose number stands in the file $FAILING.errno, for as long as that file is there. The kernel does so where a file
 * system turns itself read-only (EROFS) or a device is gone (EIO), and no test can make it do that to a tmpfs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int below(const char *path) {
  const char *root = getenv("FAILING");
  return root && !strncmp(path, root, strlen(root)) && path[strlen(root)] == '/';
}

static int failing(void) {
  char path[PATH_MAX], text[16] = "";
  snprintf(path, sizeof path, "%s.errno", getenv("FAILING"));
  int file = REAL(open)(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  if (read(file, text, sizeof text - 1) < 0) text[0] = 0;
  REAL(close)(file);
  return errno = atoi(text);
}

static int bad(int file) {
  char link[64], path[PATH_MAX];
  int before = errno;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  path[length < 0 ? 0 : length] = 0;
  if (below(path) && failing()) return 1;
  errno = before;
  return 0;
}

#define OPEN(name)                                                                        \
  int name(const char *path, int flags, ...) {                                            \
    va_list more;                                                                         \
    va_start(more, flags);                                                                \
    int mode = flags & O_CREAT ? va_arg(more, int) : 0;                                   \
    va_end(more);                                                                         \
    if (flags & (O_WRONLY | O_RDWR | O_CREAT) && below(path) && failing()) return -1;     \
    return REAL(name)(path, flags, mode);                                                 \
  }
OPEN(open)
OPEN(open64)

ssize_t write(int file, const void *data, size_t length) { return bad(file) ? -1 : REAL(write)(file, data, length); }
ssize_t pwrite(int file, const void *data, size_t length, off_t at) {
  return bad(file) ? -1 : REAL(pwrite)(file, data, length, at);
}
ssize_t pwrite64(int file, const void *data, size_t length, off64_t at) {
  return bad(file) ? -1 : REAL(pwrite64)(file, data, length, at);
}
int ftruncate(int file, off_t length) { return bad(file) ? -1 : REAL(ftruncate)(file, length); }
int ftruncate64(int file, off64_t length) { return bad(file) ? -1 : REAL(ftruncate64)(file, length); }
int fsync(int file) { return bad(file) ? -1 : REAL(fsync)(file); }
int fdatasync(int file) { return bad(file) ? -1 : REAL(fdatasync)(file); }
int unlink(const char *path) { return below(path) && failing() ? -1 : REAL(unlink)(path); }
int rename(const char *from, const char *to) { return below(from) && failing() ? -1 : REAL(rename)(from, to); }

#define STATVFS(name)                                                \
  int name(const char *path, struct name *found) {                   \
    int failed = REAL(name)(path, found);                            \
    if (!failed && failing() == EROFS) found->f_flag |= ST_RDONLY;   \
    return failed;                                                   \
  }
STATVFS(statvfs)
STATVFS(statvfs64)
