/* A TensorFlow Lite of our own: the functions that devices/native/tflite.c calls, doing what the model "file" says.
 *
 * A model is one line of text: MODE [NUMBER] [WORD...].
 *   ok US           every inference busy-waits US microseconds; outputs are the inputs
 *   fail-load fail-allocate   loading gives nothing, or a status;  fail-run N: the N-th inference does (warm-ups count)
 *   segv-load segv-run abort-run hang-run   the same for worse ends;  no-xnnpack: its delegate does not start
 * Words: string, many-inputs, int8, deep (the tensors); dumb (says no reason); empty, changing, silent, hostile, unended,
 * unbegun, flood (the profiler); grows (the output gets its shape in a run); tell (the first run prints its input).
 * With -DPLAIN it is a library without the delegate and without the profiler.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int Status;
typedef struct { const char *name; float values[8]; int count; } Tensor;
typedef void (*Reporter)(void *, const char *, va_list);
struct profiler {
  void *data;
  void (*telemetry)(struct profiler *, const char *, uint64_t);
  void (*telemetry_op)(struct profiler *, const char *, int64_t, int64_t, uint64_t);
  void (*settings)(struct profiler *, const char *, const void *);
  uint32_t (*begin)(struct profiler *, const char *, int64_t, int64_t);
  void (*end)(struct profiler *, uint32_t);
  void (*timed)(struct profiler *, const char *, uint64_t, int64_t, int64_t);
};

static char text[256], mode[64];
static long number, runs;
static int delegated;
static Tensor input = {"input", {0}, 4}, output = {"output", {0}, 4};
static struct profiler *profiler;
static Reporter reporter;
static void *reporter_state;

static int says(const char *word) { return strstr(text, word) != NULL; }
static int is(const char *wanted) { return !strcmp(mode, wanted); }

static void say(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  if (reporter && !says("dumb")) reporter(reporter_state, format, arguments);
  va_end(arguments);
}

static void busy_wait(long us) {
  struct timespec begin, now;
  clock_gettime(CLOCK_MONOTONIC_RAW, &begin);
  do clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  while ((now.tv_sec - begin.tv_sec) * 1000000000ll + now.tv_nsec - begin.tv_nsec < us * 1000ll);
}

const char *TfLiteVersion(void) { return "9.8.7-fake"; }

void *TfLiteModelCreateFromFileWithErrorReporter(const char *path, Reporter report, void *state) {
  reporter = report, reporter_state = state;
  FILE *file = fopen(path, "re");
  if (!file) return say("Could not open '%s'.", path), NULL;
  if (!fgets(text, sizeof text, file)) *text = 0;
  fclose(file);
  static const char *const known[] = {"ok",       "fail-load", "fail-allocate", "fail-run",  "segv-load",
                                      "segv-run", "abort-run", "hang-run",      "no-xnnpack"};
  if (sscanf(text, "%63s %ld", mode, &number) >= 1)
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
      if (is(known[i])) return text;
  return say("The model is not a valid %s", "Flatbuffer"), NULL;
}

void *TfLiteInterpreterOptionsCreate(void) { return text; }
void TfLiteInterpreterOptionsSetErrorReporter(void *options, Reporter report, void *state) {
  (void)options, reporter = report, reporter_state = state;
}
void TfLiteInterpreterOptionsSetNumThreads(void *options, int32_t threads) {
  (void)options, printf("interpreter threads %d\n", threads), fflush(stdout);
}
void TfLiteInterpreterOptionsAddDelegate(void *options, void *delegate) { (void)options, delegated = delegate != NULL; }

#ifndef PLAIN
struct xnnpack { int32_t threads; uint32_t flags; void *cache; bool variables; char newer[40]; };
struct xnnpack TfLiteXNNPackDelegateOptionsDefault(void) { return (struct xnnpack){0, 0x15, text, true, "newer fields"}; }
void *TfLiteXNNPackDelegateCreate(const struct xnnpack *o) {
  printf("xnnpack threads %d flags 0x%x kept %d %s\n", o->threads, o->flags, o->cache == text && o->variables, o->newer);
  fflush(stdout);
  return is("no-xnnpack") ? NULL : text;
}
void TfLiteInterpreterOptionsSetTelemetryProfiler(void *options, struct profiler *given) {
  (void)options, profiler = given;
  profiler->telemetry(profiler, "Invoke", 1);
  profiler->telemetry_op(profiler, "op", 1, 0, 2);
  profiler->settings(profiler, "model", text);
}
#endif

void *TfLiteInterpreterCreate(void *model, void *options) {
  (void)model, (void)options;
  if (is("segv-load")) *(volatile int *)8 = 0;
  return is("fail-load") ? say("Didn't find op for builtin opcode '%s'", "FAKE"), NULL : text;
}

Status TfLiteInterpreterAllocateTensors(void *interpreter) {
  (void)interpreter;
  return is("fail-allocate") ? say("node %d failed to prepare", 3), 1 : 0;
}

int32_t TfLiteInterpreterGetInputTensorCount(void *i) { return (void)i, says("many-inputs") ? 65 : 1; }
int32_t TfLiteInterpreterGetOutputTensorCount(void *i) { return (void)i, 1; }
void *TfLiteInterpreterGetInputTensor(void *interpreter, int32_t index) { return (void)interpreter, index ? NULL : &input; }
const void *TfLiteInterpreterGetOutputTensor(void *i, int32_t index) { return (void)i, index ? NULL : &output; }
const char *TfLiteTensorName(Tensor *tensor) { return says("nameless") ? NULL : tensor->name; }
int TfLiteTensorType(Tensor *tensor) { return (void)tensor, says("string") ? 5 : says("int8") ? 9 : 1; }
int32_t TfLiteTensorNumDims(Tensor *tensor) { return (void)tensor, says("deep") ? 9 : 2; }
int32_t TfLiteTensorDim(Tensor *tensor, int32_t axis) { return axis ? tensor->count * (says("int8") ? 4 : 1) : 1; }
size_t TfLiteTensorByteSize(Tensor *tensor) { return says("empty") ? 0 : (size_t)tensor->count * sizeof(float); }
void *TfLiteTensorData(Tensor *tensor) { return tensor->values; }

Status TfLiteTensorCopyFromBuffer(Tensor *tensor, const void *data, size_t size) {
  if (size != TfLiteTensorByteSize(tensor)) return 1;
  return memcpy(tensor->values, data, size), 0;
}

static void timed(const char *name, uint64_t us, int64_t index) {
  char *fleeting = strdup(name);     /* the library's own names may not outlive a run */
  profiler->timed(profiler, fleeting, us, index, 0);
  memset(fleeting, '?', strlen(fleeting));
  free(fleeting);
}

