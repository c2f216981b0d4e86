/* One case in a process of its own, so that a crash, a hang or a hunger for memory costs this case and no other.
 *
 * Commands, one byte each: L load, W warm up, B one block of samples, I inference on given inputs, E end.
 * Answers: JSON lines, then "=SAMPLES NANOSECONDS" (all samples so far and the time inside them), or "!" after a failure. */
#include "runner.h"

enum { MAX_BLOCK = 16384 };

static const struct runtime *const runtimes[] = {&ort_runtime, &litert_runtime, &tflite_runtime};

struct worker {
  const struct job *job;
  const struct job_case *spec;
  const struct runtime *runtime;
  struct session session;
  struct line line;
  int results, opened;
  int64_t open_ns, samples, timed_ns, block;
  int64_t starts[MAX_BLOCK], canaries[MAX_BLOCK], times[MAX_BLOCK], preempted[MAX_BLOCK];
  uint64_t kernel_list_hash;
  int64_t kernel_list;
};

/* One a process: not cleared for a worker, because what a nursery has opened is in it. */
static struct worker w;

const struct runtime *find_runtime(const char *name) {
  for (size_t i = 0; i < sizeof runtimes / sizeof *runtimes; i++)
    if (!strcmp(runtimes[i]->name, name)) return runtimes[i];
  return NULL;
}

int fail(struct session *session, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(session->why, sizeof session->why, format, arguments);
  va_end(arguments);
  return -1;
}

static void send_line(struct worker *w) {
  line_add(&w->line, "\n");
  if (write_all(w->results, w->line.text, w->line.length)) _exit(74);
  w->line.length = 0;
}

static void begin_line(struct worker *w, const char *type) {
  line_add(&w->line, "{\"type\":\"%s\",\"case\":", type);
  line_string(&w->line, w->spec->id);
}

static void add_tensors(struct worker *w, const char *key, const struct tensor *tensors, int count) {
  line_add(&w->line, ",\"%s\":[", key);
  for (int i = 0; i < count; i++) {
    line_add(&w->line, "%s{\"name\":", i ? "," : "");
    line_string(&w->line, tensors[i].name);
    line_add(&w->line, ",\"bytes\":%zu,", tensors[i].bytes);
    line_numbers(&w->line, "shape", tensors[i].shape, (size_t)tensors[i].rank);
    line_add(&w->line, "}");
  }
  line_add(&w->line, "]");
}

static uint64_t affinity(void) {
  uint64_t mask = 0;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set)) return 0;
  for (int cpu = 0; cpu < 64; cpu++)
    if (CPU_ISSET(cpu, &set)) mask |= 1ull << cpu;
  return mask;
}

static int apply_limits(struct worker *w) {
  if (w->spec->cpu_mask) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int cpu = 0; cpu < 64; cpu++)
      if (w->spec->cpu_mask >> cpu & 1) CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
      return fail(&w->session, "cannot run on cpu mask 0x%llx: %s", (unsigned long long)w->spec->cpu_mask, strerror(errno));
  }
  if (w->spec->memory_bytes) {
    struct rlimit limit = {(rlim_t)w->spec->memory_bytes, (rlim_t)w->spec->memory_bytes};
    if (setrlimit(RLIMIT_AS, &limit)) return fail(&w->session, "cannot limit memory: %s", strerror(errno));
  }
  return 0;
}

/* Numbers in [0, 1) for floats, small ones for the rest: no denormals, no NaN, the same on every machine. */
static void fill_inputs(struct worker *w) {
  uint64_t state = w->job->seed * 2654435761u + 88172645463325252ull;
  for (int i = 0; i < w->session.input_count; i++) {
    struct tensor *tensor = &w->session.inputs[i];
    for (size_t k = 0; k < tensor->bytes; k += tensor->is_float ? 4 : 1) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      if (tensor->is_float) *(float *)((char *)tensor->data + k) = (float)(state >> 40) / 16777216.0f;
      else ((unsigned char *)tensor->data)[k] = (unsigned char)(state >> 58);
    }
  }
}

int worker_open(const struct job *job, const struct job_case *spec) {
  w.job = job;
  w.spec = w.session.spec = spec;
  w.runtime = find_runtime(spec->runtime);
  if (apply_limits(&w)) return -1;
  if (job->canary && canary_init()) return fail(&w.session, "no memory for the canary");
  int64_t start = now_ns();
  if (w.runtime->open(&w.session)) return -1;
  w.open_ns = now_ns() - start;
  w.opened = 1;
  return 0;
}

