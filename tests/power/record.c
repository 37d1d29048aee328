/* Every call that changes a file below $POWER_ROOT, in order, as it returned: preloaded into the program that is watched.
 *
 * Rule 1: a call is written down after it succeeded, by one write to $POWER_LOG, so that several processes may share it.
 * Rule 2: files are told apart by their inode: a rename changes no file.
 * What is written through a mapping is not seen: SQLite does so with its -shm alone, which a power cut may take.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FILES 4096

struct __attribute__((packed)) header {
  char op;
  uint32_t name, other;
  uint64_t inode, offset, length;
};

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static unsigned char ours[FILES]; /* 1: a file, 2: a folder */
static int log_file = -2;

static const char *below(const char *path) {
  const char *root = getenv("POWER_ROOT");
  size_t length = root ? strlen(root) : 0;
  if (!length || strncmp(path, root, length)) return NULL;
  return path[length] == '/' ? path + length + 1 : path[length] ? NULL : path + length;
}

static void record(char op, uint64_t inode, uint64_t offset, uint64_t length, const char *name, const char *other,
                   const void *data) {
  struct header header = {op, name ? strlen(name) : 0, other ? strlen(other) : 0, inode, offset, length};
  struct iovec parts[] = {{&header, sizeof header},
                          {(void *)name, header.name},
                          {(void *)other, header.other},
                          {(void *)data, data ? length : 0}};
  pthread_mutex_lock(&turn);
  if (log_file == -2) log_file = REAL(open)(getenv("POWER_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (REAL(writev)(log_file, parts, 4) < 0) abort();
  pthread_mutex_unlock(&turn);
}

static uint64_t inode_of(int file) {
  struct stat found;
  return fstat(file, &found) ? 0 : found.st_ino;
}

static int opened(int file, const char *path, int flags, int fresh) {
  struct stat found;
  const char *name = below(path);
  if (file < 0 || file >= FILES || !name) return file;
  fstat(file, &found);
  ours[file] = S_ISDIR(found.st_mode) ? 2 : 1;
  if (fresh) record('c', found.st_ino, 0, 0, name, NULL, NULL);
  if (!fresh && flags & O_TRUNC) record('t', found.st_ino, 0, 0, NULL, NULL, NULL);
  return file;
}

static int mode_of(int flags, va_list more) { return flags & O_CREAT ? va_arg(more, int) : 0; }

#define OPEN(name)                                                                   \
  int name(const char *path, int flags, ...) {                                       \
    va_list more;                                                                    \
    va_start(more, flags);                                                           \
    int mode = mode_of(flags, more), fresh = flags & O_CREAT && access(path, F_OK);  \
    va_end(more);                                                                    \
    return opened(REAL(name)(path, flags, mode), path, flags, fresh);                \
  }
OPEN(open)
OPEN(open64)

int close(int file) {
  if (file >= 0 && file < FILES) ours[file] = 0;
  return REAL(close)(file);
}

static int is_ours(int file) { return file >= 0 && file < FILES && ours[file]; }

static ssize_t written(int file, const void *data, ssize_t done, off_t at) {
  if (done > 0 && is_ours(file)) record('w', inode_of(file), at, done, NULL, NULL, data);
  return done;
}

ssize_t write(int file, const void *data, size_t length) {
  off_t at = is_ours(file) ? lseek(file, 0, fcntl(file, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR) : 0;
  return written(file, data, REAL(write)(file, data, length), at);
}

ssize_t pwrite(int file, const void *data, size_t length, off_t at) {
  return written(file, data, REAL(pwrite)(file, data, length, at), at);
}

ssize_t pwrite64(int file, const void *data, size_t length, off64_t at) {
  return written(file, data, REAL(pwrite64)(file, data, length, at), at);
}

static int cut(int file, int failed, off_t length) {
  if (!failed && is_ours(file)) record('t', inode_of(file), 0, length, NULL, NULL, NULL);
  return failed;
}

int ftruncate(int file, off_t length) { return cut(file, REAL(ftruncate)(file, length), length); }
int ftruncate64(int file, off64_t length) { return cut(file, REAL(ftruncate64)(file, length), length); }

static int synced(int file, int failed) {
  char link[64], path[PATH_MAX];
  if (failed || !is_ours(file)) return failed;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  path[length < 0 ? 0 : length] = 0;
  const char *name = ours[file] == 2 ? below(path) : NULL;
  record(ours[file] == 2 ? 'd' : 'f', inode_of(file), 0, 0, name, NULL, NULL);
  return 0;
}

int fsync(int file) { return synced(file, REAL(fsync)(file)); }
int fdatasync(int file) { return synced(file, REAL(fdatasync)(file)); }

int rename(const char *from, const char *to) {
  int failed = REAL(rename)(from, to);
  if (!failed && below(from)) record('r', 0, 0, 0, below(from), below(to), NULL);
  return failed;
}

int unlink(const char *path) {
  int failed = REAL(unlink)(path);
  if (!failed && below(path)) record('u', 0, 0, 0, below(path), NULL, NULL);
  return failed;
}

int mkdir(const char *path, mode_t mode) {
  int failed = REAL(mkdir)(path, mode);
  if (!failed && below(path)) record('m', 0, 0, 0, below(path), NULL, NULL);
  return failed;
}
