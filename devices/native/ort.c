/* onnxruntime through its C API: an append-only table of functions, so that an index names one function for ever.
 * Only what is used is declared; the indices are those of onnxruntime_c_api.h (version 11 of the API and later). */
#include "runner.h"

enum { API_VERSION = 11 };

enum {
  GetErrorMessage = 2, CreateEnv = 3, CreateSession = 7, CreateSessionFromArray = 8, Run = 9, CreateSessionOptions = 10,
  SetOptimizedModelFilePath = 11, SetSessionExecutionMode = 13, EnableProfiling = 14,
  SetSessionGraphOptimizationLevel = 23, SetIntraOpNumThreads = 24, SetInterOpNumThreads = 25,
  SessionGetInputCount = 30, SessionGetOutputCount = 31, SessionGetInputTypeInfo = 33, SessionGetInputName = 36,
  SessionGetOutputName = 37, CreateTensorWithDataAsOrtValue = 49, GetTensorMutableData = 51,
  CastTypeInfoToTensorInfo = 55, GetTensorElementType = 60, GetDimensionsCount = 61, GetDimensions = 62,
  GetTensorTypeAndShape = 65, CreateCpuMemoryInfo = 69, GetAllocatorWithDefaultOptions = 78, ReleaseStatus = 93,
  ReleaseSession = 95, ReleaseValue = 96, ReleaseTypeInfo = 98, ReleaseTensorTypeAndShapeInfo = 99,
  ReleaseSessionOptions = 100,
  SessionEndProfiling = 110,
};

typedef struct OrtStatus OrtStatus;
struct api_base {
  const void *const *(*get_api)(uint32_t version);
  const char *(*get_version)(void);
};

struct ort {
  const void *const *api;
  void *environment, *session, *allocator, *memory;
  void *input_values[MAX_TENSORS], *output_values[MAX_TENSORS];
  const char *input_names[MAX_TENSORS], *output_names[MAX_TENSORS];
};

#define CALL(ort, index, ...) ((OrtStatus * (*)())(ort)->api[index])(__VA_ARGS__)
#define RELEASE(ort, index, what) ((void (*)(void *))(ort)->api[index])(what)

/* Keeps the message of a failed call; 0 where all was well. */
static int check(struct session *s, OrtStatus *status, const char *doing) {
  struct ort *ort = s->state;
  if (!status) return 0;
  const char *(*message)(OrtStatus *) = (const char *(*)(OrtStatus *))ort->api[GetErrorMessage];
  fail(s, "%s: %s", doing, message(status));
  RELEASE(ort, ReleaseStatus, status);
  return -1;
}

static size_t element_bytes(int type) {
  static const unsigned char sizes[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8};   /* ONNXTensorElementDataType */
  return type > 0 && type < (int)sizeof sizes ? sizes[type] : 0;
}

static int describe(struct session *s, void *info, struct tensor *tensor) {
  struct ort *ort = s->state;
  size_t rank;
  if (check(s, CALL(ort, GetTensorElementType, info, &tensor->type), "element type")) return -1;
  if (check(s, CALL(ort, GetDimensionsCount, info, &rank), "rank")) return -1;
  if (rank > MAX_RANK) return fail(s, "%s has %zu dimensions, more than %d", tensor->name, rank, MAX_RANK);
  if (check(s, CALL(ort, GetDimensions, info, tensor->shape, rank), "shape")) return -1;
  tensor->rank = (int)rank;
  tensor->is_float = tensor->type == 1;
  tensor->bytes = element_bytes(tensor->type);
  if (!tensor->bytes) return fail(s, "%s has element type %d, which cannot be filled", tensor->name, tensor->type);
  for (size_t i = 0; i < rank; i++) {
    if (tensor->shape[i] < 0) return fail(s, "input %s has a dynamic dimension at axis %zu", tensor->name, i);
    tensor->bytes *= (size_t)tensor->shape[i];
  }
  return 0;
}

