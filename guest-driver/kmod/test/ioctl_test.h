/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of ioctl_test share. */
#ifndef IOCTL_TEST_H
#define IOCTL_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vgpu_ioctl.h"
#include "vgpu_layout.h"

#define PAGE 4096UL
#define MIB (1UL << 20)

#define CHECK(condition)                                                                                   \
	do {                                                                                               \
		if (!(condition)) {                                                                        \
			fprintf(stderr, "%s:%d: %s is not so (errno %d, %s)\n", __func__, __LINE__,        \
				#condition, errno, strerror(errno));                                       \
			_exit(1);                                                                          \
		}                                                                                          \
	} while (0)
/* The call must fail with this errno. */
#define FAILS(call, error) CHECK((errno = 0, (call) == -1) && errno == (error))

/* The device is the stand-in. */
extern int stand_in;

int must_open(void);
double now(void);
int open_session(int fd, const char *word, struct vgpu_ioctl_open *arg);
int session(const char *word);
__u32 must_create_ring(int fd);
void *map_at(int fd, __u64 offset, size_t len, int prot);
__u64 ring_offset(__u32 ring);
char *must_map_ring(int fd, __u32 ring);
int wait_ring(int fd, __u32 ring, __u32 timeout_ms);
int map_region(int fd, const void *p, size_t len, __u32 flags, struct vgpu_ioctl_region *arg);
__u32 read_register(int fd, unsigned int at);
void sessions_become(__u32 want);
long vm_pin_kib(void);
char *anonymous(size_t len);
void sign_pages(char *p, size_t len);
void check_countersigned(char *p, size_t len);
int succeeded(pid_t pid);

void counters(void);

/* Tests of misbehaviour: the stand-in only. */
void refused_open(void);
void refused_ring(void);
void refused_region(void);
void slow_close(void);
void retried_close(void);
void death(void);
void killed_in_call(void);
void unanswered_call(void);

#endif /* IOCTL_TEST_H */
