// SPDX-License-Identifier: GPL-2.0-only
/*
 * Exercises /dev/vgpu in a guest: each ioctl, its errors, mmap, fork, and the ways a session ends.
 *
 *   ioctl_test            against a device; more is tested where the device is the stand-in (stand_in.py)
 *   ioctl_test waiting    open() must say EAGAIN: the device has not greeted back
 *   ioctl_test gone       open() must fail: there is no device
 *   ioctl_test limit N    the device allows N sessions
 *   ioctl_test hold       opens a session with a ring and a region, says so, waits until the session is over
 *
 * Build: gcc -D_GNU_SOURCE -static -pthread -I../include -o ioctl_test *.c
 *
 * Each test runs in a process of its own, because a session belongs to an address space.
 */
#include "ioctl_test.h"

/* ---- tests ---- */

static void node(void)
{
	struct stat st;

	CHECK(stat("/dev/vgpu", &st) == 0);
	CHECK(S_ISCHR(st.st_mode) && (st.st_mode & 0777) == 0666);
}

static void info(void)
{
	static unsigned char all[256 * 1024], part[100];
	struct vgpu_ioctl_info arg = { .buf = (uintptr_t)all, .len = sizeof(all) };
	struct vgpu_ioctl_regs regs;
	int fd = must_open();

	CHECK(ioctl(fd, VGPU_IOCTL_GET_INFO, &arg) == 0);
	CHECK(arg.len > 0 && arg.len < sizeof(all));
	if (stand_in)
		CHECK(arg.len == 40008);	/* more than one request carries */
	struct vgpu_ioctl_info some = { .buf = (uintptr_t)part, .offset = arg.len / 2, .len = 10 };

	CHECK(ioctl(fd, VGPU_IOCTL_GET_INFO, &some) == 0);
	CHECK(some.len == 10 && !memcmp(part, all + arg.len / 2, 10) && !part[10]);
	some = (struct vgpu_ioctl_info){ .buf = (uintptr_t)part, .offset = arg.len, .len = 10 };
	CHECK(ioctl(fd, VGPU_IOCTL_GET_INFO, &some) == 0 && some.len == 0);
	some = (struct vgpu_ioctl_info){ .buf = 8, .len = 10 };
	FAILS(ioctl(fd, VGPU_IOCTL_GET_INFO, &some), EFAULT);
	some = (struct vgpu_ioctl_info){ .buf = (uintptr_t)part, .offset = ~0U, .len = 10 };
	FAILS(ioctl(fd, VGPU_IOCTL_GET_INFO, &some), EINVAL);

	CHECK(ioctl(fd, VGPU_IOCTL_READ_REGS, &regs) == 0);
	CHECK(!memcmp(regs.block + VGPU_MAGIC, VGPU_TAG, strlen(VGPU_TAG)));
	FAILS(ioctl(fd, VGPU_IOCTL_READ_REGS, NULL), EFAULT);
}

static void without_session(void)
{
	struct vgpu_ioctl_ring ring = {};
	int fd = must_open();

	FAILS(ioctl(fd, VGPU_IOCTL_CREATE_RING, &ring), ENOTCONN);
	FAILS(ioctl(fd, VGPU_IOCTL_KICK), ENOTCONN);
	FAILS(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION), ENOTCONN);
	FAILS(ioctl(fd, _IO(VGPU_IOCTL_TYPE, 99)), ENOTTY);
	FAILS(ioctl(fd, TIOCGWINSZ, &ring), ENOTTY);
	CHECK(map_at(fd, 0, PAGE, PROT_READ) == MAP_FAILED && errno == ENOTCONN);
}

