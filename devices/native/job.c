/* The job file: text, one `key value` a line, the value being the rest of the line. `case NAME` begins a case; keys
 * before the first case are defaults that every case inherits. Unknown keys are errors: a misspelt limit is no limit. */
#include "runner.h"

static int set_text(char **slot, const char *value) {
  *slot = strdup(value);
  return *slot ? 0 : -1;
}

/* At most 2^48 (three days in ns, 256 TB), so that sums of limits stay within 64 bits. */
static int set_number(int64_t *slot, const char *value) {
  char *end;
  *slot = strtoll(value, &end, 0);
  return *value && !*end && *slot >= 0 && *slot <= 1ll << 48 ? 0 : -1;
}

static int set_int(int *slot, const char *value) {
  int64_t number;
  if (set_number(&number, value) || number > 1 << 20) return -1;
  *slot = (int)number;
  return 0;
}

static int set_mask(uint64_t *slot, const char *value) {
  char *end;
  errno = 0;
  *slot = strtoull(value, &end, 0);
  return *value && *value != '-' && !*end && !errno ? 0 : -1;
}

/* 0 taken, 1 unknown key, -1 bad value */
static int set_case(struct job_case *c, const char *key, const char *value) {
#define TEXT(name) if (!strcmp(key, #name)) return set_text(&c->name, value)
#define NUMBER(name) if (!strcmp(key, #name)) return set_number(&c->name, value)
#define INT(name) if (!strcmp(key, #name)) return set_int(&c->name, value)
  TEXT(model); TEXT(library); TEXT(input); TEXT(output); TEXT(optimized_model); TEXT(profile_prefix); TEXT(log);
  TEXT(runtime); TEXT(delegate);
  INT(group); INT(threads); INT(profile);
  NUMBER(warmup_ns); NUMBER(warmup_samples); NUMBER(max_ns); NUMBER(min_samples); NUMBER(max_samples);
  NUMBER(block_ns); NUMBER(block_samples); NUMBER(limit_ns); NUMBER(memory_bytes);
  if (!strcmp(key, "cpu_mask")) return set_mask(&c->cpu_mask, value);
  return 1;
}

static int add_case(struct job *job, const struct job_case *defaults, const char *id) {
  int count = job->case_count;
  if (!(count & (count - 1))) {    /* 0, 1, 2, 4, ...: as much room again */
    struct job_case *cases = realloc(job->cases, sizeof *cases * (size_t)(count ? 2 * count : 1));
    if (!cases) return -1;
    job->cases = cases;
  }
  job->cases[count] = *defaults;
  job->case_count++;
  return set_text(&job->cases[count].id, id);
}

static int add_watch(struct job *job, const char *value) {
  if (!*value || job->case_count || job->watch_count == MAX_WATCHES) return -1;
  return set_text(&job->watch[job->watch_count++], value);
}

static int set_job(struct job *job, const char *key, const char *value) {
  if (!strcmp(key, "results")) return set_text(&job->output, value);
  if (!strcmp(key, "canary")) return set_int(&job->canary, value);
  if (!strcmp(key, "seed")) return set_mask(&job->seed, value);
  if (!strcmp(key, "watch")) return add_watch(job, value);
  if (!strcmp(key, "watch_ns")) return set_number(&job->watch_ns, value);
  return 1;
}

int job_read(const char *path, struct job *job, char *why, size_t why_size) {
  FILE *file = fopen(path, "re");
  if (!file) return snprintf(why, why_size, "cannot open the job file %s", path), -1;
  memset(job, 0, sizeof *job);
  job->canary = 1;
  job->watch_ns = 1000000000;
  struct job_case defaults = {.threads = 1, .warmup_samples = 1, .min_samples = 1, .max_samples = 1000,
                              .max_ns = 1000000000, .block_ns = 100000000, .block_samples = 1, .limit_ns = 60000000000};
  char line[8192];
  int number = 0, status = -1;
  while (fgets(line, sizeof line, file)) {
    number++;
    size_t length = strlen(line);
    if (length && line[length - 1] == '\n') {
      line[--length] = 0;
    } else if (length == sizeof line - 1) {
      snprintf(why, why_size, "%s: line %d: longer than %zu bytes", path, number, sizeof line - 2);
      goto done;
    }
    if (number > 1 && (!length || *line == '#')) continue;
    char *value = strchr(line, ' ');
    if (value) *value++ = 0; else value = line + length;
    if (number == 1) {
      if (strcmp(line, "handset-job") || strcmp(value, "1")) {
        snprintf(why, why_size, "%s: line 1: not a handset-job of version 1", path);
        goto done;
      }
      continue;
    }
    if (!strcmp(line, "case")) {
      if (job->case_count == MAX_CASES) {
        snprintf(why, why_size, "%s: line %d: more than %d cases", path, number, MAX_CASES);
        goto done;
      }
      if (add_case(job, &defaults, value)) {
        snprintf(why, why_size, "%s: line %d: no memory for its cases", path, number);
        goto done;
      }
      continue;
    }
    int outcome = set_case(job->case_count ? &job->cases[job->case_count - 1] : &defaults, line, value);
    if (outcome > 0) outcome = set_job(job, line, value);
    if (outcome) {
      snprintf(why, why_size, "%s: line %d: %s %s", path, number, outcome > 0 ? "unknown key" : "bad value for", line);
      goto done;
    }
  }
  for (int i = 0; i < job->case_count; i++) {
    struct job_case *c = &job->cases[i];
    if (!c->model || !c->runtime || !c->library) {
      snprintf(why, why_size, "%s: case %s needs model, runtime and library", path, c->id);
      goto done;
    }
    if (!find_runtime(c->runtime)) {
      snprintf(why, why_size, "%s: case %s asks for the runtime %s, not onnxruntime, litert or tflite", path, c->id,
               c->runtime);
      goto done;
    }
    if (!c->block_samples) c->block_samples = 1;   /* blocks of none would never end */
  }
  if (!job->output || !job->case_count) {
    snprintf(why, why_size, "%s: needs a results line and at least one case", path);
    goto done;
  }
  status = 0;
done:
  fclose(file);
  return status;
}
