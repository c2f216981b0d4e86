/* TensorFlow Lite through the plain C API of libtensorflowlite_jni.so, the library that its Android packages hold (and of
 * libtensorflowlite_c.so, which has the same names). Only what is used is declared.
 *
 * Kernel times come through its telemetry profiler: an op inside XNNPACK with its time in whole microseconds, an op of
 * the interpreter as a call when it begins and one when it ends, stamped here in ns and rounded to the nearest us. */
#include "runner.h"

typedef int Status;
typedef void *Handle;
typedef void (*Reporter)(void *state, const char *format, va_list arguments);

enum { INTERPRETER_OP = 2, DELEGATE_OP = 8, MAX_EVENTS = 1 << 16 };

/* Returned by value, larger in each version: the callee writes and reads no more than its own size. */
struct xnnpack_options {
  int32_t threads;
  uint32_t flags;
  char others[504];
};

/* The order of the functions is the library's. */
struct profiler {
  void *state;
  void (*telemetry)(struct profiler *, const char *name, uint64_t status);
  void (*telemetry_op)(struct profiler *, const char *name, int64_t op, int64_t subgraph, uint64_t status);
  void (*settings)(struct profiler *, const char *name, const void *settings);
  uint32_t (*begin_op)(struct profiler *, const char *name, int64_t op, int64_t subgraph);
  void (*end_op)(struct profiler *, uint32_t event);
  void (*timed_op)(struct profiler *, const char *name, uint64_t elapsed_us, int64_t op, int64_t subgraph);
};

/* X(field, exported name, result, arguments) */
#define FUNCTIONS(X)                                                                                    \
  X(version, TfLiteVersion, const char *, (void))                                                       \
  X(create_model, TfLiteModelCreateFromFileWithErrorReporter, Handle, (const char *, Reporter, void *)) \
  X(create_options, TfLiteInterpreterOptionsCreate, Handle, (void))                                     \
  X(set_reporter, TfLiteInterpreterOptionsSetErrorReporter, void, (Handle, Reporter, void *))           \
  X(set_threads, TfLiteInterpreterOptionsSetNumThreads, void, (Handle, int32_t))                        \
  X(add_delegate, TfLiteInterpreterOptionsAddDelegate, void, (Handle, Handle))                          \
  X(create_interpreter, TfLiteInterpreterCreate, Handle, (Handle, Handle))                              \
  X(allocate, TfLiteInterpreterAllocateTensors, Status, (Handle))                                       \
  X(invoke, TfLiteInterpreterInvoke, Status, (Handle))                                                  \
  X(input_count, TfLiteInterpreterGetInputTensorCount, int32_t, (Handle))                               \
  X(output_count, TfLiteInterpreterGetOutputTensorCount, int32_t, (Handle))                             \
  X(input, TfLiteInterpreterGetInputTensor, Handle, (Handle, int32_t))                                  \
  X(output, TfLiteInterpreterGetOutputTensor, Handle, (Handle, int32_t))                                \
  X(tensor_name, TfLiteTensorName, const char *, (Handle))                                              \
  X(tensor_type, TfLiteTensorType, int, (Handle))                                                       \
  X(tensor_rank, TfLiteTensorNumDims, int32_t, (Handle))                                                \
  X(tensor_size, TfLiteTensorDim, int32_t, (Handle, int32_t))                                           \
  X(tensor_bytes, TfLiteTensorByteSize, size_t, (Handle))                                               \
  X(tensor_data, TfLiteTensorData, void *, (Handle))                                                    \
  X(copy_in, TfLiteTensorCopyFromBuffer, Status, (Handle, const void *, size_t))

/* Asked for by some cases only. */
#define OPTIONAL(X)                                                                                  \
  X(xnnpack_defaults, TfLiteXNNPackDelegateOptionsDefault, struct xnnpack_options, (void))           \
  X(create_xnnpack, TfLiteXNNPackDelegateCreate, Handle, (const struct xnnpack_options *))           \
  X(set_profiler, TfLiteInterpreterOptionsSetTelemetryProfiler, void, (Handle, struct profiler *))

struct op {
  char *name;                      /* a copy of ours, kept from run to run: the library's own may be gone after a run */
  size_t room;
  int64_t started_ns;
};

struct tflite {
#define FIELD(field, name, result, arguments) result(*field) arguments;
  FUNCTIONS(FIELD) OPTIONAL(FIELD)
#undef FIELD
  Handle interpreter, inputs[MAX_TENSORS], outputs[MAX_TENSORS];
  struct profiler profiler;
  struct kernel_event *events;
  struct op *ops;
  int event_count, event_capacity, lost;
  char said[512];                  /* the library's last message */
};

static void on_message(void *state, const char *format, va_list arguments) {
  struct tflite *lite = state;
  vsnprintf(lite->said, sizeof lite->said, format, arguments);
  fprintf(stderr, "%s\n", lite->said);
}

