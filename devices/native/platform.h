/* The C library's headers: those of the system, or our own few declarations where the target is Android's libc, which is
 * built for without its headers. Includes everything that the sources use, so that none of them asks where it runs. */
#ifndef HANDSET_PLATFORM_H
#define HANDSET_PLATFORM_H

#if defined(__ANDROID__)
#include "bionic/bionic.h"
#else

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#endif
#endif
