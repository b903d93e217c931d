/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The driver of the vgpu device: what its files share.
 *
 * A guest process that uses the GPU opens /dev/vgpu and gets a session. The driver asks the device for
 * it over the control queue, hands the process command rings in guest memory, pins memory that the
 * process names, and wakes its threads when the device says so on the event queue. It moves no CUDA
 * call: those pass through the rings between the process and its worker on the host.
 *
 *   vgpu_main.c     module, virtio driver, probe and remove, greeting (HELLO)
 *   vgpu_pci.c      the plain PCI function, as a virtio device
 *   vgpu_claim.c    takes our device back from the virtiofs driver where that was first
 *   vgpu_queue.c    control requests and events
 *   vgpu_ioctl.c    /dev/vgpu: files and ioctls
 *   vgpu_session.c  life of a session
 *   vgpu_ring.c     rings and staging buffers
 *   vgpu_region.c   pinned user memory
 *   vgpu_mmap.c     memory shared with the device, run lists, mmap
 *   vgpu_counters.c what is counted, in sysfs
 *   vgpu_compat.h   differences between kernel versions
 *
 * What outlives what
 *   - Memory that the device was told of is given back only when the device has said that it is done
 *     with it (the answer to REMOVE_RING, UNMAP_REGION or CLOSE_SESSION), or after the device was reset.
 *     A request that was not answered in time, or whose caller was killed, leaves its memory with the
 *     session until the session's end. The session's end waits for its answer for ever.
 *   - A request belongs to two: the caller and the queue. The last one frees it.
 *   - A session belongs to its file and to the device's table. It ends with the first of: CLOSE_SESSION,
 *     the end of the address space that opened it (a forked child that holds the file does not matter),
 *     the last close of the file, removal of the device. Its slot is used again only when it was reaped.
 *   - Ring memory belongs to the session and to each mapping.
 *
 * Locks, outermost first
 *   vgpu_file.lock      mutex: opening a session on a file
 *   vgpu_session.ops    rw_semaphore: shared by every call that changes rings or regions; the end of
 *                       the session takes it exclusively once, after which there are no such calls
 *   mm->mmap_lock       taken by pinning, by copies from and to user space, by mmu_notifier_register();
 *                       held by the kernel around our mmap and fault handlers
 *   vgpu_session.lock   spinlock: rings, regions' states, limbo. Never in interrupts
 *   vgpu_device.lock    spinlock, interrupts off: the two virtqueues, the session table
 *   wait queue locks
 * The mmap and fault handlers take nothing outside vgpu_session.lock. The mmu notifier's release only
 * queues work. A kick takes no lock: it runs in an RCU read section, which removal waits for.
 */
#ifndef _VGPU_H
#define _VGPU_H

#include <linux/completion.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/mmu_notifier.h>
#include <linux/percpu.h>
#include <linux/rwsem.h>
#include <linux/scatterlist.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "vgpu_ioctl.h"
#include "vgpu_layout.h"

#include "vgpu_compat.h"

/* Runs in one block: a page of them. */
#define VGPU_BLOCK_RUNS (PAGE_SIZE / sizeof(struct vgpu_run))
/*
 * Blocks in one request. With it a request needs at most VGPU_SG_MAX descriptors, which a short queue
 * has too, and stays far below the device's limits (VGPU_RUNS_MAX, VGPU_REQUEST_BYTES_MAX).
 */
#define VGPU_REQUEST_BLOCKS 16
/* Header and body, an owned payload or the blocks, the answer. */
#define VGPU_SG_MAX (2 + VGPU_REQUEST_BLOCKS)
/* Header and the longest body. */
#define VGPU_HEAD_BYTES 128
/* How long a call waits for the device's answer. */
#define VGPU_CALL_TIMEOUT (30 * HZ)

/* ---- memory ---- */

/* A page of runs. */
struct vgpu_run_block {
	struct list_head node;
	u32 count;
	u64 bytes;
	struct vgpu_run *runs;
};

/* Guest-physical runs, neighbours merged. */
struct vgpu_runs {
	struct list_head blocks;
};

/* Kernel pages shared with the device and mapped by the process. */
struct vgpu_memory {
	struct kref refs;
	struct list_head limbo;
	unsigned long pgoff;		/* where the file offset of its first page is, in pages */
	unsigned long nr_pages;
	struct vgpu_runs runs;
	struct page **pages;
};

/* ---- counters ---- */