static int load_input(struct session *s, size_t i) {
  struct ort *ort = s->state;
  struct tensor *tensor = &s->inputs[i];
  char *name;
  void *type_info = NULL, *info = NULL;
  if (check(s, CALL(ort, SessionGetInputName, ort->session, i, ort->allocator, &name), "input name")) return -1;
  ort->input_names[i] = name;
  snprintf(tensor->name, sizeof tensor->name, "%s", name);
  if (check(s, CALL(ort, SessionGetInputTypeInfo, ort->session, i, &type_info), "input type")) return -1;
  if (check(s, CALL(ort, CastTypeInfoToTensorInfo, type_info, &info), "input type")) return -1;
  if (!info) return fail(s, "input %s is not a tensor", name);
  if (describe(s, info, tensor)) return -1;
  RELEASE(ort, ReleaseTypeInfo, type_info);
  if (posix_memalign(&tensor->data, 64, tensor->bytes + 64)) return fail(s, "no memory for input %s", name);
  return check(s, CALL(ort, CreateTensorWithDataAsOrtValue, ort->memory, tensor->data, tensor->bytes, tensor->shape,
                       (size_t)tensor->rank, tensor->type, &ort->input_values[i]), "input tensor");
}

/* y = Identity(x), both one float, as an ONNX file has it. */
static const char tiny_model[] =
    "\x08\x08\x42\x04\x0a\x00\x10\x0d"                        /* IR version 8, operators of version 13 */
    "\x3a\x37\x0a\x10\x0a\x01x\x12\x01y\x22\x08Identity\x12\x01g"   /* the graph and its node */
    "\x5a\x0f\x0a\x01x\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01"
    "\x62\x0f\x0a\x01y\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01";

static int make_options(struct session *s, int threads, void **options) {
  enum { SEQUENTIAL = 0, OPTIMIZE_ALL = 99 };
  struct ort *ort = s->state;
  if (check(s, CALL(ort, CreateSessionOptions, options), "options")) return -1;
  if (check(s, CALL(ort, SetIntraOpNumThreads, *options, threads), "threads")) return -1;
  if (check(s, CALL(ort, SetInterOpNumThreads, *options, 1), "threads")) return -1;
  if (check(s, CALL(ort, SetSessionExecutionMode, *options, SEQUENTIAL), "mode")) return -1;
  return check(s, CALL(ort, SetSessionGraphOptimizationLevel, *options, OPTIMIZE_ALL), "optimisation");
}

static int ort_open(struct session *s) {
  enum { LOG_ERROR = 3 };
  const struct job_case *spec = s->spec;
  struct ort *ort = s->state = calloc(1, sizeof *ort);
  /* Official builds tell Microsoft about the models that they load, from a thread of their own and through a database in
   * the user's home: not what a user asks a benchmark for, and noise in it. */
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  void *library = dlopen(spec->library, RTLD_NOW | RTLD_LOCAL);
  if (!ort || !library) return fail(s, "cannot open the runtime: %s", dlerror());
  const struct api_base *(*get_base)(void) = (const struct api_base *(*)(void))dlsym(library, "OrtGetApiBase");
  if (!get_base) return fail(s, "%s has no OrtGetApiBase", spec->library);
  snprintf(s->version, sizeof s->version, "%s", get_base()->get_version());
  ort->api = get_base()->get_api(API_VERSION);
  if (!ort->api) return fail(s, "onnxruntime %s does not speak version %d of its C API", s->version, API_VERSION);
  return check(s, CALL(ort, CreateEnv, LOG_ERROR, "handset", &ort->environment), "environment");
}

/* The first model of a process waits until all kernels are registered, for as long as ten small models take. */
static void ort_warm_up(struct session *s) {
  struct ort *ort = s->state;
  void *options, *session;
  if (make_options(s, 1, &options)) return;
  OrtStatus *status = CALL(ort, CreateSessionFromArray, ort->environment, tiny_model, sizeof tiny_model - 1, options,
                           &session);
  if (status) RELEASE(ort, ReleaseStatus, status);
  else RELEASE(ort, ReleaseSession, session);
  RELEASE(ort, ReleaseSessionOptions, options);
}

