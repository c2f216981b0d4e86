/* The supervisor: one worker process a case, the cases of a group in turn, results written line by line.
 *
 * usage: handset-runner JOB     exit status: 0 done (single cases may have failed), 2 bad job, 74 cannot write, 130 stopped
 */
#include "runner.h"

struct child {
  const struct job_case *spec;
  pid_t pid;
  int commands, answers;
  int64_t samples, timed_ns;
  int alive;
  struct line pending;             /* bytes of an answer that is not complete yet */
};

static volatile sig_atomic_t stopped;
static int results;

static void on_stop(int signal) { stopped = signal; }

static void die_unwritten(void) {
  fprintf(stderr, "handset-runner: cannot write the results: %s\n", strerror(errno));
  exit(74);                        /* PR_SET_PDEATHSIG takes the workers along */
}

static void write_results(const char *text, size_t size) {
  if (write_all(results, text, size)) die_unwritten();
}

static void report_failure(struct child *c, const char *doing, const char *why, int signal) {
  struct line line = {0};
  line_add(&line, "{\"type\":\"failed\",\"case\":");
  line_string(&line, c->spec->id);
  line_add(&line, ",\"signal\":%d,\"stage\":\"%s\",\"why\":", signal, doing);
  line_string(&line, why);
  line_add(&line, "}\n");
  write_results(line.text, line.length);
  free(line.text);
}

static void bury(struct child *c) {
  close(c->commands);
  close(c->answers);
  c->alive = 0;
}

