/* LiteRT (TensorFlow Lite's successor) through the C API of libLiteRt.so. Only what is used is declared. */
#include "runner.h"

typedef int Status;
typedef void *Handle;

struct ranked_type {
  int element_type;
  unsigned rank : 7, has_strides : 1;
  int32_t dimensions[8];
  uint32_t strides[8];
};

struct profiler_event {
  const char *tag;
  int type;
  uint64_t start_us, elapsed_us;
  size_t memory[6];
  uint64_t metadata[2];
  int source;
};

/* X(field, exported name, arguments) */
#define FUNCTIONS(X)                                                                                         \
  X(create_environment, LiteRtCreateEnvironment, (int, const void *, Handle *))                              \
  X(create_model, LiteRtCreateModelFromFile, (Handle, const char *, Handle *))                               \
  X(read_model, LiteRtCreateModelFromBuffer, (Handle, const void *, size_t, Handle *))                       \
  X(create_options, LiteRtCreateOptions, (Handle *))                                                         \
  X(set_accelerators, LiteRtSetOptionsHardwareAccelerators, (Handle, int))                                   \
  X(create_opaque, LiteRtCreateOpaqueOptions, (const char *, void *, void (*)(void *), Handle *))            \
  X(add_opaque, LiteRtAddOpaqueOptions, (Handle, Handle))                                                    \
  X(create_compiled, LiteRtCreateCompiledModel, (Handle, Handle, Handle, Handle *))                          \
  X(signature, LiteRtGetModelSignature, (Handle, size_t, Handle *))                                          \
  X(input_count, LiteRtGetNumSignatureInputs, (Handle, size_t *))                                            \
  X(output_count, LiteRtGetNumSignatureOutputs, (Handle, size_t *))                                          \
  X(input_tensor, LiteRtGetSignatureInputTensorByIndex, (Handle, size_t, Handle *))                          \
  X(output_tensor, LiteRtGetSignatureOutputTensorByIndex, (Handle, size_t, Handle *))                        \
  X(tensor_name, LiteRtGetTensorName, (Handle, const char **))                                               \
  X(ranked_type, LiteRtGetRankedTensorType, (Handle, struct ranked_type *))                                  \
  X(input_requirements, LiteRtGetCompiledModelInputBufferRequirements, (Handle, size_t, size_t, Handle *))   \
  X(output_requirements, LiteRtGetCompiledModelOutputBufferRequirements, (Handle, size_t, size_t, Handle *)) \
  X(create_buffer, LiteRtCreateManagedTensorBufferFromRequirements,                                          \
    (Handle, const struct ranked_type *, Handle, Handle *))                                                  \
  X(packed_size, LiteRtGetTensorBufferPackedSize, (Handle, size_t *))                                        \
  X(lock, LiteRtLockTensorBuffer, (Handle, void **, int))                                                    \
  X(unlock, LiteRtUnlockTensorBuffer, (Handle))                                                              \
  X(run, LiteRtRunCompiledModel, (Handle, size_t, size_t, Handle *, size_t, Handle *))                       \
  X(get_profiler, LiteRtCompiledModelGetProfiler, (Handle, Handle *))                                        \
  X(start_profiler, LiteRtStartProfiler, (Handle))                                                           \
  X(reset_profiler, LiteRtResetProfiler, (Handle))                                                           \
  X(event_count, LiteRtGetNumProfilerEvents, (Handle, int *))                                                \
  X(get_events, LiteRtGetProfilerEvents, (Handle, int, struct profiler_event *))

struct litert {
#define FIELD(field, name, arguments) Status(*field) arguments;
  FUNCTIONS(FIELD)
#undef FIELD
  Handle environment, model, compiled, profiler;
  Handle inputs[MAX_TENSORS], outputs[MAX_TENSORS];
  struct profiler_event *raw;
  struct kernel_event *events;
  int event_capacity;
};

/* The library exports no names for its status numbers; these are the ones that loading and running give. */
static const char *status_name(Status status) {
  switch (status) {
    case 1: return "invalid argument";
    case 2: return "out of memory";
    case 3: return "runtime failure";
    case 5: return "unsupported";
    case 500: return "file cannot be read";
    case 501: return "not a valid model file";
    case 504: return "compilation failed";
    default: return "failed";
  }
}

static int check(struct session *s, Status status, const char *doing) {
  return status ? fail(s, "%s: %s (LiteRT status %d)", doing, status_name(status), status) : 0;
}

static int add_option(struct session *s, Handle options, const char *identifier, const char *payload) {
  struct litert *lite = s->state;
  Handle opaque;
  char *copy = strdup(payload);
  if (!copy) return fail(s, "no memory");
  if (check(s, lite->create_opaque(identifier, copy, free, &opaque), identifier)) return -1;
  return check(s, lite->add_opaque(options, opaque), identifier);
}