static void opening(void)
{
	struct vgpu_ioctl_open arg = { .abi_version = VGPU_ABI_VERSION + 1 };
	int fd = must_open(), other = must_open();

	FAILS(ioctl(fd, VGPU_IOCTL_OPEN_SESSION, &arg), EPROTO);
	arg.abi_version = VGPU_ABI_VERSION;
	arg.env_len = VGPU_ENV_BYTES_MAX + 1;
	FAILS(ioctl(fd, VGPU_IOCTL_OPEN_SESSION, &arg), E2BIG);
	arg.env_len = 10;
	arg.env = 8;
	FAILS(ioctl(fd, VGPU_IOCTL_OPEN_SESSION, &arg), EFAULT);
	FAILS(ioctl(fd, VGPU_IOCTL_OPEN_SESSION, NULL), EFAULT);
	sessions_become(0);

	CHECK(open_session(fd, NULL, &arg) == 0);
	FAILS(open_session(fd, NULL, &arg), EBUSY);
	FAILS(open_session(other, NULL, &arg), EBUSY);
	CHECK(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION) == 0);
	FAILS(open_session(fd, NULL, &arg), EBUSY);
	FAILS(ioctl(fd, VGPU_IOCTL_KICK), ENODEV);
	CHECK(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION) == 0);
	CHECK(open_session(other, NULL, &arg) == 0);
	close(other);
	sessions_become(0);
}

static void session_page(void)
{
	int fd = session(NULL);
	struct vgpu_session_page *page = map_at(fd, VGPU_MMAP_SESSION_PAGE, PAGE, PROT_READ);

	CHECK(page != MAP_FAILED);
	CHECK(page->state == VGPU_SESSION_LIVE);
	FAILS(mprotect(page, PAGE, PROT_READ | PROT_WRITE), EACCES);
	CHECK(map_at(fd, 0, PAGE, PROT_READ | PROT_WRITE) == MAP_FAILED && errno == EACCES);
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED && errno == EINVAL);
	CHECK(map_at(fd, 0, 2 * PAGE, PROT_READ) == MAP_FAILED && errno == EINVAL);
	CHECK(map_at(fd, PAGE, PAGE, PROT_READ) == MAP_FAILED && errno == ENOENT);
	CHECK(mremap(page, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED);

	/* Memory of a session stays what it was for as long as it is mapped, and the page says that it is over. */
	CHECK(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION) == 0);
	CHECK(page->state == VGPU_SESSION_DEAD && page->reason);
	CHECK(map_at(fd, 0, PAGE, PROT_READ) == MAP_FAILED && errno == ENODEV);
}

