// SPDX-License-Identifier: GPL-2.0-only
/* What the driver does when the device refuses, keeps silent, is slow, or dies. The stand-in does so on request. */
#include "ioctl_test.h"

void refused_open(void)
{
	struct vgpu_ioctl_open arg;
	int fd = must_open();

	FAILS(open_session(fd, "refuse_open", &arg), EREMOTEIO);
	CHECK(arg.error == VGPU_ERROR_CUDA && arg.cuda_result == 100);
	/* The file may try again. */
	CHECK(open_session(fd, NULL, &arg) == 0);
}

void refused_ring(void)
{
	struct vgpu_ioctl_ring arg = {};
	int fd = session("refuse_ring");

	FAILS(ioctl(fd, VGPU_IOCTL_CREATE_RING, &arg), EREMOTEIO);
	CHECK(arg.error == VGPU_ERROR_QUEUE_FULL);
	FAILS(ioctl(fd, VGPU_IOCTL_CREATE_RING, &arg), EREMOTEIO);
	CHECK(arg.ring == 0);
}

void refused_region(void)
{
	const size_t len = 40 * MIB;
	struct vgpu_ioctl_region arg;
	int fd = session("refuse_region");
	char *p = anonymous(len);

	FAILS(map_region(fd, p, MIB, 0, &arg), EREMOTEIO);
	CHECK(arg.error == VGPU_ERROR_CUDA && vm_pin_kib() == 0);
	close(fd);

	/* The second piece is refused: the first is taken back. */
	fd = session("refuse_late");
	madvise(p, len, MADV_NOHUGEPAGE);
	sign_pages(p, len);
	FAILS(map_region(fd, p, len, 0, &arg), EREMOTEIO);
	CHECK(vm_pin_kib() == 0);
	FAILS(ioctl(fd, VGPU_IOCTL_UNMAP_REGION, &arg), ENOENT);
}

void slow_close(void)
{
	struct vgpu_ioctl_region arg;
	int fd = session("slow_close");
	double begin = now();

	CHECK(map_region(fd, anonymous(MIB), MIB, 0, &arg) == 0);
	if (!fork()) {
		_exit(0);
	}
	CHECK(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION) == 0);
	CHECK(now() - begin > 2.9);
	CHECK(vm_pin_kib() == 0);

	/* Pages stay pinned until the answer. */
	fd = session("slow_close");
	CHECK(map_region(fd, anonymous(MIB), MIB, 0, &arg) == 0);
	close(fd);
	usleep(500000);
	CHECK(vm_pin_kib() == 1024);
	sessions_become(0);
	usleep(200000);
	CHECK(vm_pin_kib() == 0);
}

void retried_close(void)
{
	int fd = session("retry_close");
	double begin = now();

	CHECK(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION) == 0);
	CHECK(now() - begin > 0.9);
}

static void *wait_for_death(void *argument)
{
	int fd = *(int *)argument;
	__u32 ring = must_create_ring(fd);

	FAILS(wait_ring(fd, ring, 20000), ENODEV);
	return NULL;
}

void death(void)
{
	struct vgpu_ioctl_ring ring = {};
	struct vgpu_session_page *page;
	struct vgpu_ioctl_region arg;
	pthread_t thread[3];
	int fd = session("die_at_kick"), i;

	page = map_at(fd, VGPU_MMAP_SESSION_PAGE, PAGE, PROT_READ);
	CHECK(page != MAP_FAILED && page->state == VGPU_SESSION_LIVE);
	CHECK(map_region(fd, anonymous(MIB), MIB, 0, &arg) == 0);
	for (i = 0; i < 3; i++)
		CHECK(!pthread_create(&thread[i], NULL, wait_for_death, &fd));
	usleep(300000);
	CHECK(ioctl(fd, VGPU_IOCTL_KICK) == 0);
	for (i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	CHECK(page->state == VGPU_SESSION_DEAD && page->reason == VGPU_DEATH_WORKER_LOST);
	FAILS(ioctl(fd, VGPU_IOCTL_KICK), ENODEV);
	FAILS(ioctl(fd, VGPU_IOCTL_CREATE_RING, &ring), ENODEV);
	FAILS(ioctl(fd, VGPU_IOCTL_UNMAP_REGION, &arg), ENODEV);
	CHECK(vm_pin_kib() == 1024);
	CHECK(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION) == 0);
	CHECK(vm_pin_kib() == 0);
}

/* A call that is never answered, and a process that is killed in it. */
void killed_in_call(void)
{
	static const char *const words[] = { "silent_ring", "silent_region" };
	unsigned int i;

	for (i = 0; i < 2; i++) {
		pid_t pid = fork();

		if (!pid) {
			struct vgpu_ioctl_region region;
			struct vgpu_ioctl_ring ring = {};
			int fd = session(words[i]);

			if (i == 0)
				ioctl(fd, VGPU_IOCTL_CREATE_RING, &ring);
			else
				map_region(fd, anonymous(MIB), MIB, 0, &region);
			_exit(0);
		}
		sessions_become(1);
		usleep(300000);
		kill(pid, SIGKILL);
		CHECK(!succeeded(pid));
		sessions_become(0);
	}
}

/* The same with a process that waits to the end: 30 s. */
void unanswered_call(void)
{
	struct vgpu_ioctl_region arg;
	int fd = session("silent_region");
	double begin = now();

	FAILS(map_region(fd, anonymous(MIB), MIB, 0, &arg), ETIMEDOUT);
	CHECK(now() - begin > 29);
	/* Whether the device has it is open, so it stays pinned. */
	CHECK(vm_pin_kib() == 1024);
	FAILS(ioctl(fd, VGPU_IOCTL_UNMAP_REGION, &arg), ENODEV);
	CHECK(ioctl(fd, VGPU_IOCTL_CLOSE_SESSION) == 0);
	CHECK(vm_pin_kib() == 0);
}