static size_t element_bytes(int type) {        /* kTfLite numbers */
  switch (type) {
    case 1: case 2: case 16: return 4;
    case 3: case 6: case 9: return 1;
    case 7: case 10: case 17: case 19: return 2;
    case 4: case 11: case 13: return 8;
    default: return 0;
  }
}

static int make_buffer(struct session *s, Handle tensor, Handle requirements, struct tensor *out, Handle *buffer) {
  struct litert *lite = s->state;
  struct ranked_type type;
  const char *name;
  if (check(s, lite->tensor_name(tensor, &name), "tensor name")) return -1;
  snprintf(out->name, sizeof out->name, "%s", name);
  if (check(s, lite->ranked_type(tensor, &type), name)) return -1;
  if (type.rank > MAX_RANK) return fail(s, "%s has %d dimensions, more than %d", name, (int)type.rank, MAX_RANK);
  out->type = type.element_type;
  out->is_float = type.element_type == 1;
  out->rank = (int)type.rank;
  out->bytes = element_bytes(type.element_type);
  for (int i = 0; i < out->rank; i++) {
    if (type.dimensions[i] < 0) return fail(s, "%s has a dynamic dimension at axis %d", name, i);
    out->shape[i] = type.dimensions[i];
    out->bytes *= (size_t)type.dimensions[i];
  }
  if (!out->bytes) return fail(s, "%s has element type %d, which cannot be filled", name, type.element_type);
  return check(s, lite->create_buffer(lite->environment, &type, requirements, buffer), name);
}

static int load_buffers(struct session *s) {
  struct litert *lite = s->state;
  Handle signature, tensor, requirements;
  size_t inputs, outputs;
  if (check(s, lite->signature(lite->model, 0, &signature), "signature")) return -1;
  if (check(s, lite->input_count(signature, &inputs), "inputs")) return -1;
  if (check(s, lite->output_count(signature, &outputs), "outputs")) return -1;
  if (inputs > MAX_TENSORS || outputs > MAX_TENSORS) return fail(s, "more than %d inputs or outputs", MAX_TENSORS);
  for (size_t i = 0; i < inputs; i++) {
    if (check(s, lite->input_tensor(signature, i, &tensor), "input")) return -1;
    if (check(s, lite->input_requirements(lite->compiled, 0, i, &requirements), "input")) return -1;
    if (make_buffer(s, tensor, requirements, &s->inputs[i], &lite->inputs[i])) return -1;
    if (!(s->inputs[i].data = malloc(s->inputs[i].bytes + 64))) return fail(s, "no memory for an input");
  }
  for (size_t i = 0; i < outputs; i++) {
    if (check(s, lite->output_tensor(signature, i, &tensor), "output")) return -1;
    if (check(s, lite->output_requirements(lite->compiled, 0, i, &requirements), "output")) return -1;
    if (make_buffer(s, tensor, requirements, &s->outputs[i], &lite->outputs[i])) return -1;
    if (!(s->outputs[i].data = malloc(s->outputs[i].bytes + 64))) return fail(s, "no memory for an output");
  }
  s->input_count = (int)inputs;
  s->output_count = (int)outputs;
  return 0;
}

static int copy_buffer(struct session *s, Handle buffer, struct tensor *tensor, int writing) {
  struct litert *lite = s->state;
  void *memory;
  if (check(s, lite->lock(buffer, &memory, writing), tensor->name)) return -1;
  if (writing) memcpy(memory, tensor->data, tensor->bytes);
  else memcpy(tensor->data, memory, tensor->bytes);
  return check(s, lite->unlock(buffer), tensor->name);
}

static int litert_upload(struct session *s) {
  struct litert *lite = s->state;
  for (int i = 0; i < s->input_count; i++)
    if (copy_buffer(s, lite->inputs[i], &s->inputs[i], 1)) return -1;
  return 0;
}

/* A model of one float that is input and output, without an operator, as a TFLite file has it. */
static const unsigned char tiny_model[] __attribute__((aligned(16))) = {
    24, 0, 0, 0, 84, 70, 76, 51, 0, 0, 14, 0, 20, 0, 16, 0, 12, 0, 8, 0, 0, 0, 4, 0, 14, 0, 0, 0, 16, 0,
    0, 0, 28, 0, 0, 0, 132, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 4, 0, 4, 0, 4, 0, 0, 0,
    1, 0, 0, 0, 16, 0, 0, 0, 12, 0, 20, 0, 16, 0, 12, 0, 8, 0, 4, 0, 12, 0, 0, 0, 16, 0, 0, 0, 16, 0,
    0, 0, 20, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
    1, 0, 0, 0, 16, 0, 0, 0, 12, 0, 12, 0, 8, 0, 0, 0, 0, 0, 4, 0, 12, 0, 0, 0, 8, 0, 0, 0, 12, 0,
    0, 0, 1, 0, 0, 0, 120, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
};

