#include "runner.h"

static void line_reserve(struct line *line, size_t more) {
  if (line->length + more + 1 <= line->capacity) return;
  size_t capacity = (line->length + more + 1) * 2;
  char *text = realloc(line->text, capacity);
  if (!text) _exit(71);            /* nothing can be said without memory; the supervisor names the status */
  line->text = text;
  line->capacity = capacity;
}

void line_add(struct line *line, const char *format, ...) {
  for (;;) {
    size_t room = line->capacity - line->length;
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(room ? line->text + line->length : NULL, room, format, arguments);
    va_end(arguments);
    if (size < 0) return;
    if ((size_t)size < room) {
      line->length += (size_t)size;
      return;
    }
    line_reserve(line, (size_t)size);
  }
}

/* The length of the well-formed UTF-8 sequence at `c`, 0 where there is none. */
static int utf8_length(const unsigned char *c) {
  int length = *c < 0xc2 ? 0 : *c < 0xe0 ? 2 : *c < 0xf0 ? 3 : *c < 0xf5 ? 4 : 0;
  for (int i = 1; i < length; i++)
    if ((c[i] & 0xc0) != 0x80) return 0;
  /* overlong forms, surrogates, beyond U+10FFFF */
  if ((*c == 0xe0 && c[1] < 0xa0) || (*c == 0xed && c[1] > 0x9f)) return 0;
  if ((*c == 0xf0 && c[1] < 0x90) || (*c == 0xf4 && c[1] > 0x8f)) return 0;
  return length;
}

/* Whatever a model file calls its kernels, a line stays valid JSON: bytes that are no UTF-8 become U+FFFD. */
void line_string(struct line *line, const char *text) {
  line_add(line, "\"");
  for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
    if (*c == '"' || *c == '\\') line_add(line, "\\%c", *c);
    else if (*c < 0x20 || *c == 0x7f) line_add(line, "\\u%04x", *c);
    else if (*c < 0x80) line_add(line, "%c", *c);
    else {
      int length = utf8_length(c);
      if (length) line_add(line, "%.*s", length, (const char *)c);
      else line_add(line, "\\ufffd");
      c += length ? length - 1 : 0;
    }
  }
  line_add(line, "\"");
}

void line_numbers(struct line *line, const char *key, const int64_t *values, size_t count) {
  line_add(line, "\"%s\":[", key);
  for (size_t i = 0; i < count; i++) line_add(line, i ? ",%lld" : "%lld", (long long)values[i]);
  line_add(line, "]");
}

int write_all(int fd, const void *data, size_t size) {
  const char *bytes = data;
  while (size) {
    ssize_t written = write(fd, bytes, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return -1;
    bytes += written;
    size -= (size_t)written;
  }
  return 0;
}

int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC_RAW, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

ssize_t read_text(const char *path, char *text, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);   /* a pipe without a writer must not hold us up */
  if (fd < 0) return -1;
  ssize_t length = read(fd, text, size - 1);
  close(fd);
  if (length < 0) return -1;
  text[length] = 0;
  return length;
}

int64_t clock_khz(int core) {
  char path[96], text[64];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", core);
  return read_text(path, text, sizeof text) < 0 ? -1 : strtoll(text, NULL, 10);
}

int64_t status_number(const char *key) {
  char text[4096];
  if (read_text("/proc/self/status", text, sizeof text) < 0) return -1;
  const char *line = strstr(text, key);
  return line ? strtoll(line + strlen(key), NULL, 10) : -1;
}