static void rings(void)
{
	struct vgpu_ioctl_ring arg = {};
	int fd = session(NULL);
	__u32 ring = must_create_ring(fd);
	size_t i;
	char *p, *staging;

	CHECK(ring == 0 && must_create_ring(fd) == 1);
	p = must_map_ring(fd, ring);
	/* A real worker writes to the header at once. */
	for (i = stand_in ? 0 : VGPU_HEADER_BYTES; i < VGPU_RING_BYTES; i++)
		CHECK(!p[i]);
	CHECK(map_at(fd, ring_offset(2), VGPU_RING_BYTES, PROT_READ) == MAP_FAILED && errno == ENOENT);
	CHECK(map_at(fd, ring_offset(VGPU_RINGS_MAX + 7), PAGE, PROT_READ) == MAP_FAILED && errno == ENOENT);
	CHECK(map_at(fd, ring_offset(0), PAGE, PROT_READ) == MAP_FAILED && errno == EINVAL);
	CHECK(map_at(fd, ring_offset(0) + VGPU_MMAP_STAGING_OFFSET, PAGE, PROT_READ) == MAP_FAILED &&
	      errno == ENOENT);

	arg = (struct vgpu_ioctl_ring){ .ring = ring, .len = 0 };
	FAILS(ioctl(fd, VGPU_IOCTL_ADD_STAGING, &arg), EINVAL);
	arg.len = VGPU_STAGING_BYTES_MAX + PAGE;
	FAILS(ioctl(fd, VGPU_IOCTL_ADD_STAGING, &arg), EINVAL);
	arg.len = PAGE + 1;
	FAILS(ioctl(fd, VGPU_IOCTL_ADD_STAGING, &arg), EINVAL);
	arg = (struct vgpu_ioctl_ring){ .ring = 77, .len = PAGE };
	FAILS(ioctl(fd, VGPU_IOCTL_ADD_STAGING, &arg), ENOENT);
	arg = (struct vgpu_ioctl_ring){ .ring = ring, .len = VGPU_STAGING_BYTES_MAX };
	CHECK(ioctl(fd, VGPU_IOCTL_ADD_STAGING, &arg) == 0);
	FAILS(ioctl(fd, VGPU_IOCTL_ADD_STAGING, &arg), EEXIST);
	staging = map_at(fd, ring_offset(ring) + VGPU_MMAP_STAGING_OFFSET, VGPU_STAGING_BYTES_MAX,
			 PROT_READ | PROT_WRITE);
	CHECK(staging != MAP_FAILED);

	/* Thrown out pages come back with what they held. */
	for (i = 0; i < VGPU_STAGING_BYTES_MAX; i += PAGE)
		memcpy(staging + i, &i, sizeof(i));
	CHECK(madvise(staging, VGPU_STAGING_BYTES_MAX, MADV_DONTNEED) == 0);
	for (i = 0; i < VGPU_STAGING_BYTES_MAX; i += PAGE)
		CHECK(!memcmp(staging + i, &i, sizeof(i)));
	/* A mapping may be cut. */
	CHECK(munmap(staging + MIB, MIB) == 0);
	i = 3 * MIB;
	CHECK(!memcmp(staging + 3 * MIB, &i, sizeof(i)));

	arg = (struct vgpu_ioctl_ring){ .ring = ring };
	CHECK(ioctl(fd, VGPU_IOCTL_REMOVE_RING, &arg) == 0);
	FAILS(ioctl(fd, VGPU_IOCTL_REMOVE_RING, &arg), ENOENT);
	arg.ring = 5000;
	FAILS(ioctl(fd, VGPU_IOCTL_REMOVE_RING, &arg), ENOENT);
	/* Still ours, though the ring is gone. */
	p[0] = 1;
	CHECK(!memcmp(staging + 3 * MIB, &i, sizeof(i)));
	CHECK(must_create_ring(fd) == ring);
	CHECK(p[0] == 1 && must_map_ring(fd, ring)[0] == 0);
}

static void many_rings(void)
{
	struct vgpu_ioctl_ring arg = {};
	int fd = session(NULL);
	__u32 i;

	for (i = 0; i < VGPU_RINGS_MAX; i++)
		CHECK(must_create_ring(fd) == i);
	FAILS(ioctl(fd, VGPU_IOCTL_CREATE_RING, &arg), EMFILE);
	CHECK(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION) == 0);
}

static void on_alarm(int signal)
{
	(void)signal;
}

static void waiting_times(void)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	int fd = session(NULL);
	__u32 ring = must_create_ring(fd);
	double begin = now();

	FAILS(wait_ring(fd, ring, 200), ETIME);
	CHECK(now() - begin > 0.19);
	FAILS(wait_ring(fd, 3, 200), ENOENT);
	FAILS(wait_ring(fd, 4000, 200), ENOENT);
	FAILS(ioctl(fd, VGPU_IOCTL_WAIT, NULL), EFAULT);
	sigaction(SIGALRM, &action, NULL);
	ualarm(200000, 0);
	FAILS(wait_ring(fd, ring, 0), EINTR);
}

struct kicker {
	int fd;
	unsigned int rounds;
	pthread_t thread;
};