enum vgpu_count {
	VGPU_DOORBELLS,
	VGPU_KICKS,
	VGPU_WAITS,
	VGPU_SLEEPS,
	VGPU_REQUESTS,
	VGPU_EVENTS,
	VGPU_COUNTS,
};

/* What one CPU has counted. */
struct vgpu_counters {
	u64 of[VGPU_COUNTS];
};

extern const struct attribute_group *vgpu_groups[];

/* ---- device ---- */

enum vgpu_device_state {
	VGPU_GREETING,			/* HELLO is not answered yet */
	VGPU_READY,
	VGPU_INCOMPATIBLE,		/* the device speaks another ABI version */
};

struct vgpu_device {
	struct kref refs;
	struct miscdevice misc;
	struct virtio_device *vdev;	/* valid until stopped */
	struct virtqueue *control;
	struct virtqueue *events;
	struct vgpu_event *event_buffers;
	unsigned long *pending;		/* page: a bit per session slot, read by the device at a kick */
	struct workqueue_struct *wq;
	struct vgpu_counters __percpu *counters;

	enum vgpu_device_state state;
	u32 capabilities;
	u32 session_limit;		/* slots below it may be used */
	u32 ring_limit;
	wait_queue_head_t ready;
	struct delayed_work greet;
	struct work_struct greeted;
	struct vgpu_request *hello;

	spinlock_t lock;		/* the queues, and what follows */
	bool closing;			/* no new sessions */
	bool stopped;			/* no queue may be used */
	unsigned long answered;		/* control answers so far */
	u32 next_request_id;
	u32 next_slot;
	u32 nr_sessions;
	unsigned long reaped;		/* sessions reaped so far */
	struct vgpu_session *sessions[VGPU_SESSIONS_MAX];

	wait_queue_head_t space;	/* answered has grown, or stopped */
	wait_queue_head_t idle;		/* reaped has grown, nr_sessions is less, or closing */
	struct completion quiet;	/* the device was reset: it touches no memory any more */
};

/* One more. From any context. */
static inline void vgpu_count(struct vgpu_device *dev, enum vgpu_count what)
{
	this_cpu_inc(dev->counters->of[what]);
}

/* ---- control requests ---- */

struct vgpu_request {
	refcount_t refs;
	struct completion done;
	/* 0: the reply is there; else why there is none. Valid once done, or in finished(). */
	int status;
	/* Called once when there is an answer or there will be none; in interrupts. May be NULL. */
	void (*finished)(struct vgpu_request *req);
	void *context;

	void *payload;			/* owned, may be NULL */
	struct vgpu_reply_header *reply;
	u32 reply_room;			/* bytes after the reply header */
	u32 reply_len;			/* bytes that came */

	u32 nr_out;
	struct scatterlist out[VGPU_SG_MAX - 1];
	struct scatterlist in;
	u8 head[VGPU_HEAD_BYTES];
};

/* What is known of a request after vgpu_call(). */
enum vgpu_outcome {
	VGPU_DONE,			/* carried out */
	VGPU_REFUSED,			/* not carried out: never sent, or the device said so */
	VGPU_UNKNOWN,			/* the device may have carried it out, or may do so yet */
};

struct vgpu_answer {
	enum vgpu_outcome outcome;
	u32 error;			/* VGPU_ERROR_* */
	u32 cuda_result;
};

struct vgpu_request *vgpu_request_alloc(u32 kind, u32 slot, const void *body, size_t body_len,
					size_t reply_room, gfp_t gfp);
void vgpu_request_add_payload(struct vgpu_request *req, void *payload, size_t len);
void vgpu_request_add_block(struct vgpu_request *req, const struct vgpu_run_block *block);
void vgpu_request_put(struct vgpu_request *req);
int vgpu_request_submit(struct vgpu_device *dev, struct vgpu_request *req, bool forever);
int vgpu_call(struct vgpu_device *dev, struct vgpu_request *req, struct vgpu_answer *answer);
int vgpu_call_body(struct vgpu_device *dev, u32 kind, u32 slot, const void *body, size_t body_len,
		   struct vgpu_answer *answer);
int vgpu_queues_start(struct vgpu_device *dev);
void vgpu_queues_stop(struct vgpu_device *dev);
void vgpu_kick(struct vgpu_device *dev, u32 slot);

/* ---- sessions ---- */

enum vgpu_ring_state {
	VGPU_RING_FREE,
	VGPU_RING_BUSY,			/* a call is changing it */
	VGPU_RING_LIVE,
	VGPU_RING_LOST,			/* unknown to us what the device thinks of it: kept until the end */
};