static int ort_load(struct session *s) {
  enum { DEVICE_ALLOCATOR = 0, MEMORY_DEFAULT = 0 };
  const struct job_case *spec = s->spec;
  struct ort *ort = s->state;
  void *options;
  if (make_options(s, spec->threads, &options)) return -1;
  if (spec->optimized_model &&
      check(s, CALL(ort, SetOptimizedModelFilePath, options, spec->optimized_model), "optimised model")) return -1;
  if (spec->profile && check(s, CALL(ort, EnableProfiling, options, spec->profile_prefix), "profiler")) return -1;
  if (check(s, CALL(ort, CreateSession, ort->environment, spec->model, options, &ort->session), "loading")) return -1;
  if (check(s, CALL(ort, GetAllocatorWithDefaultOptions, &ort->allocator), "allocator")) return -1;
  if (check(s, CALL(ort, CreateCpuMemoryInfo, DEVICE_ALLOCATOR, MEMORY_DEFAULT, &ort->memory), "memory")) return -1;

  size_t inputs, outputs;
  if (check(s, CALL(ort, SessionGetInputCount, ort->session, &inputs), "inputs")) return -1;
  if (check(s, CALL(ort, SessionGetOutputCount, ort->session, &outputs), "outputs")) return -1;
  if (inputs > MAX_TENSORS || outputs > MAX_TENSORS) return fail(s, "more than %d inputs or outputs", MAX_TENSORS);
  for (size_t i = 0; i < inputs; i++)
    if (load_input(s, i)) return -1;
  for (size_t i = 0; i < outputs; i++) {
    char *name;
    if (check(s, CALL(ort, SessionGetOutputName, ort->session, i, ort->allocator, &name), "output name")) return -1;
    ort->output_names[i] = name;
    snprintf(s->outputs[i].name, sizeof s->outputs[i].name, "%s", name);
  }
  s->input_count = (int)inputs;
  s->output_count = (int)outputs;
  return 0;
}

static int ort_upload(struct session *s) { return (void)s, 0; }   /* its tensors are views of inputs[].data */

static int ort_run(struct session *s) {
  struct ort *ort = s->state;
  OrtStatus *status = CALL(ort, Run, ort->session, NULL, ort->input_names, (const void *const *)ort->input_values,
                           (size_t)s->input_count, ort->output_names, (size_t)s->output_count, ort->output_values);
  return status ? check(s, status, "inference") : 0;
}

/* onnxruntime allocates the outputs of a run. They are read where a case asks for them and freed before the next. */
static int ort_after_run(struct session *s) {
  struct ort *ort = s->state;
  for (int i = 0; i < s->output_count; i++) {
    struct tensor *tensor = &s->outputs[i];
    if (s->spec->output) {
      void *info, *data;
      if (check(s, CALL(ort, GetTensorTypeAndShape, ort->output_values[i], &info), "output type")) return -1;
      if (describe(s, info, tensor)) return -1;
      RELEASE(ort, ReleaseTensorTypeAndShapeInfo, info);
      if (check(s, CALL(ort, GetTensorMutableData, ort->output_values[i], &data), "output")) return -1;
      free(tensor->data);
      if (!(tensor->data = malloc(tensor->bytes + 1))) return fail(s, "no memory for output %s", tensor->name);
      memcpy(tensor->data, data, tensor->bytes);
    }
    RELEASE(ort, ReleaseValue, ort->output_values[i]);
    ort->output_values[i] = NULL;
  }
  return 0;
}

static int ort_finish(struct session *s, char *profile_path, size_t size) {
  struct ort *ort = s->state;
  char *path = NULL;
  *profile_path = 0;
  if (!s->spec->profile) return 0;
  if (check(s, CALL(ort, SessionEndProfiling, ort->session, ort->allocator, &path), "profile")) return -1;
  snprintf(profile_path, size, "%s", path);
  return 0;
}

const struct runtime ort_runtime = {"onnxruntime", ort_open,      ort_warm_up, ort_load,
                                    ort_upload,    ort_run,       ort_after_run, NULL, ort_finish};