/* The stand-in moves tail to head at a kick, and wakes the ring. */
static void *kick_and_wait(void *argument)
{
	struct kicker *k = argument;
	__u32 ring = must_create_ring(k->fd);
	char *p = must_map_ring(k->fd, ring);
	volatile __u64 *head = (void *)(p + VGPU_OFF_HEAD), *tail = (void *)(p + VGPU_OFF_TAIL);
	unsigned int i;

	for (i = 0; i < k->rounds; i++) {
		double deadline = now() + 20;

		__atomic_store_n(head, *head + 8, __ATOMIC_SEQ_CST);
		CHECK(ioctl(k->fd, VGPU_IOCTL_KICK) == 0);
		/* Another thread's kick may have served us already, and left us woken. */
		while (__atomic_load_n(tail, __ATOMIC_SEQ_CST) != *head) {
			CHECK(wait_ring(k->fd, ring, 10000) == 0);
			CHECK(now() < deadline);
		}
	}
	return NULL;
}

static void kicks(void)
{
	struct kicker k[6];
	int fd = session(NULL);
	unsigned int i;

	for (i = 0; i < 6; i++) {
		k[i] = (struct kicker){ .fd = fd, .rounds = 50 };
		CHECK(!pthread_create(&k[i].thread, NULL, kick_and_wait, &k[i]));
	}
	for (i = 0; i < 6; i++)
		pthread_join(k[i].thread, NULL);
	CHECK(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION) == 0);
}

static void regions(void)
{
	const size_t len = 40 * MIB;
	struct vgpu_ioctl_region arg, other;
	int fd = session(NULL);
	char *p = anonymous(len), *read_only;
	long before = vm_pin_kib();
	int file;

	madvise(p, len, MADV_NOHUGEPAGE);
	sign_pages(p, len);
	FAILS(map_region(fd, p + 8, PAGE, 0, &arg), EINVAL);
	FAILS(map_region(fd, p, PAGE + 8, 0, &arg), EINVAL);
	FAILS(map_region(fd, p, 0, 0, &arg), EINVAL);
	FAILS(map_region(fd, p, PAGE, 0x80, &arg), EINVAL);
	FAILS(map_region(fd, p, -PAGE, 0, &arg), EINVAL);
	FAILS(map_region(fd, (void *)0x7ffffffff000, 2 * PAGE, 0, &arg), EFAULT);
	FAILS(map_region(fd, (void *)PAGE, PAGE, 0, &arg), EFAULT);
	FAILS(map_region(fd, p, 1UL << 40, 0, &arg), ENOMEM);
	CHECK(vm_pin_kib() == before);

	CHECK(map_region(fd, p, len, 0, &arg) == 0);
	CHECK(vm_pin_kib() - before == (long)(len / 1024));
	check_countersigned(p, len);
	CHECK(map_region(fd, anonymous(PAGE), PAGE, 0, &other) == 0 && other.region != arg.region);
	CHECK(ioctl(fd, VGPU_IOCTL_UNMAP_REGION, &arg) == 0);
	FAILS(ioctl(fd, VGPU_IOCTL_UNMAP_REGION, &arg), ENOENT);
	CHECK(vm_pin_kib() - before == 4);
	CHECK(ioctl(fd, VGPU_IOCTL_UNMAP_REGION, &other) == 0);
	CHECK(vm_pin_kib() == before);

	/* Memory that the process cannot write: with the flag only. */
	read_only = anonymous(16 * PAGE);
	sign_pages(read_only, 16 * PAGE);
	CHECK(mprotect(read_only, 16 * PAGE, PROT_READ) == 0);
	FAILS(map_region(fd, read_only, 16 * PAGE, 0, &arg), EFAULT);
	CHECK(map_region(fd, read_only, 16 * PAGE, VGPU_MAP_READ_ONLY, &arg) == 0);
	CHECK(ioctl(fd, VGPU_IOCTL_UNMAP_REGION, &arg) == 0);
	file = open("/tmp/ioctl_test.file", O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(file >= 0 && ftruncate(file, 4 * PAGE) == 0);
	read_only = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, file, 0);
	CHECK(read_only != MAP_FAILED);
	CHECK(map_region(fd, read_only, 4 * PAGE, VGPU_MAP_READ_ONLY, &arg) == 0);
	CHECK(ioctl(fd, VGPU_IOCTL_UNMAP_REGION, &arg) == 0);
	CHECK(vm_pin_kib() == before);

	/* A read-only pin sees what the process writes later (the first page is still the zero page). */
	p = anonymous(2 * PAGE);
	CHECK(!*(volatile char *)p);
	CHECK(map_region(fd, p, 2 * PAGE, VGPU_MAP_READ_ONLY, &arg) == 0);
	sign_pages(p, 2 * PAGE);
	CHECK(ioctl(fd, VGPU_IOCTL_UNMAP_REGION, &arg) == 0);

	/* The range goes, the pages stay pinned. */
	p = anonymous(MIB);
	CHECK(map_region(fd, p, MIB, 0, &arg) == 0);
	CHECK(munmap(p, MIB) == 0);
	CHECK(vm_pin_kib() - before == 1024);
	CHECK(ioctl(fd, VGPU_IOCTL_UNMAP_REGION, &arg) == 0);
	CHECK(vm_pin_kib() == before);

	/* The end of the session unpins what is left. */
	CHECK(map_region(fd, anonymous(MIB), MIB, 0, &arg) == 0);
	CHECK(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION) == 0);
	CHECK(vm_pin_kib() == before);
}

