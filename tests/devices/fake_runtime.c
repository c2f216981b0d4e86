/* A LiteRT of our own: the functions that devices/native/litert.c calls, doing what the model "file" says.
 *
 * A model is one line of text: MODE [NUMBER] [WORD...].
 *   ok US           every inference busy-waits US microseconds; outputs are the inputs
 *   fail-load       loading gives a status;  fail-run N: the N-th inference does (from 1, warm-ups count)
 *   segv-load segv-run ill-run abort-run exit-run hang-load hang-run bomb-load bomb-run   the same for worse ends
 * Words: dynamic, odd-type, int8, many-inputs (the tensors); hostile, changing, silent (the profiler); tell (the first
 * inference prints its input).
 *
 * The environment variable FAKE_OPENED names a file that gets a line each time the library is opened; with -DMOODY,
 * FAKE_OPENING says what happens then: crash, hang, exit, thread (one is started that stays).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int Status;
typedef void *Handle;
enum { OK = 0, OUT_OF_MEMORY = 2, FAILURE = 3, CANNOT_READ = 500, INVALID = 501, NOT_COMPILED = 504 };
enum { FLOATS = 4, MAX_EVENTS = 4096 };

struct ranked_type {
  int element_type;
  unsigned rank : 7, has_strides : 1;
  int32_t dimensions[8];
  uint32_t strides[8];
};

struct event {
  const char *tag;
  int type;
  uint64_t start_us, elapsed_us;
  size_t memory[6];
  uint64_t metadata[2];
  int source;
};

static char text[256], mode[64];
static long number, runs;
static float buffers[2][FLOATS];        /* input, output */
static int buffer_count, profiling, event_count;
static struct event events[MAX_EVENTS];

static int says(const char *word) { return strstr(text, word) != NULL; }
static int is(const char *wanted) { return !strcmp(mode, wanted); }

static void busy_wait(long us) {
  struct timespec begin, now;
  clock_gettime(CLOCK_MONOTONIC_RAW, &begin);
  do clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  while ((now.tv_sec - begin.tv_sec) * 1000000000ll + now.tv_nsec - begin.tv_nsec < us * 1000ll);
}

static void hang(void) {
  for (;;) pause();
}

/* Takes address space until there is no more, at most 4 GiB. */
static int bomb(void) {
  for (int i = 0; i < 256; i++) {
    void *volatile taken = malloc(16 << 20);   /* volatile: a compiler may leave out memory that nobody uses */
    if (!taken) return 1;
  }
  return 0;
}

#if defined(MOODY)
static int stay(void *argument) {
  (void)argument;
  hang();
  return 0;
}

static void open_badly(void) {
  static char stack[1 << 16] __attribute__((aligned(16)));
  const char *what = getenv("FAKE_OPENING");
  if (!strcmp(what, "crash")) *(volatile int *)8 = 0;
  if (!strcmp(what, "hang")) hang();
  if (!strcmp(what, "exit")) _exit(3);
  if (!strcmp(what, "thread"))
    clone(stay, stack + sizeof stack, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, NULL);
}
#endif

__attribute__((constructor)) static void opening(void) {
  const char *path = getenv("FAKE_OPENED");
  int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0644) : -1;
  if (file >= 0 && write(file, "opened\n", 7) == 7) close(file);
#if defined(MOODY)
  open_badly();
#endif
}

Status LiteRtCreateEnvironment(int count, const void *options, Handle *out) {
  (void)count, (void)options;
  return *out = text, OK;
}

Status LiteRtCreateModelFromFile(Handle environment, const char *path, Handle *out) {
  (void)environment;
  FILE *file = fopen(path, "re");
  if (!file) return CANNOT_READ;
  if (!fgets(text, sizeof text, file)) return INVALID;
  fclose(file);
  if (sscanf(text, "%63s %ld", mode, &number) < 1) return INVALID;
  static const char *const known[] = {"ok", "fail-load", "fail-run", "segv-load", "segv-run", "ill-run", "abort-run",
                                      "exit-run", "hang-load", "hang-run", "bomb-load", "bomb-run"};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (is(known[i])) return *out = text, OK;
  return INVALID;
}

Status LiteRtCreateModelFromBuffer(Handle environment, const void *data, size_t size, Handle *out) {
  (void)environment;
  return *out = text, size > 8 && !memcmp((const char *)data + 4, "TFL3", 4) ? OK : INVALID;
}

Status LiteRtCreateOptions(Handle *out) { return *out = text, OK; }
Status LiteRtSetOptionsHardwareAccelerators(Handle options, int accelerators) { return (void)options, accelerators - 1; }

Status LiteRtCreateOpaqueOptions(const char *identifier, void *payload, void (*release)(void *), Handle *out) {
  printf("option %s: %s\n", identifier, (char *)payload);
  fflush(stdout);
  fprintf(stderr, "a runtime that talks to stderr\n");
  release(payload);
  return *out = text, OK;
}

Status LiteRtAddOpaqueOptions(Handle options, Handle opaque) { return (void)options, (void)opaque, OK; }