/* The worker ended without an answer: say how. */
static void post_mortem(struct child *c, const char *doing) {
  int status = 0;
  char why[160];
  waitpid(c->pid, &status, 0);
  if (WIFSIGNALED(status))
    snprintf(why, sizeof why, "killed by signal %d (%s) while %s", WTERMSIG(status), strsignal(WTERMSIG(status)), doing);
  else if (WEXITSTATUS(status) == 71) snprintf(why, sizeof why, "out of memory while %s", doing);
  else snprintf(why, sizeof why, "ended with status %d while %s", WEXITSTATUS(status), doing);
  report_failure(c, doing, why, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
  bury(c);
}

static void give_up(struct child *c, const char *doing, int64_t limit_ns) {
  char why[160];
  kill(c->pid, SIGKILL);
  waitpid(c->pid, NULL, 0);
  snprintf(why, sizeof why, "no answer within %.1f s while %s", (double)limit_ns / 1e9, doing);
  report_failure(c, doing, why, SIGKILL);
  bury(c);
}

/* Moves complete lines to the results. 1: the closing line came; 0: more to come; -1: the worker has failed. */
static int take_lines(struct child *c) {
  size_t begin = 0;
  int outcome = 0;
  for (size_t i = 0; i < c->pending.length && !outcome; i++) {
    if (c->pending.text[i] != '\n') continue;
    char *line = c->pending.text + begin;
    if (*line == '=') {
      long long samples, timed_ns;
      sscanf(line, "=%lld %lld", &samples, &timed_ns);
      c->samples = samples;
      c->timed_ns = timed_ns;
      outcome = 1;
    } else if (*line == '!') {
      outcome = -1;
    } else {
      write_results(line, i + 1 - begin);
    }
    begin = i + 1;
  }
  memmove(c->pending.text, c->pending.text + begin, c->pending.length - begin);
  c->pending.length -= begin;
  return outcome;
}

/* One command to a worker and its whole answer. 0, or -1 where the case is lost (the results say why). */
static int ask(struct child *c, char command, const char *doing, int64_t limit_ns) {
  int64_t deadline = now_ns() + limit_ns;
  char buffer[65536];
  if (!c->alive) return -1;
  if (write_all(c->commands, &command, 1)) return post_mortem(c, doing), -1;
  for (;;) {
    struct pollfd ready = {.fd = c->answers, .events = POLLIN};
    int64_t left_ms = (deadline - now_ns()) / 1000000 + 1;
    if (stopped) return -1;
    if (left_ms <= 0) return give_up(c, doing, limit_ns), -1;
    if (poll(&ready, 1, left_ms > 500 ? 500 : (int)left_ms) <= 0) continue;
    ssize_t size = read(c->answers, buffer, sizeof buffer);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return post_mortem(c, doing), -1;
    line_add(&c->pending, "%.*s", (int)size, buffer);
    int outcome = take_lines(c);
    if (outcome > 0) return 0;
    if (outcome < 0) {
      waitpid(c->pid, NULL, 0);
      bury(c);
      return -1;
    }
  }
}

static void start_worker(const struct job *job, struct child *c, struct child *all, int count, int64_t epoch_ns) {
  int commands[2], answers[2];
  if (pipe2(commands, O_CLOEXEC) || pipe2(answers, O_CLOEXEC) || (c->pid = fork()) < 0) {
    report_failure(c, "starting", strerror(errno), 0);
    return;
  }
  if (!c->pid) {
    signal(SIGINT, SIG_IGN);       /* Ctrl-C reaches the whole group; the supervisor decides */
    signal(SIGTERM, SIG_DFL);
    for (int i = 0; i < count; i++)
      if (all[i].alive) close(all[i].commands), close(all[i].answers);
    close(commands[1]);
    close(answers[0]);
    worker_main(job, c->spec, commands[0], answers[1], epoch_ns);
  }
  close(commands[0]);
  close(answers[1]);
  c->commands = commands[1];
  c->answers = answers[0];
  c->alive = 1;
}

static void say(const struct child *c) {
  printf("case %s samples %lld timed_ns %lld alive %d\n", c->spec->id, (long long)c->samples, (long long)c->timed_ns,
         c->alive);
  if (fflush(stdout)) stopped = SIGPIPE;  /* whoever asked was killed: what nobody waits for must not disturb the next */
}

static int wants_more(const struct child *c) {
  const struct job_case *spec = c->spec;
  if (!c->alive || spec->output || c->samples >= spec->max_samples) return 0;
  return c->samples < spec->min_samples || c->timed_ns < spec->max_ns;
}

/* How long a block may take: `limit_ns` is for one inference, and a block has `samples` of them at least. */
static int64_t block_limit_ns(const struct job_case *spec, int64_t samples, int64_t duration_ns) {
  return spec->limit_ns * (samples < 1 ? 1 : samples > 1 << 14 ? 1 << 14 : samples) + duration_ns;
}

/* All cases of a group are loaded and warm before the first sample; then they take turns, the order rotating, so that
 * a slow minute falls on all of them. Only one worker runs at any time. */
static void run_group(const struct job *job, struct child *children, int count, int64_t epoch_ns) {
  for (int i = 0; i < count && !stopped; i++) {
    struct child *c = &children[i];
    start_worker(job, c, children, i, epoch_ns);
    ask(c, 'L', "loading", c->spec->limit_ns);
    if (c->spec->output) ask(c, 'I', "inferring", c->spec->limit_ns);
    else ask(c, 'W', "warming up", block_limit_ns(c->spec, c->spec->warmup_samples, c->spec->warmup_ns));
    say(c);
  }
  for (int round = 0, active = 1; active && !stopped; round++) {
    active = 0;
    for (int i = 0; i < count && !stopped; i++) {
      struct child *c = &children[(i + round) % count];
      if (!wants_more(c)) continue;
      ask(c, 'B', "sampling", block_limit_ns(c->spec, c->spec->block_samples, c->spec->block_ns));
      say(c);
      active |= wants_more(c);
    }
  }
  for (int i = 0; i < count; i++) {
    struct child *c = &children[i];
    if (!stopped) ask(c, 'E', "ending", c->spec->limit_ns);
    if (c->alive) {
      if (stopped) kill(c->pid, SIGKILL);
      waitpid(c->pid, NULL, 0);
      bury(c);
    }
    free(c->pending.text);
  }
}

int main(int argc, char **argv) {
  struct job job;
  char why[512];
  if (argc != 2) return fprintf(stderr, "usage: handset-runner JOB\n"), 2;
  if (job_read(argv[1], &job, why, sizeof why)) return fprintf(stderr, "handset-runner: %s\n", why), 2;
  results = open(job.output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (results < 0) die_unwritten();
  struct sigaction action = {.sa_handler = on_stop};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGHUP, &action, NULL);
  signal(SIGPIPE, SIG_IGN);

  int64_t epoch_ns = now_ns();
  struct child *children = calloc((size_t)job.case_count, sizeof *children);
  if (!children) return 71;
  for (int begin = 0, end; begin < job.case_count && !stopped; begin = end) {
    for (end = begin; end < job.case_count && job.cases[end].group == job.cases[begin].group; end++)
      children[end].spec = &job.cases[end];
    run_group(&job, children + begin, end - begin, epoch_ns);
  }
  char last[96];
  int size = snprintf(last, sizeof last, "{\"type\":\"end\",\"stopped\":%d,\"elapsed_ns\":%lld}\n", (int)stopped,
                      (long long)(now_ns() - epoch_ns));
  write_results(last, (size_t)size);
  if (close(results)) die_unwritten();
  return stopped ? 130 : 0;
}