/* A failure in the library's own words, where it had some. */
static int failed(struct session *s, const char *doing, Status status) {
  struct tflite *lite = s->state;
  const char *text = *lite->said ? lite->said : "it gives no reason";
  if (!status) return fail(s, "%s: %s", doing, text);
  return fail(s, "%s: %s (TensorFlow Lite status %d)", doing, text, status);
}

/* ---- profiler ---- */

static int grow(struct tflite *lite) {
  int capacity = lite->event_capacity ? lite->event_capacity * 2 : 256;
  if (capacity > MAX_EVENTS) return -1;
  struct kernel_event *events = realloc(lite->events, sizeof *events * (size_t)capacity);
  if (events) lite->events = events;
  struct op *ops = realloc(lite->ops, sizeof *ops * (size_t)capacity);
  if (ops) lite->ops = ops;
  if (!events || !ops) return -1;
  memset(ops + lite->event_capacity, 0, sizeof *ops * (size_t)(capacity - lite->event_capacity));
  lite->event_capacity = capacity;
  return 0;
}

/* The n-th event of a run mostly has the name of the last run's n-th: then nothing is allocated. */
static int keep_name(struct op *op, const char *name) {
  size_t size = strlen(name) + 1;
  if (size > op->room) {
    char *text = realloc(op->name, size);
    if (!text) return -1;
    op->name = text;
    op->room = size;
  }
  memcpy(op->name, name, size);
  return 0;
}

static struct op *add_event(struct tflite *lite, const char *name, int type, int64_t index, int64_t elapsed_us) {
  if (lite->event_count == lite->event_capacity && grow(lite)) return lite->lost = 1, NULL;
  struct op *op = &lite->ops[lite->event_count];
  if (keep_name(op, name ? name : "")) return lite->lost = 1, NULL;
  lite->events[lite->event_count++] =
      (struct kernel_event){.name = op->name, .elapsed_us = elapsed_us, .index = index, .type = type};
  return op;
}

static uint32_t on_begin_op(struct profiler *profiler, const char *name, int64_t op, int64_t subgraph) {
  struct tflite *lite = profiler->state;
  (void)subgraph;
  struct op *added = add_event(lite, name, INTERPRETER_OP, op, 0);
  if (!added) return UINT32_MAX;
  added->started_ns = now_ns();    /* last, so that the bookkeeping is not in it */
  return (uint32_t)lite->event_count - 1;
}

static void on_end_op(struct profiler *profiler, uint32_t event) {
  int64_t ended_ns = now_ns();
  struct tflite *lite = profiler->state;
  if (event < (uint32_t)lite->event_count)
    lite->events[event].elapsed_us = (ended_ns - lite->ops[event].started_ns + 500) / 1000;
}

static void on_timed_op(struct profiler *profiler, const char *name, uint64_t elapsed_us, int64_t op, int64_t subgraph) {
  (void)subgraph;
  add_event(profiler->state, name, DELEGATE_OP, op, (int64_t)elapsed_us);
}

static void on_telemetry(struct profiler *p, const char *name, uint64_t status) { (void)p, (void)name, (void)status; }
static void on_settings(struct profiler *p, const char *name, const void *all) { (void)p, (void)name, (void)all; }
static void on_telemetry_op(struct profiler *p, const char *name, int64_t op, int64_t subgraph, uint64_t status) {
  (void)p, (void)name, (void)op, (void)subgraph, (void)status;
}

/* ---- loading ---- */

static int describe(struct session *s, Handle tensor, struct tensor *out) {
  struct tflite *lite = s->state;
  if (!tensor) return failed(s, "loading", 0);
  const char *name = lite->tensor_name(tensor);
  snprintf(out->name, sizeof out->name, "%s", name ? name : "");
  out->type = lite->tensor_type(tensor);
  out->is_float = out->type == 1;
  out->rank = lite->tensor_rank(tensor);
  out->bytes = lite->tensor_bytes(tensor);
  if (out->rank < 0 || out->rank > MAX_RANK)
    return fail(s, "%s has %d dimensions, more than %d", out->name, out->rank, MAX_RANK);
  for (int i = 0; i < out->rank; i++) out->shape[i] = lite->tensor_size(tensor, i);
  return 0;
}

static int load_tensors(struct session *s) {
  enum { STRING = 5, RESOURCE = 14, VARIANT = 15 };
  struct tflite *lite = s->state;
  int inputs = lite->input_count(lite->interpreter), outputs = lite->output_count(lite->interpreter);
  if (inputs < 0 || outputs < 0 || inputs > MAX_TENSORS || outputs > MAX_TENSORS)
    return fail(s, "more than %d inputs or outputs", MAX_TENSORS);
  for (int i = 0; i < inputs; i++) {
    struct tensor *tensor = &s->inputs[i];
    if (describe(s, lite->inputs[i] = lite->input(lite->interpreter, i), tensor)) return -1;
    if (!tensor->bytes || tensor->type == STRING || tensor->type == RESOURCE || tensor->type == VARIANT)
      return fail(s, "%s has element type %d, which cannot be filled", tensor->name, tensor->type);
    if (!(tensor->data = malloc(tensor->bytes + 64))) return fail(s, "no memory for an input");
  }
  for (int i = 0; i < outputs; i++)
    if (describe(s, lite->outputs[i] = lite->output(lite->interpreter, i), &s->outputs[i])) return -1;
  s->input_count = inputs;
  s->output_count = outputs;
  return 0;
}