Status LiteRtCreateCompiledModel(Handle environment, Handle model, Handle options, Handle *out) {
  (void)environment, (void)model, (void)options;
  if (is("fail-load")) return NOT_COMPILED;
  if (is("segv-load")) *(volatile int *)8 = 0;
  if (is("hang-load")) hang();
  if (is("bomb-load") && bomb()) return OUT_OF_MEMORY;
  return *out = text, OK;
}

Status LiteRtGetModelSignature(Handle model, size_t index, Handle *out) { return (void)index, *out = model, OK; }
Status LiteRtGetNumSignatureInputs(Handle s, size_t *count) { return (void)s, *count = says("many-inputs") ? 65 : 1, OK; }
Status LiteRtGetNumSignatureOutputs(Handle signature, size_t *count) { return (void)signature, *count = 1, OK; }

Status LiteRtGetSignatureInputTensorByIndex(Handle signature, size_t index, Handle *out) {
  return (void)signature, (void)index, *out = "input", OK;
}

Status LiteRtGetSignatureOutputTensorByIndex(Handle signature, size_t index, Handle *out) {
  return (void)signature, (void)index, *out = "output", OK;
}

Status LiteRtGetTensorName(Handle tensor, const char **name) { return *name = tensor, OK; }

Status LiteRtGetRankedTensorType(Handle tensor, struct ranked_type *type) {
  (void)tensor;
  memset(type, 0, sizeof *type);
  type->element_type = says("odd-type") ? 99 : says("int8") ? 9 : 1;
  type->rank = 2;
  type->dimensions[0] = 1;
  type->dimensions[1] = says("dynamic") ? -1 : FLOATS;
  return OK;
}

Status LiteRtGetCompiledModelInputBufferRequirements(Handle compiled, size_t signature, size_t index, Handle *out) {
  return (void)compiled, (void)signature, (void)index, *out = text, OK;
}

Status LiteRtGetCompiledModelOutputBufferRequirements(Handle compiled, size_t signature, size_t index, Handle *out) {
  return (void)compiled, (void)signature, (void)index, *out = text, OK;
}

Status LiteRtCreateManagedTensorBufferFromRequirements(Handle environment, const struct ranked_type *type,
                                                       Handle requirements, Handle *out) {
  (void)environment, (void)type, (void)requirements;
  if (buffer_count == 2) return FAILURE;
  return *out = buffers[buffer_count++], OK;
}

Status LiteRtGetTensorBufferPackedSize(Handle buffer, size_t *size) { return (void)buffer, *size = sizeof *buffers, OK; }
Status LiteRtLockTensorBuffer(Handle buffer, void **data, int writing) { return (void)writing, *data = buffer, OK; }
Status LiteRtUnlockTensorBuffer(Handle buffer) { return (void)buffer, OK; }

static void add_event(const char *tag, int type, uint64_t index, uint64_t elapsed_us) {
  if (!profiling || event_count == MAX_EVENTS) return;
  events[event_count++] = (struct event){.tag = tag, .type = type, .elapsed_us = elapsed_us, .metadata = {index}};
}

Status LiteRtRunCompiledModel(Handle compiled, size_t signature, size_t inputs, Handle *in, size_t outputs, Handle *out) {
  static char long_name[2000];
  (void)compiled, (void)signature, (void)inputs, (void)in, (void)outputs, (void)out;
  busy_wait(is("ok") ? number : 50);
  memcpy(buffers[1], buffers[0], sizeof *buffers);
  runs++;
  if (says("tell") && runs == 1)
    for (size_t i = 0; i < sizeof *buffers; i++) printf("%02x%s", ((unsigned char *)buffers)[i], i == 15 ? "\n" : "");
  fflush(stdout);
  if (!says("silent")) {
    add_event("Convolution", 4, 0, 70);
    add_event("Softmax", 2, 1, (uint64_t)runs);
  }
  if (says("hostile")) {
    memset(long_name, 'x', sizeof long_name - 1);
    add_event("\"quoted\\\" \x01\n\r\t\x7f\xff\xc3\x28</script>{}", 4, UINT64_MAX, 1);
    add_event(long_name, 4, 2, 1);
    add_event("", 4, 3, 0);
  }
  if (says("changing") && runs % 2) add_event("Sometimes", 4, 2, 5);
  if (runs != number) return OK;
  if (is("fail-run")) return FAILURE;
  if (is("segv-run")) *(volatile int *)8 = 0;
  if (is("ill-run")) raise(SIGILL);
  if (is("abort-run")) abort();
  if (is("exit-run")) _exit(3);
  if (is("hang-run")) hang();
  if (is("bomb-run") && bomb()) abort();   /* as C++ does when nobody catches bad_alloc */
  return OK;
}

Status LiteRtCompiledModelGetProfiler(Handle compiled, Handle *out) { return *out = compiled, OK; }
Status LiteRtStartProfiler(Handle profiler) { return (void)profiler, profiling = 1, OK; }
Status LiteRtResetProfiler(Handle profiler) { return (void)profiler, profiling = 0, event_count = 0, OK; }
Status LiteRtGetNumProfilerEvents(Handle profiler, int *count) { return (void)profiler, *count = event_count, OK; }

Status LiteRtGetProfilerEvents(Handle profiler, int count, struct event *out) {
  return (void)profiler, memcpy(out, events, sizeof *events * (size_t)count), OK;
}