static void *map_many(void *argument)
{
	int fd = *(int *)argument, i;
	char *p = anonymous(MIB);

	for (i = 0; i < 20; i++) {
		struct vgpu_ioctl_region arg;

		sign_pages(p, MIB);
		CHECK(map_region(fd, p, MIB, 0, &arg) == 0);
		check_countersigned(p, MIB);
		CHECK(ioctl(fd, VGPU_IOCTL_UNMAP_REGION, &arg) == 0);
	}
	return NULL;
}

static void regions_of_threads(void)
{
	pthread_t thread[4];
	int fd = session(NULL), i;

	for (i = 0; i < 4; i++)
		CHECK(!pthread_create(&thread[i], NULL, map_many, &fd));
	for (i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	CHECK(vm_pin_kib() == 0);
}

static void forked_child(void)
{
	struct vgpu_ioctl_open arg;
	struct vgpu_ioctl_ring ring_arg = {};
	int fd = session(NULL), other = must_open();
	__u32 ring = must_create_ring(fd);
	char *p = must_map_ring(fd, ring);
	unsigned char present;
	pid_t pid = fork();

	if (!pid) {
		FAILS(ioctl(fd, VGPU_IOCTL_KICK), ECHILD);
		FAILS(ioctl(fd, VGPU_IOCTL_CREATE_RING, &ring_arg), ECHILD);
		FAILS(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION), ECHILD);
		FAILS(open_session(fd, NULL, &arg), ECHILD);
		CHECK(map_at(fd, ring_offset(ring), VGPU_RING_BYTES, PROT_READ) == MAP_FAILED && errno == ECHILD);
		FAILS(mincore(p, PAGE, &present), ENOMEM);
		/* A session of its own it may have, on a file that has none yet. */
		CHECK(open_session(other, NULL, &arg) == 0);
		CHECK(must_create_ring(other) == 0);
		_exit(0);
	}
	CHECK(succeeded(pid));
	FAILS(ioctl(other, VGPU_IOCTL_KICK), ECHILD);
	CHECK(ioctl(fd, VGPU_IOCTL_KICK) == 0);
}

/* The process is killed; its child still holds the file. */
static void killed_process(void)
{
	int ready[2], hold[2];
	char byte = 0;
	pid_t pid;

	CHECK(pipe(ready) == 0 && pipe(hold) == 0);
	sessions_become(0);
	pid = fork();
	if (!pid) {
		struct vgpu_ioctl_region arg;
		int fd = session(NULL);

		must_map_ring(fd, must_create_ring(fd));
		CHECK(map_region(fd, anonymous(MIB), MIB, 0, &arg) == 0);
		if (!fork()) {
			close(hold[1]);
			CHECK(write(ready[1], &byte, 1) == 1);
			CHECK(read(hold[0], &byte, 1) == 0);
			_exit(0);
		}
		pause();
	}
	close(ready[1]);
	CHECK(read(ready[0], &byte, 1) == 1);
	sessions_become(1);
	kill(pid, SIGKILL);
	CHECK(!succeeded(pid));
	sessions_become(0);
	close(hold[1]);
}

