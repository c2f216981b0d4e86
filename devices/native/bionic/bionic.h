/* What the runner uses of Android's libc and libdl, declared by hand: 64-bit ABIs (arm64, x86_64), API level 28.
 * Layouts and numbers are the kernel's and the stable ones of the platform. A function that is added here is added to
 * libc.names or libdl.names too: the linker says so where it is forgotten. */
#ifndef HANDSET_BIONIC_H
#define HANDSET_BIONIC_H

typedef __INT32_TYPE__ int32_t;
typedef __INT64_TYPE__ int64_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ssize_t;
typedef int pid_t;
#define NULL ((void *)0)
#define INT64_MAX __INT64_MAX__
#define UINT32_MAX __UINT32_MAX__

typedef __builtin_va_list va_list;
#define va_start(list, last) __builtin_va_start(list, last)
#define va_end(list) __builtin_va_end(list)

int *__errno(void);
#define errno (*__errno())
enum { EINTR = 4, EINVAL = 22 };

/* stdio.h */
typedef struct FILE FILE;
extern FILE *stdout, *stderr;
FILE *fopen(const char *, const char *);
char *fgets(char *, int, FILE *);
int fclose(FILE *);
int fflush(FILE *);
int fprintf(FILE *, const char *, ...) __attribute__((format(printf, 2, 3)));
int printf(const char *, ...) __attribute__((format(printf, 1, 2)));
int snprintf(char *, size_t, const char *, ...) __attribute__((format(printf, 3, 4)));
int vsnprintf(char *, size_t, const char *, va_list) __attribute__((format(printf, 3, 0)));
int sscanf(const char *, const char *, ...) __attribute__((format(scanf, 2, 3)));

/* stdlib.h, string.h */
void *malloc(size_t);
void *calloc(size_t, size_t);
void *realloc(void *, size_t);
void free(void *);
int posix_memalign(void **, size_t, size_t);
long long strtoll(const char *, char **, int);
unsigned long long strtoull(const char *, char **, int);
int setenv(const char *, const char *, int);
void exit(int) __attribute__((noreturn));
void _exit(int) __attribute__((noreturn));
void *memcpy(void *, const void *, size_t);
void *memmove(void *, const void *, size_t);
void *memset(void *, int, size_t);
size_t strlen(const char *);
int strcmp(const char *, const char *);
char *strchr(const char *, int);
char *strstr(const char *, const char *);
char *strdup(const char *);
char *strerror(int);
char *strsignal(int);

/* fcntl.h, unistd.h, poll.h */
enum { O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0100, O_TRUNC = 01000, O_NONBLOCK = 04000, O_CLOEXEC = 02000000 };
int open(const char *, int, ...);
int close(int);
ssize_t read(int, void *, size_t);
ssize_t write(int, const void *, size_t);
int fdatasync(int);
int dup2(int, int);
int pipe2(int[2], int);
pid_t fork(void);
pid_t getpid(void);
pid_t getppid(void);
struct pollfd { int fd; short events, revents; };
enum { POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16 };
int poll(struct pollfd *, unsigned, int);

/* sys/socket.h */
struct iovec { void *iov_base; size_t iov_len; };
struct msghdr {
  void *msg_name;
  unsigned msg_namelen;
  struct iovec *msg_iov;
  size_t msg_iovlen;
  void *msg_control;
  size_t msg_controllen;
  int msg_flags;
};
struct cmsghdr { size_t cmsg_len; int cmsg_level, cmsg_type; };
enum { AF_UNIX = 1, SOCK_SEQPACKET = 5, SOCK_CLOEXEC = O_CLOEXEC, SOL_SOCKET = 1, SCM_RIGHTS = 1, MSG_CMSG_CLOEXEC = 0x40000000 };
#define CMSG_ALIGN(size) (((size) + sizeof(long) - 1) & ~(sizeof(long) - 1))
#define CMSG_DATA(header) ((void *)((char *)(header) + CMSG_ALIGN(sizeof(struct cmsghdr))))
#define CMSG_LEN(size) (CMSG_ALIGN(sizeof(struct cmsghdr)) + (size))
#define CMSG_SPACE(size) (CMSG_ALIGN(sizeof(struct cmsghdr)) + CMSG_ALIGN(size))
int socketpair(int, int, int, int[2]);
ssize_t sendmsg(int, const struct msghdr *, int);
ssize_t recvmsg(int, struct msghdr *, int);

/* signal.h, sys/wait.h, sys/prctl.h */
typedef int sig_atomic_t;
typedef void (*sighandler_t)(int);
#define SIG_DFL ((sighandler_t)0)
#define SIG_IGN ((sighandler_t)1)
enum { SIGHUP = 1, SIGINT = 2, SIGKILL = 9, SIGPIPE = 13, SIGTERM = 15 };
struct sigaction { int sa_flags; sighandler_t sa_handler; unsigned long sa_mask; void (*sa_restorer)(void); };
int sigaction(int, const struct sigaction *, struct sigaction *);
sighandler_t signal(int, sighandler_t);
int kill(pid_t, int);
pid_t waitpid(pid_t, int *, int);
#define WTERMSIG(status) ((status) & 0x7f)
#define WEXITSTATUS(status) (((status) & 0xff00) >> 8)
#define WIFSIGNALED(status) (WTERMSIG((status) + 1) >= 2)
enum { PR_SET_PDEATHSIG = 1 };
int prctl(int, ...);

/* sched.h, sys/resource.h, time.h */
typedef struct { uint64_t bits[16]; } cpu_set_t;
#define CPU_ZERO(set) memset(set, 0, sizeof *(set))
#define CPU_SET(cpu, set) ((set)->bits[(cpu) / 64] |= 1ull << (cpu) % 64)
#define CPU_ISSET(cpu, set) ((set)->bits[(cpu) / 64] >> (cpu) % 64 & 1)
int sched_getaffinity(pid_t, size_t, cpu_set_t *);
int sched_setaffinity(pid_t, size_t, const cpu_set_t *);
int sched_getcpu(void);
typedef unsigned long rlim_t;
struct rlimit { rlim_t rlim_cur, rlim_max; };
enum { RLIMIT_NOFILE = 7, RLIMIT_AS = 9 };
int getrlimit(int, struct rlimit *);
int setrlimit(int, const struct rlimit *);
struct timespec { long tv_sec, tv_nsec; };
struct rusage { struct timespec ru_utime, ru_stime; long ru_maxrss, ru_others[12], ru_nivcsw; };
enum { RUSAGE_SELF = 0 };
int getrusage(int, struct rusage *);
enum { CLOCK_REALTIME = 0, CLOCK_MONOTONIC_RAW = 4 };
int clock_gettime(int, struct timespec *);

/* dlfcn.h */
enum { RTLD_LOCAL = 0, RTLD_NOW = 2 };
void *dlopen(const char *, int);
void *dlsym(void *, const char *);
char *dlerror(void);

/* cpuid.h */
#if defined(__x86_64__)
#define bit_FMA (1u << 12)
#define bit_OSXSAVE (1u << 27)
#define bit_AVX2 (1u << 5)
static inline int __get_cpuid_count(unsigned leaf, unsigned part, unsigned *a, unsigned *b, unsigned *c, unsigned *d) {
  __asm__("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "0"(leaf & 0x80000000u), "2"(0));
  if (*a < leaf) return 0;
  __asm__("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "0"(leaf), "2"(part));
  return 1;
}
static inline int __get_cpuid(unsigned leaf, unsigned *a, unsigned *b, unsigned *c, unsigned *d) {
  return __get_cpuid_count(leaf, 0, a, b, c, d);
}
#endif

#endif
