/* What Android's own build gives every source file of adbd and Debian's compilers do not. */
#ifdef __cplusplus
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
void enter_phone();
#endif
#include <paths.h>
#undef _PATH_BSHELL
#define _PATH_BSHELL "/system/bin/sh"