/* exec ends the session, too, though the descriptor lives on. */
static void exec_ends(void)
{
	int fd = session(NULL);
	char number[16];
	pid_t pid;

	close(fd);
	sessions_become(0);
	pid = fork();
	if (!pid) {
		fd = session(NULL);
		CHECK(fcntl(fd, F_SETFD, 0) == 0);
		snprintf(number, sizeof(number), "%d", fd);
		execl("/proc/self/exe", "ioctl_test", "inherited", number, NULL);
		_exit(1);
	}
	CHECK(succeeded(pid));
	sessions_become(0);
}

/* A frame that cannot be parsed, behind a kick: the whole way there and back, with a real worker. */
static void malformed_frame(void)
{
	int fd = session(NULL);
	__u32 ring = must_create_ring(fd);
	char *p = must_map_ring(fd, ring);
	struct vgpu_session_page *page = map_at(fd, VGPU_MMAP_SESSION_PAGE, PAGE, PROT_READ);
	struct vgpu_frame_header *frame = (void *)(p + VGPU_HEADER_BYTES);
	double deadline = now() + 10;

	CHECK(page != MAP_FAILED);
	while (!__atomic_load_n((__u32 *)(p + VGPU_OFF_HOST_PARKED), __ATOMIC_SEQ_CST)) {
		CHECK(now() < deadline);
		usleep(1000);
	}
	usleep(50000);
	*frame = (struct vgpu_frame_header){ .len = 12345, .ticket = 1 };
	__atomic_store_n((__u64 *)(p + VGPU_OFF_HEAD), sizeof(*frame), __ATOMIC_SEQ_CST);
	CHECK(ioctl(fd, VGPU_IOCTL_KICK) == 0);
	FAILS(wait_ring(fd, ring, 10000), ENODEV);
	CHECK(page->state == VGPU_SESSION_DEAD && page->reason == VGPU_DEATH_MALFORMED);
	CHECK(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION) == 0);
}

/* ---- running ---- */

enum only { BOTH, STAND_IN, WORKER };

static const struct test {
	const char *name;
	void (*run)(void);
	enum only only;
} tests[] = {
	{ "node", node, BOTH },
	{ "info", info, BOTH },
	{ "without session", without_session, BOTH },
	{ "opening", opening, BOTH },
	{ "session page", session_page, BOTH },
	{ "rings", rings, BOTH },
	{ "many rings", many_rings, BOTH },
	{ "waiting", waiting_times, BOTH },
	{ "kicks", kicks, STAND_IN },
	{ "counters", counters, BOTH },
	{ "regions", regions, BOTH },
	{ "regions of threads", regions_of_threads, BOTH },
	{ "forked child", forked_child, BOTH },
	{ "killed process", killed_process, BOTH },
	{ "exec", exec_ends, BOTH },
	{ "malformed frame", malformed_frame, WORKER },
	{ "refused open", refused_open, STAND_IN },
	{ "refused ring", refused_ring, STAND_IN },
	{ "refused region", refused_region, STAND_IN },
	{ "slow close", slow_close, STAND_IN },
	{ "retried close", retried_close, STAND_IN },
	{ "death", death, STAND_IN },
	{ "killed in call", killed_in_call, STAND_IN },
	{ "unanswered call", unanswered_call, STAND_IN },
};

