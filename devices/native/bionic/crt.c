/* How a program begins on Android: the kernel's stack pointer goes to libc, which calls main and ends the process.
 * libc reads the arrays of constructors from the last argument; a runner in C has none. */
struct structors { void (**preinit)(void), (**init)(void), (**fini)(void); };

void __libc_init(void *raw, void (*on_exit)(void), int (*main)(int, char **, char **), const struct structors *);
int main(int, char **);

#if defined(__aarch64__)
__asm__(".globl _start\n_start:\n  mov x29, #0\n  mov x30, #0\n  mov x0, sp\n  b handset_start\n");
#elif defined(__x86_64__)
__asm__(".globl _start\n_start:\n  xor %ebp, %ebp\n  mov %rsp, %rdi\n  and $-16, %rsp\n  call handset_start\n");
#else
#error "no start for this processor"
#endif

static int call_main(int argc, char **argv, char **environment) { return (void)environment, main(argc, argv); }

__attribute__((used, visibility("hidden"), noreturn)) void handset_start(void *raw) {
  static const struct structors none;
  __libc_init(raw, 0, call_main, &none);
  __builtin_trap();
}
