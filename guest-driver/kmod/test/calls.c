// SPDX-License-Identifier: GPL-2.0-only
/* What every test of ioctl_test uses: the calls, and a look at their effects. */
#include "ioctl_test.h"

int stand_in;

int must_open(void)
{
	int fd = open("/dev/vgpu", O_RDWR | O_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Opens with the call table that the device has, and with a word to the stand-in. */
int open_session(int fd, const char *word, struct vgpu_ioctl_open *arg)
{
	static char env[256];
	struct vgpu_ioctl_regs regs;
	int other = must_open();

	CHECK(ioctl(other, VGPU_IOCTL_READ_REGS, &regs) == 0);
	close(other);
	memset(arg, 0, sizeof(*arg));
	arg->abi_version = VGPU_ABI_VERSION;
	memcpy(arg->fingerprint, regs.block + VGPU_TABLE_FINGERPRINT, sizeof(arg->fingerprint));
	if (word && *word) {
		arg->env_len = snprintf(env, sizeof(env), "STANDIN=%s", word) + 1;
		arg->env = (uintptr_t)env;
	}
	return ioctl(fd, VGPU_IOCTL_OPEN_SESSION, arg);
}

int session(const char *word)
{
	struct vgpu_ioctl_open arg;
	int fd = must_open();

	CHECK(open_session(fd, word, &arg) == 0);
	CHECK(arg.error == VGPU_ERROR_NONE && arg.session < VGPU_SESSIONS_MAX);
	return fd;
}

__u32 must_create_ring(int fd)
{
	struct vgpu_ioctl_ring arg = {};

	CHECK(ioctl(fd, VGPU_IOCTL_CREATE_RING, &arg) == 0);
	return arg.ring;
}

void *map_at(int fd, __u64 offset, size_t len, int prot)
{
	return mmap(NULL, len, prot, MAP_SHARED, fd, offset);
}

__u64 ring_offset(__u32 ring)
{
	return VGPU_MMAP_RING_STRIDE * (ring + 1ULL);
}

char *must_map_ring(int fd, __u32 ring)
{
	char *p = map_at(fd, ring_offset(ring), VGPU_RING_BYTES, PROT_READ | PROT_WRITE);

	CHECK(p != MAP_FAILED);
	return p;
}

int wait_ring(int fd, __u32 ring, __u32 timeout_ms)
{
	struct vgpu_ioctl_wait arg = { .ring = ring, .timeout_ms = timeout_ms };

	return ioctl(fd, VGPU_IOCTL_WAIT, &arg);
}

int map_region(int fd, const void *p, size_t len, __u32 flags, struct vgpu_ioctl_region *arg)
{
	*arg = (struct vgpu_ioctl_region){ .va = (uintptr_t)p, .len = len, .flags = flags };
	return ioctl(fd, VGPU_IOCTL_MAP_REGION, arg);
}

__u32 read_register(int fd, unsigned int at)
{
	struct vgpu_ioctl_regs regs;
	__u32 value;

	CHECK(ioctl(fd, VGPU_IOCTL_READ_REGS, &regs) == 0);
	memcpy(&value, regs.block + at, sizeof(value));
	return value;
}

/* The device knows no more than this many sessions, at once or soon. */
void sessions_become(__u32 want)
{
	double deadline = now() + 20;
	int fd = must_open();
	__u32 found;

	while ((found = read_register(fd, VGPU_SESSIONS_OPEN)) != want && now() < deadline)
		usleep(20000);
	if (found != want)
		fprintf(stderr, "%u sessions are open, not %u\n", found, want);
	CHECK(found == want);
	close(fd);
}

long vm_pin_kib(void)
{
	char line[256];
	long kib = -1;
	FILE *f = fopen("/proc/self/status", "r");

	CHECK(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "VmPin: %ld", &kib);
	fclose(f);
	return kib;
}

char *anonymous(size_t len)
{
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

/* Touches pages in a scattered order, and leaves each page's address in it. */
void sign_pages(char *p, size_t len)
{
	size_t pages = len / PAGE, i, step = 1009;

	while (pages % step == 0)
		step += 2;
	for (i = 0; i < pages; i++) {
		char *page = p + i * step % pages * PAGE;

		*(__u64 *)page = (uintptr_t)page;
	}
}

void check_countersigned(char *p, size_t len)
{
	size_t i;

	if (stand_in)
		for (i = 0; i < len; i += PAGE)
			CHECK(*(__u64 *)(p + i + 8) == ~(__u64)(uintptr_t)(p + i));
}

int succeeded(pid_t pid)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
