/* The supervisor: one worker process a case, the cases of a group in turn, results written line by line.
 *
 * usage: handset-runner JOB     exit status: 0 done (single cases may have failed), 2 bad job, 74 cannot write, 130 stopped
 */
#include "runner.h"

static void on_stop(int signal) { stopped = signal; }

/* A line of progress, for whoever wants to see it: left out while nobody takes them, so that a link that hangs does not
 * hold up what is measured. Each says all of its case so far. */
static void say(const struct child *c) {
  struct line line = {0};
  struct pollfd ready = {.fd = 1, .events = POLLOUT};
  line_add(&line, "case %s samples %lld timed_ns %lld alive %d\n", c->spec->id, (long long)c->samples,
           (long long)c->timed_ns, c->alive);
  if (poll(&ready, 1, 0) > 0 && write_all(1, line.text, line.length)) stopped = SIGPIPE;
  free(line.text);
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
static void run_group(const struct job *job, struct child *children, int count) {
  for (int i = 0; i < count && !stopped; i++) nursery_find(job, children[i].spec);   /* before there is any worker */
  for (int i = 0; i < count && !stopped; i++) {
    struct child *c = &children[i];
    child_start(c, job, children, i);
    child_await(c, "loading", c->spec->limit_ns);
    if (c->spec->output) child_await(c, "inferring", c->spec->limit_ns);
    else child_await(c, "warming up", block_limit_ns(c->spec, c->spec->warmup_samples, c->spec->warmup_ns));
    say(c);
    results_between_blocks();
  }
  for (int round = 0, active = 1; active && !stopped; round++) {
    active = 0;
    for (int i = 0; i < count && !stopped; i++) {
      struct child *c = &children[(i + round) % count];
      if (!wants_more(c)) continue;
      child_ask(c, 'B', "sampling", block_limit_ns(c->spec, c->spec->block_samples, c->spec->block_ns));
      say(c);
      results_between_blocks();
      active |= wants_more(c);
    }
  }
  for (int i = 0; i < count; i++) {
    if (!stopped) child_ask(&children[i], 'E', "ending", children[i].spec->limit_ns);
    child_end(&children[i]);
  }
}

static int group_end(const struct job *job, int begin) {
  int end = begin;
  while (end < job->case_count && job->cases[end].group == job->cases[begin].group) end++;
  return end;
}

/* The cases of a group are loaded at the same time, and each holds two files open. -1: that is more than we may have. */
static int allow_open_files(const struct job *job, const char *path) {
  enum { OTHERS = 32 };
  struct rlimit limit;
  int largest = 0, group = 0;
  for (int begin = 0, end; begin < job->case_count; begin = end) {
    end = group_end(job, begin);
    if (end - begin > largest) largest = end - begin, group = job->cases[begin].group;
  }
  rlim_t needed = (rlim_t)largest * 2 + OTHERS;
  if (getrlimit(RLIMIT_NOFILE, &limit) || needed <= limit.rlim_cur) return 0;
  if (needed <= limit.rlim_max) {
    limit.rlim_cur = needed;
    if (!setrlimit(RLIMIT_NOFILE, &limit)) return 0;
  }
  fprintf(stderr,
          "handset-runner: %s: group %d has %d cases, more than the %d that may be loaded together with %lld open files\n",
          path, group, largest, (int)((limit.rlim_max - OTHERS) / 2), (long long)limit.rlim_max);
  return -1;
}

int main(int argc, char **argv) {
  struct job job;
  char why[512];
  for (int fd = 0; fd >= 0 && fd < 3;) fd = open("/dev/null", O_RDWR);   /* 0, 1 and 2 are nothing else, closed or not */
  if (argc != 2) return fprintf(stderr, "usage: handset-runner JOB\n"), 2;
  if (job_read(argv[1], &job, why, sizeof why)) return fprintf(stderr, "handset-runner: %s\n", why), 2;
  if (allow_open_files(&job, argv[1])) return 2;
  struct sigaction action = {.sa_handler = on_stop};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGHUP, &action, NULL);
  signal(SIGPIPE, SIG_IGN);
  results_open(&job);

  struct child *children = calloc((size_t)job.case_count, sizeof *children);
  if (!children) return 71;
  for (int begin = 0, end; begin < job.case_count && !stopped; begin = end) {
    end = group_end(&job, begin);
    for (int i = begin; i < end; i++) children[i].spec = &job.cases[i];
    run_group(&job, children + begin, end - begin);
  }
  nursery_end_all();
  return results_close();
}
