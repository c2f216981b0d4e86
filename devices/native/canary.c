/* The canary: a fixed piece of work, timed before every sample, that slows down when the machine does.
 *
 * One half is arithmetic in the first cache, like the inner loop of a convolution: it slows with the core's clock and
 * with whoever shares its execution ports. The other half reads 4 MB, a cache line at a time: it slows with whoever
 * shares the outer caches and the memory. Each half alone follows some networks and misses others; in a trial their sum
 * followed MobileNetV2 in both runtimes best (standard deviation of a launch 0.8 %, against 1.0 to 1.3 % for either half). */
#include "runner.h"

enum { ROWS = 48, DEPTH = 64, COLUMNS = 192, REPEATS = 5, STREAM_BYTES = 4 << 20, CACHE_LINE = 64 };

typedef float vec16 __attribute__((vector_size(64), aligned(4)));

static float *matrix_a, *matrix_b, *matrix_c;
static unsigned char *stream;
static volatile unsigned sink;
static void (*product)(void);

/* Each step takes 4 rows x 16 columns over the whole depth: 4 accumulators stay in registers on every target. */
#define PRODUCT_BODY                                                              \
  for (int row = 0; row < ROWS; row += 4)                                         \
    for (int column = 0; column < COLUMNS; column += 16) {                        \
      vec16 sum0 = {0}, sum1 = {0}, sum2 = {0}, sum3 = {0};                       \
      const float *a = matrix_a + row * DEPTH, *b = matrix_b + column;            \
      for (int k = 0; k < DEPTH; k++, a++, b += COLUMNS) {                        \
        vec16 values = *(const vec16 *)b;                                         \
        sum0 += values * a[0];                                                    \
        sum1 += values * a[DEPTH];                                                \
        sum2 += values * a[2 * DEPTH];                                            \
        sum3 += values * a[3 * DEPTH];                                            \
      }                                                                           \
      float *c = matrix_c + row * COLUMNS + column;                               \
      *(vec16 *)c = sum0;                                                         \
      *(vec16 *)(c + COLUMNS) = sum1;                                             \
      *(vec16 *)(c + 2 * COLUMNS) = sum2;                                         \
      *(vec16 *)(c + 3 * COLUMNS) = sum3;                                         \
    }

/* Where code and data lie in their cache lines is worth 2 %: no matter of what else is in the program or in the heap. */
#define IN_PLACE __attribute__((aligned(64)))

IN_PLACE static void product_base(void) { PRODUCT_BODY }

#if defined(__x86_64__)
IN_PLACE __attribute__((target("avx2,fma"))) static void product_avx2(void) { PRODUCT_BODY }

static int has_avx2(void) {
  unsigned a, b, c, d, xcr0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_FMA) || !(c & bit_OSXSAVE)) return 0;
  __asm__("xgetbv" : "=a"(xcr0), "=d"(d) : "c"(0));
  return (xcr0 & 6) == 6 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}
#endif

const char *canary_kind(void) {
#if defined(__x86_64__)
  if (product == product_avx2) return "stream4M-matmul48x64x192x5-avx2";
#endif
  return "stream4M-matmul48x64x192x5";
}

int canary_init(void) {
  product = product_base;
#if defined(__x86_64__)
  if (has_avx2()) product = product_avx2;
#endif
  size_t floats = ROWS * DEPTH + DEPTH * COLUMNS + ROWS * COLUMNS;
  void *memory[2];
  if (posix_memalign(&memory[0], 4096, STREAM_BYTES)) return -1;
  if (posix_memalign(&memory[1], 4096, floats * sizeof(float))) return -1;
  stream = memory[0];
  matrix_a = memory[1];
  memset(stream, 1, STREAM_BYTES);   /* touched, so that it is memory of its own and not one page of zeros */
  for (size_t i = 0; i < floats; i++) matrix_a[i] = (float)(i % 7) * 0.25f - 0.5f;
  matrix_b = matrix_a + ROWS * DEPTH;
  matrix_c = matrix_b + DEPTH * COLUMNS;
  return 0;
}

IN_PLACE int64_t canary_run(void) {
  int64_t start = now_ns();
  unsigned sum = 0;
  for (size_t i = 0; i < STREAM_BYTES; i += CACHE_LINE) sum += stream[i];
  sink = sum;
  for (int i = 0; i < REPEATS; i++) product();
  __asm__ volatile("" ::: "memory");
  return now_ns() - start;
}
