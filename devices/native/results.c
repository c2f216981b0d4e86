/* The file of results: whole JSON lines, each written at once; and what the device says of itself between blocks.
 *
 * A line is in the system's hands when results_write returns, so that it survives us. So that it survives the device
 * too, data goes to the disk every two seconds: a case that was lost in them is measured again in less time than a
 * flush after each of a thousand short cases would take (5 to 30 ms each on a phone). */
#include "runner.h"

enum { WATCHED_BYTES = 64 };
static const int64_t SYNC_NS = 2000000000;

static const struct job *job;
static int fd, unsynced;
static int64_t epoch, watched_at, synced_at;

int64_t epoch_ns(void) { return epoch; }

static void die_unwritten(void) {
  fprintf(stderr, "handset-runner: cannot write the results: %s\n", strerror(errno));
  exit(74);                        /* PR_SET_PDEATHSIG takes the workers along */
}

void results_write(const char *text, size_t size) {
  if (write_all(fd, text, size)) die_unwritten();
  unsynced = 1;
}

static void write_line(struct line *line) {
  line_add(line, "}\n");
  results_write(line->text, line->length);
  free(line->text);
}

static void sync_data(void) {
  if (unsynced && fdatasync(fd) && errno != EINVAL && errno != EINTR) die_unwritten();   /* EINVAL: no file on a disk */
  unsynced = 0;
  synced_at = now_ns();
}

static void watch(void) {
  struct line line = {0};
  char text[WATCHED_BYTES + 1];
  watched_at = now_ns();
  line_add(&line, "{\"type\":\"watch\",\"at_ns\":%lld,\"values\":[", (long long)(watched_at - epoch));
  for (int i = 0; i < job->watch_count; i++) {
    if (i) line_add(&line, ",");
    if (read_text(job->watch[i], text, sizeof text) < 0) {
      line_add(&line, "null");
      continue;
    }
    char *end = strchr(text, '\n');
    if (end) *end = 0;
    line_string(&line, text);
  }
  line_add(&line, "]");
  write_line(&line);
}

void results_open(const struct job *of) {
  struct timespec t = {0, 0};
  struct line line = {0};
  job = of;
  fd = open(job->output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) die_unwritten();
  epoch = synced_at = now_ns();
  clock_gettime(CLOCK_REALTIME, &t);
  line_add(&line, "{\"type\":\"begin\",\"monotonic_raw_ns\":%lld,\"realtime_ns\":%lld,\"watched\":%d", (long long)epoch,
           (long long)t.tv_sec * 1000000000 + t.tv_nsec, job->watch_count);
  write_line(&line);
  if (job->watch_count) watch();
}

void results_between_blocks(void) {
  int64_t now = now_ns();
  if (job->watch_count && now - watched_at >= job->watch_ns) watch();
  if (now - synced_at >= SYNC_NS) sync_data();
}

void results_failure(const struct job_case *spec, const char *doing, const char *why, int signal) {
  struct line line = {0};
  line_add(&line, "{\"type\":\"failed\",\"case\":");
  line_string(&line, spec->id);
  line_add(&line, ",\"signal\":%d,\"stage\":\"%s\",\"why\":", signal, doing);
  line_string(&line, why);
  write_line(&line);
}

int results_close(void) {
  struct line line = {0};
  if (job->watch_count) watch();
  line_add(&line, "{\"type\":\"end\",\"stopped\":%d,\"elapsed_ns\":%lld", (int)stopped, (long long)(now_ns() - epoch));
  write_line(&line);
  sync_data();
  if (close(fd)) die_unwritten();
  return stopped ? 130 : 0;
}