struct vgpu_ring {
	enum vgpu_ring_state state;
	struct vgpu_memory *part[2];	/* VGPU_PART_RING, VGPU_PART_STAGING */
};

enum {
	VGPU_SESSION_IS_DEAD,		/* the device said so, or it is gone */
	VGPU_SESSION_IS_ENDING,		/* on our side */
};

struct vgpu_session {
	struct kref refs;
	struct vgpu_device *dev;
	struct mm_struct *mm;		/* whose it is; grabbed until reaped, then only compared */
	struct mmu_notifier notifier;
	bool notified;			/* notifier is registered */
	bool at_device;			/* OPEN_SESSION was sent and not refused */
	u32 slot;
	unsigned long flags;
	struct rw_semaphore ops;
	struct delayed_work end;
	struct work_struct reap;
	struct vgpu_request *close;
	struct completion ended;

	spinlock_t lock;
	struct vgpu_memory *page;
	struct vgpu_ring rings[VGPU_RINGS_MAX];
	struct xarray regions;
	struct list_head limbo;		/* memory of parts whose fate is unknown */

	DECLARE_BITMAP(woken, VGPU_RINGS_MAX);
	wait_queue_head_t wait[VGPU_RINGS_MAX];
};

static inline struct vgpu_session_page *vgpu_shared_page(struct vgpu_session *s)
{
	return page_address(s->page->pages[0]);
}

/* No call of this session can succeed any more. */
static inline bool vgpu_session_over(const struct vgpu_session *s)
{
	return READ_ONCE(s->flags) != 0;
}

struct vgpu_session *vgpu_session_open(struct vgpu_device *dev, const struct vgpu_ioctl_open *arg,
				       struct vgpu_answer *answer);
int vgpu_session_begin(struct vgpu_session *s);
void vgpu_session_finish(struct vgpu_session *s);
void vgpu_session_end(struct vgpu_session *s);
void vgpu_session_put(struct vgpu_session *s);
void vgpu_sessions_end_all(struct vgpu_device *dev);
void vgpu_session_wake(struct vgpu_session *s);
void vgpu_session_died(struct vgpu_session *s);
int vgpu_session_wait(struct vgpu_session *s, u32 ring, u32 timeout_ms);

/* ---- rings ---- */

int vgpu_ring_create(struct vgpu_session *s, struct vgpu_ioctl_ring *arg);
int vgpu_ring_remove(struct vgpu_session *s, struct vgpu_ioctl_ring *arg);
int vgpu_ring_add_staging(struct vgpu_session *s, struct vgpu_ioctl_ring *arg);
void vgpu_rings_release(struct vgpu_session *s);

/* ---- regions ---- */

int vgpu_region_map(struct vgpu_session *s, struct vgpu_ioctl_region *arg);
int vgpu_region_unmap(struct vgpu_session *s, struct vgpu_ioctl_region *arg);
void vgpu_regions_release(struct vgpu_session *s);

/* ---- memory ---- */

int vgpu_charge(unsigned long pages);
void vgpu_uncharge(unsigned long pages);
void vgpu_check_uncharged(void);
void vgpu_runs_init(struct vgpu_runs *runs);
int vgpu_runs_add(struct vgpu_runs *runs, struct page *page, unsigned long nr);
void vgpu_runs_free(struct vgpu_runs *runs);
struct vgpu_memory *vgpu_memory_alloc(u64 bytes, u64 offset);
void vgpu_memory_put(struct vgpu_memory *mem);
int vgpu_mmap(struct file *filp, struct vm_area_struct *vma);

/* ---- files ---- */

/* An open /dev/vgpu. */
struct vgpu_file {
	struct vgpu_device *dev;
	struct mutex lock;
	struct vgpu_session *session;	/* set once, never cleared before the file's release */
};

extern const struct file_operations vgpu_fops;

void vgpu_device_get(struct vgpu_device *dev);
void vgpu_device_put(struct vgpu_device *dev);
int vgpu_device_ready(struct vgpu_device *dev);

/* ---- claiming ---- */

bool vgpu_is_ours(struct virtio_device *vdev);
int vgpu_claim_start(struct virtio_driver *driver);
void vgpu_claim_stop(void);

/* ---- the plain PCI function ---- */

int vgpu_functions_start(void);
void vgpu_functions_stop(void);

#endif /* _VGPU_H */