void worker_warm_up(void) {
  if (w.runtime->warm_up) w.runtime->warm_up(&w.session);
}

static int load(struct worker *w) {
  if (!w->opened && worker_open(w->job, w->spec)) return -1;
  int64_t start = now_ns();
  if (w->runtime->load(&w->session)) return -1;
  int64_t load_ns = now_ns() - start;
  fill_inputs(w);
  if (w->runtime->upload(&w->session)) return -1;
  begin_line(w, "loaded");
  line_add(&w->line, ",\"open_ns\":%lld,\"load_ns\":%lld,\"version\":", (long long)w->open_ns, (long long)load_ns);
  line_string(&w->line, w->session.version);
  line_add(&w->line, ",\"cpu_mask\":\"0x%llx\",\"canary\":", (unsigned long long)affinity());
  line_string(&w->line, w->job->canary ? canary_kind() : "");
  add_tensors(w, "inputs", w->session.inputs, w->session.input_count);
  line_add(&w->line, "}");
  send_line(w);
  return 0;
}

/* The list of kernels is written once, and again only where a run's list differs from the last one. */
static int send_kernels(struct worker *w, int warmup, int64_t sample) {
  struct kernel_event *events;
  int count;
  if (w->runtime->kernels(&w->session, &events, &count)) return -1;
  if (warmup) return 0;            /* read all the same: that empties the profiler */
  uint64_t hash = 14695981039346656037ull;
  for (int i = 0; i < count; i++) {
    for (const char *c = events[i].name; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211ull;
    hash = (hash ^ (uint64_t)events[i].index) * 1099511628211ull;
  }
  if (!w->kernel_list || hash != w->kernel_list_hash) {
    w->kernel_list_hash = hash;
    begin_line(w, "kernel_list");
    line_add(&w->line, ",\"list\":%lld,\"kernels\":[", (long long)++w->kernel_list);
    for (int i = 0; i < count; i++) {
      line_add(&w->line, "%s{\"name\":", i ? "," : "");
      line_string(&w->line, events[i].name);
      line_add(&w->line, ",\"index\":%lld,\"kind\":%d}", (long long)events[i].index, events[i].type);
    }
    line_add(&w->line, "]}");
    send_line(w);
  }
  begin_line(w, "kernels");
  line_add(&w->line, ",\"list\":%lld,\"sample\":%lld,\"us\":[", (long long)w->kernel_list, (long long)sample);
  for (int i = 0; i < count; i++) line_add(&w->line, i ? ",%lld" : "%lld", (long long)events[i].elapsed_us);
  line_add(&w->line, "]}");
  send_line(w);
  return 0;
}

/* How often the kernel took a core away from us so far, all our threads together. */
static int64_t preemptions(void) {
  struct rusage usage;
  return getrusage(RUSAGE_SELF, &usage) ? -1 : usage.ru_nivcsw;
}

/* Samples until `duration_ns` is over and `at_least` were taken, at most `at_most`; no pause between them. */
static int block(struct worker *w, int warmup, int64_t duration_ns, int64_t at_least, int64_t at_most) {
  struct session *session = &w->session;
  size_t n = 0;
  int core = sched_getcpu();
  int64_t clock = clock_khz(core), begin = now_ns(), last_canary;
  if (at_most > MAX_BLOCK) at_most = MAX_BLOCK;
  while ((int64_t)n < at_most && ((int64_t)n < at_least || now_ns() - begin < duration_ns)) {
    w->canaries[n] = w->job->canary ? canary_run() : 0;
    int64_t before = preemptions(), start = now_ns();
    int failed = w->runtime->run(session);
    w->times[n] = now_ns() - start;
    w->preempted[n] = preemptions() - before;
    w->starts[n] = start - epoch_ns();
    if (failed || w->runtime->after_run(session)) return -1;
    w->timed_ns += w->times[n] + w->canaries[n];
    n++;
    if (w->spec->profile && w->runtime->kernels && send_kernels(w, warmup, w->samples + (int64_t)n - 1)) return -1;
  }
  last_canary = w->job->canary ? canary_run() : 0;
  w->samples += (int64_t)n;
  begin_line(w, "block");
  line_add(&w->line, ",\"block\":%lld,\"warmup\":%s,", (long long)w->block++, warmup ? "true" : "false");
  line_numbers(&w->line, "start_ns", w->starts, n);
  line_add(&w->line, ",");
  line_numbers(&w->line, "canary_ns", w->canaries, n);
  line_add(&w->line, ",");
  line_numbers(&w->line, "sample_ns", w->times, n);
  line_add(&w->line, ",");
  line_numbers(&w->line, "preempted", w->preempted, n);
  int core_after = sched_getcpu();
  line_add(&w->line, ",\"last_canary_ns\":%lld,\"core\":[%d,%d],\"clock_khz\":[%lld,%lld]}",
           (long long)last_canary, core, core_after, (long long)clock, (long long)clock_khz(core_after));
  send_line(w);
  return 0;
}

static int infer(struct worker *w) {
  struct session *session = &w->session;
  int in = open(w->spec->input, O_RDONLY | O_CLOEXEC);
  if (in < 0) return fail(session, "cannot open %s: %s", w->spec->input, strerror(errno));
  int out = open(w->spec->output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (out < 0) return fail(session, "cannot write %s: %s", w->spec->output, strerror(errno));
  int64_t inferences = 0;
  for (;; inferences++) {
    size_t got = 0;
    for (int i = 0; i < session->input_count; i++)
      for (size_t have = 0; have < session->inputs[i].bytes;) {
        ssize_t size = read(in, (char *)session->inputs[i].data + have, session->inputs[i].bytes - have);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return fail(session, "cannot read %s: %s", w->spec->input, strerror(errno));
        if (size == 0 && got == 0) goto done;
        if (size == 0) return fail(session, "%s ends inside an input", w->spec->input);
        have += (size_t)size;
        got += (size_t)size;
      }
    if (!got) goto done;
    if (w->runtime->upload(session) || w->runtime->run(session) || w->runtime->after_run(session)) return -1;
    for (int i = 0; i < session->output_count; i++)
      if (write_all(out, session->outputs[i].data, session->outputs[i].bytes))
        return fail(session, "cannot write %s: %s", w->spec->output, strerror(errno));
  }
done:
  close(in);
  if (close(out)) return fail(session, "cannot write %s: %s", w->spec->output, strerror(errno));
  begin_line(w, "inferred");
  line_add(&w->line, ",\"inferences\":%lld", (long long)inferences);
  add_tensors(w, "outputs", session->outputs, session->output_count);
  line_add(&w->line, "}");
  send_line(w);
  return 0;
}

static int finish(struct worker *w) {
  char profile[4096];
  if (w->runtime->finish(&w->session, profile, sizeof profile)) return -1;
  begin_line(w, "finished");
  struct rusage usage;
  int64_t peak_bytes = getrusage(RUSAGE_SELF, &usage) ? -1 : (int64_t)usage.ru_maxrss * 1024;
  line_add(&w->line, ",\"peak_memory_bytes\":%lld,\"profile\":", (long long)peak_bytes);
  line_string(&w->line, profile);
  line_add(&w->line, "}");
  send_line(w);
  return 0;
}

static int serve(struct worker *w, char command) {
  const struct job_case *spec = w->spec;
  switch (command) {
    case 'L': return load(w);
    case 'W': {
      int64_t before = w->timed_ns;
      if (block(w, 1, spec->warmup_ns, spec->warmup_samples, INT64_MAX)) return -1;
      w->timed_ns = before;        /* the budget is for samples */
      w->samples = 0;
      return 0;
    }
    case 'B': return block(w, 0, spec->block_ns, spec->block_samples, spec->max_samples - w->samples);
    case 'I': return infer(w);
    case 'E': return finish(w);
    default: return fail(&w->session, "unknown command %d", command);
  }
}

void live_with_parent(pid_t parent) {
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);   /* it died before it could take us along */
}

void worker_main(const struct job *job, const struct job_case *spec, int commands, int results, pid_t parent) {
  live_with_parent(parent);
  int log = spec->log ? open(spec->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
  if (log < 0) log = open("/dev/null", O_WRONLY | O_CLOEXEC);   /* stdout is the supervisor's progress */
  if (log >= 0) dup2(log, 1), dup2(log, 2);
  w.job = job;
  w.spec = w.session.spec = spec;
  w.results = results;
  char command;
  while (read(commands, &command, 1) == 1) {
    char answer[64] = "!\n";
    if (!serve(&w, command)) {
      snprintf(answer, sizeof answer, "=%lld %lld\n", (long long)w.samples, (long long)w.timed_ns);
    } else {
      w.line.length = 0;
      begin_line(&w, "failed");
      line_add(&w.line, ",\"signal\":0,\"why\":");
      line_string(&w.line, w.session.why);
      line_add(&w.line, "}");
      send_line(&w);
    }
    if (write_all(results, answer, strlen(answer)) || *answer == '!') break;
    if (command == 'E') break;
  }
  _exit(0);                        /* no destructors: a runtime that crashes while it is unloaded costs nothing */
}