static int run_all(void)
{
	char start[8] = "";
	struct vgpu_ioctl_info arg = { .buf = (uintptr_t)start, .len = sizeof(start) };
	unsigned int i, failed = 0, skipped = 0;
	int fd = must_open();

	CHECK(ioctl(fd, VGPU_IOCTL_GET_INFO, &arg) == 0);
	stand_in = !memcmp(start, "stand-in", sizeof(start));
	close(fd);
	for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		double begin = now();
		pid_t pid;

		if (tests[i].only == (stand_in ? WORKER : STAND_IN)) {
			skipped++;
			continue;
		}
		sessions_become(0);
		fflush(stdout);
		pid = fork();
		if (!pid) {
			alarm(120);
			tests[i].run();
			_exit(0);
		}
		if (succeeded(pid)) {
			printf("ok   %s (%.2f s)\n", tests[i].name, now() - begin);
		} else {
			printf("FAIL %s\n", tests[i].name);
			failed++;
		}
	}
	sessions_become(0);
	printf("%u tests, %u failed, %u that need %s left out\n", i - skipped, failed, skipped,
	       stand_in ? "a worker" : "the stand-in");
	return failed != 0;
}

/* The device allows @limit sessions; a slot comes free when one of them ends. */
static int run_limit(unsigned int limit)
{
	int ready[2], hold[2];
	struct vgpu_ioctl_open arg;
	char byte = 0;
	unsigned int i;
	int fd = must_open();

	CHECK(pipe(ready) == 0 && pipe(hold) == 0);
	for (i = 0; i < limit; i++) {
		if (!fork()) {
			session("slow_close");
			CHECK(write(ready[1], &byte, 1) == 1);
			CHECK(read(hold[0], &byte, 1) == 1);
			_exit(0);
		}
		CHECK(read(ready[0], &byte, 1) == 1);
	}
	FAILS(open_session(fd, NULL, &arg), EUSERS);
	CHECK(write(hold[1], &byte, 1) == 1);
	usleep(300000);
	/* One is ending now: this waits for its slot. */
	CHECK(open_session(fd, NULL, &arg) == 0);
	for (i = 1; i < limit; i++)
		CHECK(write(hold[1], &byte, 1) == 1);
	puts("ok   limit");
	return 0;
}

static int run_hold(void)
{
	struct vgpu_ioctl_region arg;
	struct vgpu_session_page *page;
	int fd = session(NULL);
	__u32 ring = must_create_ring(fd);

	must_map_ring(fd, ring);
	page = map_at(fd, VGPU_MMAP_SESSION_PAGE, PAGE, PROT_READ);
	CHECK(page != MAP_FAILED);
	CHECK(map_region(fd, anonymous(MIB), MIB, 0, &arg) == 0);
	puts("holding");
	fflush(stdout);
	FAILS(wait_ring(fd, ring, 0), ENODEV);
	CHECK(page->state == VGPU_SESSION_DEAD && page->reason == VGPU_DEATH_SHUTDOWN);
	FAILS(ioctl(fd, VGPU_IOCTL_KICK), ENODEV);
	CHECK(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION) == 0);
	CHECK(vm_pin_kib() == 0);
	puts("ok   hold");
	return 0;
}

/* After exec, with the descriptor of the session of before. */
static int run_inherited(int fd)
{
	FAILS(ioctl(fd, VGPU_IOCTL_KICK), ECHILD);
	sessions_become(0);
	session(NULL);
	return 0;
}

int main(int argc, char **argv)
{
	int fd;

	if (argc == 2 && !strcmp(argv[1], "waiting")) {
		FAILS(open("/dev/vgpu", O_RDWR), EAGAIN);
		puts("ok   waiting");
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "gone")) {
		fd = open("/dev/vgpu", O_RDWR);
		CHECK(fd == -1 && (errno == ENOENT || errno == ENODEV));
		puts("ok   gone");
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "limit"))
		return run_limit(atoi(argv[2]));
	if (argc == 2 && !strcmp(argv[1], "hold"))
		return run_hold();
	if (argc == 3 && !strcmp(argv[1], "inherited"))
		return run_inherited(atoi(argv[2]));
	if (argc > 1) {
		fprintf(stderr, "usage: ioctl_test [waiting | gone | limit N | hold]\n");
		return 2;
	}
	return run_all();
}
