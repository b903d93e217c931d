// SPDX-License-Identifier: GPL-2.0-only
/* What the driver counts in sysfs. */
#include "ioctl_test.h"

#define COUNTERS "/sys/class/misc/vgpu/counters/"

static unsigned long long counter(const char *name)
{
	char path[128];
	unsigned long long value;
	FILE *file;

	snprintf(path, sizeof(path), COUNTERS "%s", name);
	file = fopen(path, "r");
	CHECK(file);
	CHECK(fscanf(file, "%llu", &value) == 1);
	fclose(file);
	return value;
}

/* Nobody else uses the device meanwhile: kicks and waits are known to one. A worker may send events of its own. */
void counters(void)
{
	unsigned long long kicks, doorbells, requests, waits, sleeps;
	struct stat about;
	__u32 ring;
	int fd;

	CHECK(stat(COUNTERS "kicks", &about) == 0 && (about.st_mode & 0777) == 0400);
	if (geteuid())
		return;
	fd = session(NULL);
	requests = counter("requests");
	ring = must_create_ring(fd);
	CHECK(counter("requests") == requests + 1);
	doorbells = counter("doorbells");
	kicks = counter("kicks");
	CHECK(doorbells > 0);
	CHECK(ioctl(fd, VGPU_IOCTL_KICK) == 0);
	CHECK(ioctl(fd, VGPU_IOCTL_KICK) == 0);
	CHECK(counter("kicks") == kicks + 2);
	CHECK(counter("doorbells") >= doorbells + 2);
	waits = counter("waits");
	sleeps = counter("sleeps");
	FAILS(wait_ring(fd, ring, 50), ETIME);
	CHECK(counter("waits") == waits + 1);
	CHECK(counter("sleeps") == sleeps + 1);
	FAILS(wait_ring(fd, 200, 50), ENOENT);
	CHECK(counter("waits") == waits + 1);
	CHECK(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION) == 0);
	/* CLOSE_SESSION is one as well. */
	CHECK(counter("requests") == requests + 2);
}