static int add_xnnpack(struct session *s, Handle options) {
  struct tflite *lite = s->state;
  if (!lite->xnnpack_defaults || !lite->create_xnnpack) return fail(s, "%s has no XNNPACK delegate", s->spec->library);
  struct xnnpack_options xnnpack = lite->xnnpack_defaults();
  xnnpack.threads = s->spec->threads;
  Handle delegate = lite->create_xnnpack(&xnnpack);
  if (!delegate) return fail(s, "XNNPACK does not start: it cannot read this processor from /proc/cpuinfo or /sys");
  lite->add_delegate(options, delegate);
  return 0;
}

static int add_profiler(struct session *s, Handle options) {
  struct tflite *lite = s->state;
  if (!lite->set_profiler) return fail(s, "%s has no telemetry profiler", s->spec->library);
  lite->profiler = (struct profiler){lite,        on_telemetry, on_telemetry_op, on_settings,
                                     on_begin_op, on_end_op,    on_timed_op};
  lite->set_profiler(options, &lite->profiler);
  return 0;
}

static int tflite_open(struct session *s) {
  const struct job_case *spec = s->spec;
  struct tflite *lite = s->state = calloc(1, sizeof *lite);
  void *library = dlopen(spec->library, RTLD_NOW | RTLD_LOCAL);
  if (!lite || !library) return fail(s, "cannot open the runtime: %s", dlerror());
#define LOOK_UP(field, name, result, arguments) lite->field = (result(*) arguments)dlsym(library, #name);
#define FIND(field, name, result, arguments)                                                              \
  LOOK_UP(field, name, result, arguments)                                                                 \
  if (!lite->field) return fail(s, "%s has no %s: another version?", spec->library, #name);
  FUNCTIONS(FIND)
  OPTIONAL(LOOK_UP)
#undef FIND
#undef LOOK_UP
  snprintf(s->version, sizeof s->version, "%s", lite->version());
  return 0;
}

static int tflite_load(struct session *s) {
  const struct job_case *spec = s->spec;
  struct tflite *lite = s->state;
  Handle model = lite->create_model(spec->model, on_message, lite);
  if (!model) return failed(s, "loading", 0);
  Handle options = lite->create_options();
  if (!options) return failed(s, "options", 0);
  lite->set_reporter(options, on_message, lite);
  lite->set_threads(options, spec->threads);
  int builtin = spec->delegate && !strcmp(spec->delegate, "builtin");
  if (!builtin && add_xnnpack(s, options)) return -1;
  if (spec->profile && add_profiler(s, options)) return -1;
  if (!(lite->interpreter = lite->create_interpreter(model, options))) return failed(s, "loading", 0);
  Status status = lite->allocate(lite->interpreter);
  if (status) return failed(s, "loading", status);
  return load_tensors(s);
}

/* ---- running ---- */

static int tflite_upload(struct session *s) {
  struct tflite *lite = s->state;
  for (int i = 0; i < s->input_count; i++) {
    Status status = lite->copy_in(lite->inputs[i], s->inputs[i].data, s->inputs[i].bytes);
    if (status) return failed(s, s->inputs[i].name, status);
  }
  return 0;
}

static int tflite_run(struct session *s) {
  struct tflite *lite = s->state;
  lite->event_count = 0;
  Status status = lite->invoke(lite->interpreter);
  return status ? failed(s, "inference", status) : 0;
}

static int tflite_after_run(struct session *s) {
  struct tflite *lite = s->state;
  if (!s->spec->output) return 0;
  for (int i = 0; i < s->output_count; i++) {
    struct tensor *tensor = &s->outputs[i];
    if (describe(s, lite->outputs[i], tensor)) return -1;   /* again: a run may give an output its shape */
    if (!(tensor->data = lite->tensor_data(lite->outputs[i])) && tensor->bytes)
      return fail(s, "%s has no data after a run", tensor->name);
  }
  return 0;
}

static int tflite_kernels(struct session *s, struct kernel_event **events, int *count) {
  struct tflite *lite = s->state;
  if (lite->lost) return fail(s, "more than %d profiler events in a run, or no memory for them", lite->event_capacity);
  *events = lite->events;
  *count = lite->event_count;
  return 0;
}

static int tflite_finish(struct session *s, char *profile_path, size_t size) {
  (void)s, (void)size;
  *profile_path = 0;
  return 0;
}

const struct runtime tflite_runtime = {"tflite",      tflite_open, NULL,             tflite_load,
                                       tflite_upload, tflite_run,  tflite_after_run, tflite_kernels, tflite_finish};