static int litert_open(struct session *s) {
  const struct job_case *spec = s->spec;
  struct litert *lite = s->state = calloc(1, sizeof *lite);
  void *library = dlopen(spec->library, RTLD_NOW | RTLD_LOCAL);
  if (!lite || !library) return fail(s, "cannot open the runtime: %s", dlerror());
#define FIND(field, name, arguments)                                         \
  if (!(lite->field = (Status(*) arguments)dlsym(library, #name)))           \
    return fail(s, "%s has no %s: another version?", spec->library, #name);
  FUNCTIONS(FIND)
#undef FIND
  return check(s, lite->create_environment(0, NULL, &lite->environment), "environment");
}

static int make_options(struct session *s, int threads, int builtin, Handle *options) {
  enum { CPU = 1 };
  struct litert *lite = s->state;
  char payload[96];
  if (check(s, lite->create_options(options), "options")) return -1;
  if (check(s, lite->set_accelerators(*options, CPU), "options")) return -1;
  snprintf(payload, sizeof payload, "num_threads = %d\n%s", threads, builtin ? "kernel_mode = \"builtin\"\n" : "");
  return add_option(s, *options, "xnnpack", payload);
}

/* With its first model a process looks at the processor and chooses its kernels, for as long as five small models take. */
static void litert_warm_up(struct session *s) {
  struct litert *lite = s->state;
  Handle model, options, compiled;
  if (lite->read_model(lite->environment, tiny_model, sizeof tiny_model, &model)) return;
  if (!make_options(s, 1, 0, &options)) lite->create_compiled(lite->environment, model, options, &compiled);
}

static int litert_load(struct session *s) {
  const struct job_case *spec = s->spec;
  struct litert *lite = s->state;
  Handle options;
  if (check(s, lite->create_model(lite->environment, spec->model, &lite->model), "loading")) return -1;
  if (make_options(s, spec->threads, spec->delegate && !strcmp(spec->delegate, "builtin"), &options)) return -1;
  if (spec->profile && add_option(s, options, "runtime_options_string", "enable_profiling = true\n")) return -1;
  if (check(s, lite->create_compiled(lite->environment, lite->model, options, &lite->compiled), "loading")) return -1;
  if (load_buffers(s)) return -1;
  if (!spec->profile) return 0;
  if (check(s, lite->get_profiler(lite->compiled, &lite->profiler), "profiler")) return -1;
  return check(s, lite->start_profiler(lite->profiler), "profiler");
}

static int litert_run(struct session *s) {
  struct litert *lite = s->state;
  Status status = lite->run(lite->compiled, 0, (size_t)s->input_count, lite->inputs, (size_t)s->output_count,
                            lite->outputs);
  return status ? check(s, status, "inference") : 0;
}

static int litert_after_run(struct session *s) {
  struct litert *lite = s->state;
  if (!s->spec->output) return 0;
  for (int i = 0; i < s->output_count; i++)
    if (copy_buffer(s, lite->outputs[i], &s->outputs[i], 0)) return -1;
  return 0;
}

static int litert_kernels(struct session *s, struct kernel_event **events, int *count) {
  struct litert *lite = s->state;
  if (check(s, lite->event_count(lite->profiler, count), "profiler")) return -1;
  if (*count > lite->event_capacity) {
    lite->event_capacity = *count * 2;
    lite->raw = realloc(lite->raw, sizeof *lite->raw * (size_t)lite->event_capacity);
    lite->events = realloc(lite->events, sizeof *lite->events * (size_t)lite->event_capacity);
    if (!lite->raw || !lite->events) return fail(s, "no memory for %d profiler events", *count);
  }
  if (*count && check(s, lite->get_events(lite->profiler, *count, lite->raw), "profiler")) return -1;
  for (int i = 0; i < *count; i++)
    lite->events[i] = (struct kernel_event){lite->raw[i].tag, (int64_t)lite->raw[i].start_us,
                                            (int64_t)lite->raw[i].elapsed_us, (int64_t)lite->raw[i].metadata[0],
                                            lite->raw[i].type};
  *events = lite->events;
  /* a reset also stops it */
  return check(s, lite->reset_profiler(lite->profiler), "profiler") ||
         check(s, lite->start_profiler(lite->profiler), "profiler") ? -1 : 0;
}

static int litert_finish(struct session *s, char *profile_path, size_t size) {
  (void)s, (void)size;
  *profile_path = 0;
  return 0;
}

const struct runtime litert_runtime = {"litert",      litert_open, litert_warm_up,   litert_load,
                                       litert_upload, litert_run,  litert_after_run, litert_kernels, litert_finish};
