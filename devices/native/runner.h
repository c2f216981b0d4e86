/* handset-runner: opens a runtime, times it, prints raw samples. It decides nothing and computes no statistics.
 *
 *   main.c    one supervisor: reads the job, forks one worker a case, interleaves them, survives their deaths
 *   job.c     the job file
 *   worker.c  one case in its own process: load, warm up, blocks of samples, one inference on given inputs
 *   canary.c  the fixed piece of work timed before every sample
 *   ort.c     onnxruntime through its C API table;  litert.c  LiteRT through its C API
 *   tflite.c  TensorFlow Lite through its C API, as its Android library has it
 *   lines.c   JSON lines and small system readings
 *   platform.h, bionic/   the C library's headers, and what stands in for them and for the NDK on Android
 */
#ifndef HANDSET_RUNNER_H
#define HANDSET_RUNNER_H

#include "platform.h"

enum { MAX_CASES = 4096, MAX_TENSORS = 64, MAX_RANK = 8 };

/* ---- job.c ---- */
struct job_case {
  char *id, *model, *library;      /* library: the shared object that holds the runtime */
  char *input, *output;            /* inference on given inputs: raw tensors in, raw tensors out; no timing */
  char *optimized_model;           /* onnxruntime only: where it saves the graph it really runs */
  char *profile_prefix;            /* onnxruntime only: where its profiler writes */
  char *log;                       /* what the runtime prints goes here, not into the results */
  char *runtime;                   /* "onnxruntime", "litert" or "tflite" */
  char *delegate;                  /* litert, tflite: "xnnpack" or "builtin" */
  int group;                       /* cases of one group are loaded together and interleaved */
  int threads;
  int profile;                     /* 1: the runtime's per-kernel profiler is on */
  uint64_t cpu_mask;               /* 0: leave it */
  int64_t warmup_ns, warmup_samples, max_ns, min_samples, max_samples, block_ns, block_samples;
  int64_t limit_ns;                /* a load, or an inference, that takes longer has hung */
  int64_t memory_bytes;            /* 0: no limit of ours */
};

struct job {
  char *output;
  uint64_t seed;
  int canary;                      /* 0 switches the canary off, for comparing only */
  int case_count;
  struct job_case *cases;
};

/* Returns 0, or -1 with a line in `why`. */
int job_read(const char *path, struct job *job, char *why, size_t why_size);

/* ---- runtimes ---- */
struct tensor {
  char name[256];
  void *data;                      /* an input's buffer; an output's after a run, valid until the next one */
  size_t bytes;
  int type;                        /* the runtime's own number */
  int is_float;
  int rank;
  int64_t shape[MAX_RANK];
};

struct kernel_event {
  const char *name;                /* owned by the runtime, valid until the next run */
  int64_t start_us, elapsed_us;
  int64_t index;
  int type;                        /* 2: an op of the interpreter, 8: an op inside a delegate */
};

struct session {
  const struct job_case *spec;
  void *state;
  int input_count, output_count;
  struct tensor inputs[MAX_TENSORS], outputs[MAX_TENSORS];
  char version[64];
  char why[1024];                  /* the reason of the last failure */
};

struct runtime {
  const char *name;
  int (*load)(struct session *);               /* leaves inputs[].data to be filled */
  int (*upload)(struct session *);             /* makes filled inputs the ones that run() reads */
  int (*run)(struct session *);                /* the timed call: nothing but one inference */
  int (*after_run)(struct session *);          /* makes outputs readable or frees them; not timed */
  int (*kernels)(struct session *, struct kernel_event **events, int *count); /* of the last run */
  int (*finish)(struct session *, char *profile_path, size_t size);
};

extern const struct runtime ort_runtime, litert_runtime, tflite_runtime;
const struct runtime *find_runtime(const char *name);   /* NULL where there is none of that name */
int fail(struct session *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- worker.c ---- */
/* Serves the one-letter commands on `commands` until it closes; writes JSON lines and a closing "=" line each. */
void worker_main(const struct job *, const struct job_case *, int commands, int results, int64_t epoch_ns);

/* ---- canary.c ---- */
int canary_init(void);             /* -1: no memory */
int64_t canary_run(void);          /* ns */
const char *canary_kind(void);

/* ---- lines.c ---- */
struct line { char *text; size_t length, capacity; };
void line_add(struct line *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void line_string(struct line *, const char *text);            /* quoted and escaped */
void line_numbers(struct line *, const char *key, const int64_t *values, size_t count);
int write_all(int fd, const void *data, size_t size);          /* 0, or -1 with errno */
int64_t now_ns(void);              /* CLOCK_MONOTONIC_RAW */
int64_t clock_khz(int core);       /* -1 where the system does not say */
int64_t peak_memory_bytes(void);   /* VmHWM, -1 where the system does not say */

#endif
