/* handset-runner: opens a runtime, times it, prints raw samples. It decides nothing and computes no statistics.
 *
 *   main.c    one supervisor: reads the job, has the cases of a group take turns, stops when it is told to
 *   job.c     the job file
 *   child.c   one worker as the supervisor sees it: starts it, asks it, survives its death
 *   nursery.c a process that has a runtime open and forks the workers that use it
 *   worker.c  one case in its own process: load, warm up, blocks of samples, one inference on given inputs
 *   results.c the file of results; what the device says of itself between blocks
 *   canary.c  the fixed piece of work timed before every sample
 *   ort.c     onnxruntime through its C API table;  litert.c  LiteRT through its C API
 *   tflite.c  TensorFlow Lite through its C API, as its Android library has it
 *   lines.c   JSON lines and small system readings
 *   platform.h, bionic/   the C library's headers, and what stands in for them and for the NDK on Android
 */
#ifndef HANDSET_RUNNER_H
#define HANDSET_RUNNER_H

#include "platform.h"

enum { MAX_CASES = 1 << 16, MAX_WATCHES = 64, MAX_TENSORS = 64, MAX_RANK = 8 };

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
  int64_t watch_ns;                /* the watched files are read between blocks, not more often than that */
  int watch_count;
  char *watch[MAX_WATCHES];
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
  int (*open)(struct session *);               /* the library, and what it does once a process; no model yet */
  void (*warm_up)(struct session *);           /* what else a process does only once, with its first model; or NULL */
  int (*load)(struct session *);               /* the model; leaves inputs[].data to be filled */
  int (*upload)(struct session *);             /* makes filled inputs the ones that run() reads */
  int (*run)(struct session *);                /* the timed call: nothing but one inference */
  int (*after_run)(struct session *);          /* makes outputs readable or frees them; not timed */
  int (*kernels)(struct session *, struct kernel_event **events, int *count); /* of the last run */
  int (*finish)(struct session *, char *profile_path, size_t size);
};

extern const struct runtime ort_runtime, litert_runtime, tflite_runtime;
const struct runtime *find_runtime(const char *name);   /* NULL where there is none of that name */
int fail(struct session *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- lines.c ---- */
struct line { char *text; size_t length, capacity; };
void line_add(struct line *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void line_string(struct line *, const char *text);            /* quoted and escaped */
void line_numbers(struct line *, const char *key, const int64_t *values, size_t count);
int write_all(int fd, const void *data, size_t size);          /* 0, or -1 with errno */
ssize_t read_text(const char *path, char *text, size_t size);  /* the beginning of a file, terminated; -1 */
int64_t now_ns(void);              /* CLOCK_MONOTONIC_RAW */
int64_t clock_khz(int core);       /* -1 where the system does not say */
int64_t status_number(const char *key);        /* of this process, from /proc/self/status; -1 where it is not said */

/* ---- worker.c ---- */
/* The parent's death is ours, and its alone: a whole group of processes may be told to stop, by Ctrl-C for one, and it is
 * the supervisor that decides. */
void live_with_parent(pid_t parent);
/* Limits, canary and runtime of a case; a process that is forked after it finds them ready. 0, or -1. */
int worker_open(const struct job *, const struct job_case *);
void worker_warm_up(void);
/* Serves the one-letter commands on `commands` until it closes; writes JSON lines and a closing "=" line each. */
void worker_main(const struct job *, const struct job_case *, int commands, int results, pid_t parent)
    __attribute__((noreturn));

/* ---- child.c ---- */
struct child {
  const struct job_case *spec;
  struct nursery *nursery;         /* that forked it; NULL: we did */
  pid_t pid;
  int commands, answers;
  int64_t samples, timed_ns;
  int alive;
  struct line pending;             /* bytes of an answer that is not complete yet */
};

extern volatile sig_atomic_t stopped;          /* the signal that stopped us; SIGPIPE where nobody listens any more */
/* Begins to load and to warm up, or to infer: two answers. `group`: the cases that are loaded together, of which the first
 * `running` may run already. */
void child_start(struct child *, const struct job *, const struct child *group, int running);
int child_await(struct child *, const char *doing, int64_t limit_ns);           /* -1: lost; the results say why */
int child_ask(struct child *, char command, const char *doing, int64_t limit_ns);
int wait_readable(int fd, int64_t deadline_ns);
void child_end(struct child *);                /* it is gone afterwards, whatever it was doing */

/* ---- nursery.c ---- */
/* The one for such a case, prepared where several cases want it; NULL where there is none or it is of no use. */
struct nursery *nursery_find(const struct job *, const struct job_case *);
pid_t nursery_fork(struct nursery *, const struct job *, const struct job_case *, int commands, int answers);  /* or -1 */
int nursery_reap(struct nursery *, pid_t);     /* kills it, if need be: the status that it ended with */
void nursery_end_all(void);

/* ---- results.c ---- */
void results_open(const struct job *);
void results_write(const char *text, size_t size);             /* whole lines; ends the runner where it cannot */
void results_failure(const struct job_case *, const char *doing, const char *why, int signal);
void results_between_blocks(void);             /* what is due: watched files, data to the disk */
int results_close(void);                       /* with the end line; the runner's exit status */
int64_t epoch_ns(void);                        /* when the results began; times in them count from then */

/* ---- canary.c ---- */
int canary_init(void);             /* -1: no memory */
int64_t canary_run(void);          /* ns */
const char *canary_kind(void);

#endif
