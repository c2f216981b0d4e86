/* One worker as the supervisor sees it: a process that is asked over one pipe and answers over another. It may crash,
 * hang or say nothing: then its case is lost, the results say why, and nothing else happens. */
#include "runner.h"

enum { POLL_MS = 500 };

volatile sig_atomic_t stopped;

/* 1: `fd` can be read; 0: not before the deadline; -1: stopped. Whoever waits for our progress may have gone: what nobody
 * waits for must not disturb the next one. */
int wait_readable(int fd, int64_t deadline_ns) {
  for (;;) {
    struct pollfd ready[2] = {{.fd = fd, .events = POLLIN}, {.fd = 1}};
    int64_t left_ms = (deadline_ns - now_ns()) / 1000000 + 1;
    if (stopped) return -1;
    if (left_ms <= 0) return 0;
    if (poll(ready, 2, left_ms > POLL_MS ? POLL_MS : (int)left_ms) <= 0) continue;
    if (ready[0].revents) return 1;
    if (ready[1].revents & (POLLERR | POLLHUP)) stopped = SIGPIPE;
  }
}

/* The status that it ended with. It is dead or has nothing to say any more: one that only closed its pipe is killed, and
 * to be killed changes nothing for one that is dead. */
static int reap(struct child *c) {
  int status = SIGKILL;
  c->alive = 0;
  if (c->nursery) {
    status = nursery_reap(c->nursery, c->pid);
  } else {
    kill(c->pid, SIGKILL);
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR) continue;
  }
  close(c->commands);
  close(c->answers);
  return status;
}

/* The worker ended without an answer: say how. */
static void post_mortem(struct child *c, const char *doing) {
  int status = reap(c);
  char why[160];
  if (WIFSIGNALED(status))
    snprintf(why, sizeof why, "killed by signal %d (%s) while %s", WTERMSIG(status), strsignal(WTERMSIG(status)), doing);
  else if (WEXITSTATUS(status) == 71) snprintf(why, sizeof why, "out of memory while %s", doing);
  else snprintf(why, sizeof why, "ended with status %d while %s", WEXITSTATUS(status), doing);
  results_failure(c->spec, doing, why, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static void give_up(struct child *c, const char *doing, int64_t limit_ns) {
  char why[160];
  reap(c);
  snprintf(why, sizeof why, "no answer within %.1f s while %s", (double)limit_ns / 1e9, doing);
  results_failure(c->spec, doing, why, SIGKILL);
}

/* Moves complete lines to the results. 1: the closing line came; 0: more to come; -1: the worker has failed. */
static int take_lines(struct child *c) {
  size_t begin = 0;
  int outcome = 0;
  for (size_t i = 0; i < c->pending.length && !outcome; i++) {
    if (c->pending.text[i] != '\n') continue;
    char *line = c->pending.text + begin;
    if (*line == '=') {
      long long samples = 0, timed_ns = 0;
      sscanf(line, "=%lld %lld", &samples, &timed_ns);
      c->samples = samples;
      c->timed_ns = timed_ns;
      outcome = 1;
    } else if (*line == '!') {
      outcome = -1;
    } else {
      results_write(line, i + 1 - begin);
    }
    begin = i + 1;
  }
  memmove(c->pending.text, c->pending.text + begin, c->pending.length - begin);
  c->pending.length -= begin;
  return outcome;
}

int child_await(struct child *c, const char *doing, int64_t limit_ns) {
  int64_t deadline_ns = now_ns() + limit_ns;
  char buffer[65536];
  while (c->alive) {
    int outcome = take_lines(c);   /* it may have come together with the answer before it */
    if (outcome < 0) reap(c);
    if (outcome) return outcome > 0 ? 0 : -1;
    int ready = wait_readable(c->answers, deadline_ns);
    if (ready < 0) return -1;
    if (!ready) return give_up(c, doing, limit_ns), -1;
    ssize_t size = read(c->answers, buffer, sizeof buffer);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return post_mortem(c, doing), -1;
    line_add(&c->pending, "%.*s", (int)size, buffer);
  }
  return -1;
}

int child_ask(struct child *c, char command, const char *doing, int64_t limit_ns) {
  if (!c->alive) return -1;
  if (write_all(c->commands, &command, 1)) return post_mortem(c, doing), -1;
  return child_await(c, doing, limit_ns);
}

void child_start(struct child *c, const struct job *job, const struct child *group, int running) {
  int commands[2], answers[2];
  pid_t self = getpid();
  if (pipe2(commands, O_CLOEXEC)) return results_failure(c->spec, "starting", strerror(errno), 0);
  if (pipe2(answers, O_CLOEXEC)) {
    results_failure(c->spec, "starting", strerror(errno), 0);
    close(commands[0]), close(commands[1]);
    return;
  }
  c->nursery = nursery_find(job, c->spec);
  c->pid = c->nursery ? nursery_fork(c->nursery, job, c->spec, commands[0], answers[1]) : -1;
  if (c->pid < 0) {
    c->nursery = NULL;
    c->pid = fork();
  }
  if (!c->pid) {
    for (int i = 0; i < running; i++)
      if (group[i].alive) close(group[i].commands), close(group[i].answers);
    close(commands[1]);
    close(answers[0]);
    worker_main(job, c->spec, commands[0], answers[1], self);
  }
  if (c->pid < 0) results_failure(c->spec, "starting", strerror(errno), 0);
  close(commands[0]);
  close(answers[1]);
  c->commands = commands[1];
  c->answers = answers[0];
  c->alive = c->pid > 0;
  if (!c->alive) close(c->commands), close(c->answers);
  else write_all(c->commands, c->spec->output ? "LI" : "LW", 2);   /* at once: it need not wait for us in between */
}

void child_end(struct child *c) {
  if (c->alive) reap(c);
  free(c->pending.text);
}
