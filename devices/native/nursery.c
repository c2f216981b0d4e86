/* A nursery: a process that does once what every case of a runtime would do again, 5 to 20 ms of work: the limits, the
 * canary, the library, its environment. Then it forks a worker for each case, which finds all that done.
 *
 * It is no more than a short cut: one that crashes or hangs while it opens the runtime, or is not single-threaded
 * afterwards (a fork would take one thread along and the locks of all), is of no use, and its cases open the runtime for
 * themselves. The supervisor itself never has foreign code in it.
 *
 * It is asked over a socket: FORK and the number of a case, with the ends of the worker's pipes, answered by a pid; REAP
 * and a pid, answered by the status that the worker ended with. Its workers die with it, and it with the supervisor. */
#include "runner.h"

enum { MAX_NURSERIES = 8 };
enum { FORK, REAP };
static const int64_t ANSWER_NS = 10000000000;      /* a fork or a burial takes milliseconds */

struct request { int kind, number; };

struct nursery {
  const struct job_case *first;
  pid_t pid;
  int socket;                      /* -1: of no use */
};

static struct nursery nurseries[MAX_NURSERIES];
static int nursery_count;

/* ---- in the nursery ---- */

union rights {                     /* two file descriptors beside a message */
  struct cmsghdr header;
  char room[CMSG_SPACE(2 * sizeof(int))];
};

static int receive(int socket, struct request *request, int ends[2]) {
  union rights rights;
  struct iovec part = {request, sizeof *request};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof rights};
  if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != sizeof *request) return -1;
  if (request->kind != FORK) return 0;
  if (message.msg_controllen < CMSG_LEN(2 * sizeof(int))) return -1;
  memcpy(ends, CMSG_DATA(&rights.header), 2 * sizeof(int));
  return 0;
}

static void serve(const struct job *job, int socket) {
  struct request request;
  int ends[2];
  pid_t self = getpid();
  while (!receive(socket, &request, ends)) {
    int answer = -1, status;
    if (request.kind == FORK) {
      answer = fork();
      if (!answer) {
        close(socket);
        worker_main(job, &job->cases[request.number], ends[0], ends[1], self);
      }
      close(ends[0]);
      close(ends[1]);
    } else {
      kill(request.number, SIGKILL);
      if (waitpid(request.number, &status, 0) == request.number) answer = status;
    }
    if (write_all(socket, &answer, sizeof answer)) break;
  }
}

static void nursery_main(const struct job *job, const struct job_case *spec, int socket, pid_t parent) {
  live_with_parent(parent);
  int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (quiet >= 0) dup2(quiet, 1), dup2(quiet, 2);
  int answer = worker_open(job, spec);
  if (!answer) worker_warm_up();
  if (status_number("Threads:") != 1) answer = -1;
  fflush(NULL);                    /* what was said so far is not a worker's */
  if (!write_all(socket, &answer, sizeof answer) && !answer) serve(job, socket);
  _exit(0);
}

/* ---- in the supervisor ---- */

static void end(struct nursery *n) {
  if (n->socket < 0) return;
  close(n->socket);
  n->socket = -1;
  kill(n->pid, SIGKILL);
  while (waitpid(n->pid, NULL, 0) < 0 && errno == EINTR) continue;
}

static void start(struct nursery *n, const struct job *job) {
  int sockets[2], answer = -1;
  pid_t self = getpid();
  n->socket = -1;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets)) return;
  n->pid = fork();
  if (!n->pid) {
    close(sockets[0]);
    nursery_main(job, n->first, sockets[1], self);
  }
  close(sockets[1]);
  if (n->pid < 0) {
    close(sockets[0]);
    return;
  }
  n->socket = sockets[0];
  if (wait_readable(n->socket, now_ns() + n->first->limit_ns) <= 0 ||
      read(n->socket, &answer, sizeof answer) != sizeof answer || answer)
    end(n);
}

static int alike(const struct job_case *a, const struct job_case *b) {
  return !strcmp(a->runtime, b->runtime) && !strcmp(a->library, b->library) && a->cpu_mask == b->cpu_mask &&
         a->memory_bytes == b->memory_bytes;
}

struct nursery *nursery_find(const struct job *job, const struct job_case *spec) {
  for (int i = 0; i < nursery_count; i++)
    if (alike(nurseries[i].first, spec)) return nurseries[i].socket < 0 ? NULL : &nurseries[i];
  if (nursery_count == MAX_NURSERIES) return NULL;
  struct nursery *made = &nurseries[nursery_count++];
  made->first = spec;
  start(made, job);
  return made->socket < 0 ? NULL : made;
}

static int send_request(int socket, int kind, int number, const int *ends) {
  struct request request = {kind, number};
  union rights rights = {{0}};
  struct iovec part = {&request, sizeof request};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  ssize_t sent;
  if (ends) {
    rights.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(2 * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&rights.header), ends, 2 * sizeof(int));
    message.msg_control = &rights;
    message.msg_controllen = sizeof rights;
  }
  while ((sent = sendmsg(socket, &message, 0)) < 0 && errno == EINTR) continue;
  return sent < 0 ? -1 : 0;
}

/* Its answer to a request; -1, and no nursery any more, where it does not give one. */
static int ask(struct nursery *n, int kind, int number, const int *ends) {
  struct pollfd ready = {.fd = n->socket, .events = POLLIN};
  int64_t deadline_ns = now_ns() + ANSWER_NS;
  int answer, found = 0;
  if (n->socket < 0) return -1;
  if (!send_request(n->socket, kind, number, ends))
    while (found <= 0 && now_ns() < deadline_ns) found = poll(&ready, 1, 1000);
  if (found > 0 && read(n->socket, &answer, sizeof answer) == sizeof answer) return answer;
  end(n);
  return -1;
}

pid_t nursery_fork(struct nursery *n, const struct job *job, const struct job_case *spec, int commands, int answers) {
  int ends[2] = {commands, answers};
  return ask(n, FORK, (int)(spec - job->cases), ends);
}

int nursery_reap(struct nursery *n, pid_t pid) {
  int status = ask(n, REAP, pid, NULL);
  return status < 0 ? SIGKILL : status;
}

void nursery_end_all(void) {
  for (int i = 0; i < nursery_count; i++) end(&nurseries[i]);
}