static void report_kernels(void) {
  uint32_t mean = profiler->begin(profiler, "MEAN", 68, 0);
  busy_wait(300);
  if (delegated) timed("Convolution (NHWC, F32) GEMM", 70, 0);
  if (delegated) timed("Softmax (NC, F32)", (uint64_t)runs, 1);
  if (!says("unended")) profiler->end(profiler, mean);
  if (says("unbegun")) profiler->end(profiler, 77), profiler->end(profiler, UINT32_MAX);
  if (says("changing") && runs % 2) timed("Sometimes, and with a longer name than before", 5, 2);
  if (says("flood")) for (int i = 0; i < 70000; i++) timed("x", 1, i);
  if (says("hostile")) {
    static char long_name[2000];
    memset(long_name, 'x', sizeof long_name - 1);
    profiler->timed(profiler, NULL, 0, -1, 0);
    timed("\"quoted\\\" \x01\n\xff</script>{}", 1, INT64_MAX);
    timed(long_name, 1, 2);
  }
}

Status TfLiteInterpreterInvoke(void *interpreter) {
  (void)interpreter;
  busy_wait(is("ok") ? number : 50);
  memcpy(output.values, input.values, sizeof input.values);
  runs++;
  for (size_t i = 0; says("tell") && runs == 1 && i < 16; i++)
    printf("%02x%s", ((unsigned char *)input.values)[i], i == 15 ? "\n" : "");
  fflush(stdout);
  if (says("grows")) output.count = 4 + runs % 2;
  if (profiler && !says("silent")) report_kernels();
  if (runs != number) return 0;
  if (is("fail-run")) return say("node %d (%s) failed to invoke", 3, "CONV_2D"), 2;
  if (is("segv-run")) *(volatile int *)8 = 0;
  if (is("abort-run")) abort();
  if (is("hang-run")) for (;;) pause();
  return 0;
}
