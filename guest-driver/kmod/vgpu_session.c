// SPDX-License-Identifier: GPL-2.0-only
/*
 * The life of a session.
 *
 *   open    a slot of the table, the session page, the mmu notifier, OPEN_SESSION. A failure on the way,
 *           the caller's death included, ends the session like any other.
 *   live    calls run between vgpu_session_begin() and vgpu_session_finish().
 *   dead    the device has said that the worker is gone (or the device itself is). Every call fails, all
 *           waiters return; memory stays until the end.
 *   ending  our side has let go: CLOSE_SESSION, exit of the process, last close of the file, removal.
 *           The end work waits for calls in progress, then sends CLOSE_SESSION and waits for ever.
 *   reaped  the answer is here (the worker was reaped), or the device was reset. Pages are unpinned, ring
 *           memory is let go, the slot is free.
 *
 * An address space has one session: a second OPEN_SESSION from it gets EBUSY until the first is ending.
 */
#define pr_fmt(fmt) "vgpu: " fmt

#include <linux/cred.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vgpu.h"

/* How long OPEN_SESSION waits for the slot of a session that is ending. */
#define VGPU_SLOT_PATIENCE (10 * HZ)
/* Pause before CLOSE_SESSION is sent again, where the device could not carry it out. */
#define VGPU_CLOSE_RETRY (1 * HZ)

/* ---- waking and waiting ---- */

static void vgpu_session_wake_all(struct vgpu_session *s)
{
	u32 ring;

	for (ring = 0; ring < VGPU_RINGS_MAX; ring++)
		wake_up_all(&s->wait[ring]);
}

/* The device has set wake bits in the session page and posted an event. In interrupts. */
void vgpu_session_wake(struct vgpu_session *s)
{
	struct vgpu_session_page *page = vgpu_shared_page(s);
	u32 word;

	/*
	 * First event_posted, then the bits: a bit that the device sets after we took the word finds
	 * event_posted 0 and brings an event of its own. Both xchg are full barriers.
	 */
	xchg(&page->event_posted, 0);
	for (word = 0; word < ARRAY_SIZE(page->wake); word++) {
		u64 bits = xchg(&page->wake[word], 0);

		while (bits) {
			u32 ring = word * 64 + __ffs64(bits);

			bits &= bits - 1;
			set_bit(ring, s->woken);
			wake_up_all(&s->wait[ring]);
		}
	}
}

/* The device says that the session is over. Also in interrupts. */
void vgpu_session_died(struct vgpu_session *s)
{
	set_bit(VGPU_SESSION_IS_DEAD, &s->flags);
	vgpu_session_wake_all(s);
}

/*
 * Sleeps until the device has woken the ring since the last call.
 *
 * Return: 0 (woken), -ETIME, -EINTR (a signal came), -ENODEV (the session is over), -ENOENT (no such ring).
 */
int vgpu_session_wait(struct vgpu_session *s, u32 ring, u32 timeout_ms)
{
	long timeout = timeout_ms ? msecs_to_jiffies(timeout_ms) : MAX_SCHEDULE_TIMEOUT;
	bool woken = false;
	long left;

	if (ring >= VGPU_RINGS_MAX || READ_ONCE(s->rings[ring].state) == VGPU_RING_FREE)
		return -ENOENT;
	vgpu_count(s->dev, VGPU_WAITS);
	if (!test_bit(ring, s->woken))
		vgpu_count(s->dev, VGPU_SLEEPS);
	left = wait_event_interruptible_timeout(s->wait[ring],
						(woken = test_and_clear_bit(ring, s->woken)) ||
						vgpu_session_over(s), timeout);
	if (vgpu_session_over(s))
		return -ENODEV;
	if (woken)
		return 0;
	return left < 0 ? -EINTR : -ETIME;
}

/* ---- the end ---- */

static void vgpu_session_free(struct kref *refs)
{
	struct vgpu_session *s = container_of(refs, struct vgpu_session, refs);

	vgpu_device_put(s->dev);
	kvfree(s);
}

void vgpu_session_put(struct vgpu_session *s)
{
	kref_put(&s->refs, vgpu_session_free);
}

/* Starts the end, once. From any context. The caller has a reference, or the notifier does. */
void vgpu_session_end(struct vgpu_session *s)
{
	if (test_and_set_bit(VGPU_SESSION_IS_ENDING, &s->flags))
		return;
	vgpu_session_wake_all(s);
	queue_delayed_work(s->dev->wq, &s->end, 0);
}

/* Tells the process, where the device has not done so. The session page exists: s is in the table. */
static void vgpu_session_mark_dead(struct vgpu_session *s)
{
	struct vgpu_session_page *page = vgpu_shared_page(s);

	if (READ_ONCE(page->state) == VGPU_SESSION_DEAD)
		return;
	WRITE_ONCE(page->reason, VGPU_DEATH_SHUTDOWN);
	smp_store_release(&page->state, VGPU_SESSION_DEAD);
}

/* The device has nothing of the session any more. */
static void vgpu_session_reap(struct vgpu_session *s)
{
	struct vgpu_device *dev = s->dev;
	struct vgpu_memory *page;
	unsigned long irq;

	vgpu_session_mark_dead(s);
	vgpu_regions_release(s);
	vgpu_rings_release(s);
	if (s->notified)
		mmu_notifier_unregister(&s->notifier, s->mm);
	mmdrop(s->mm);

	spin_lock_irqsave(&dev->lock, irq);
	dev->sessions[s->slot] = NULL;
	dev->nr_sessions--;
	dev->reaped++;
	spin_unlock_irqrestore(&dev->lock, irq);

	/* After the table: events find the session page through it. */
	spin_lock(&s->lock);
	page = s->page;
	s->page = NULL;
	spin_unlock(&s->lock);
	vgpu_memory_put(page);

	complete_all(&s->ended);
	wake_up_all(&dev->idle);
	vgpu_session_put(s);
}

static void vgpu_reap_work(struct work_struct *work)
{
	struct vgpu_session *s = container_of(work, struct vgpu_session, reap);
	struct vgpu_request *close = s->close;
	u32 error = close->status ? VGPU_ERROR_NONE : close->reply->error;
	bool closed;

	/*
	 * -ENODEV comes after the device's reset. INVALID_REQUEST: the device does not know the session (any
	 * more), so it has nothing of it. Anything else, an answer that makes no sense included: the worker
	 * may live.
	 */
	if (close->status)
		closed = close->status == -ENODEV;
	else
		closed = error == VGPU_ERROR_NONE || error == VGPU_ERROR_INVALID_REQUEST;
	s->close = NULL;
	vgpu_request_put(close);
	if (closed) {
		vgpu_session_reap(s);
		return;
	}
	pr_warn_ratelimited("session %u could not be closed (error %u), trying again\n", s->slot, error);
	queue_delayed_work(s->dev->wq, &s->end, VGPU_CLOSE_RETRY);
}

/* In interrupts, or where the device is stopped. */
static void vgpu_close_finished(struct vgpu_request *req)
{
	struct vgpu_session *s = req->context;

	queue_work(s->dev->wq, &s->reap);
}

static void vgpu_end_work(struct work_struct *work)
{
	struct vgpu_session *s = container_of(to_delayed_work(work), struct vgpu_session, end);
	const struct vgpu_session_ref body = {};

	/* Calls in progress finish; later ones see that the session is ending. */
	down_write(&s->ops);
	up_write(&s->ops);
	if (!s->at_device) {
		vgpu_session_reap(s);
		return;
	}

	s->close = vgpu_request_alloc(VGPU_CLOSE_SESSION, s->slot, &body, sizeof(body), 0,
				      GFP_KERNEL);
	if (!s->close) {
		queue_delayed_work(s->dev->wq, &s->end, VGPU_CLOSE_RETRY);
		return;
	}
	s->close->context = s;
	s->close->finished = vgpu_close_finished;
	if (vgpu_request_submit(s->dev, s->close, true)) {
		/* The device is being removed, or it is broken until it is: nothing is safe before its reset. */
		vgpu_request_put(s->close);
		s->close = NULL;
		wait_for_completion(&s->dev->quiet);
		vgpu_session_reap(s);
	}
}

/* The device is going away: every session is dead and ends. */
void vgpu_sessions_end_all(struct vgpu_device *dev)
{
	unsigned long irq;
	u32 slot;

	for (slot = 0; slot < VGPU_SESSIONS_MAX; slot++) {
		struct vgpu_session *s;

		spin_lock_irqsave(&dev->lock, irq);
		s = dev->sessions[slot];
		if (s) {
			kref_get(&s->refs);
			vgpu_session_mark_dead(s);
			vgpu_session_died(s);
		}
		spin_unlock_irqrestore(&dev->lock, irq);
		if (!s)
			continue;
		vgpu_session_end(s);
		vgpu_session_put(s);
	}
}

/* ---- the address space ---- */

/* exit, exec, SIGKILL: the last user of the address space is gone, whoever still holds the file. */
static void vgpu_mm_release(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	vgpu_session_end(container_of(notifier, struct vgpu_session, notifier));
}

static const struct mmu_notifier_ops vgpu_mm_ops = {
	.release = vgpu_mm_release,
};

/* ---- the beginning ---- */

static struct vgpu_session *vgpu_session_alloc(struct vgpu_device *dev)
{
	struct vgpu_session *s = kvzalloc(sizeof(*s), GFP_KERNEL_ACCOUNT);
	u32 ring;

	BUILD_BUG_ON(sizeof(struct vgpu_session_page) > VGPU_SESSION_PAGE_BYTES);
	if (!s)
		return ERR_PTR(-ENOMEM);
	s->page = vgpu_memory_alloc(VGPU_SESSION_PAGE_BYTES, VGPU_MMAP_SESSION_PAGE);
	if (IS_ERR(s->page)) {
		int err = PTR_ERR(s->page);

		kvfree(s);
		return ERR_PTR(err);
	}
	kref_init(&s->refs);
	init_rwsem(&s->ops);
	INIT_DELAYED_WORK(&s->end, vgpu_end_work);
	INIT_WORK(&s->reap, vgpu_reap_work);
	init_completion(&s->ended);
	spin_lock_init(&s->lock);
	xa_init_flags(&s->regions, XA_FLAGS_ALLOC);
	INIT_LIST_HEAD(&s->limbo);
	for (ring = 0; ring < VGPU_RINGS_MAX; ring++)
		init_waitqueue_head(&s->wait[ring]);
	s->notifier.ops = &vgpu_mm_ops;
	s->mm = current->mm;
	mmgrab(s->mm);
	s->dev = dev;
	vgpu_device_get(dev);
	return s;
}

/*
 * Gives the session a slot. The table has a reference of its own, which reaping drops. @reaped: value of
 * dev->reaped at the attempt; -EAGAIN: no slot is free, but one will be.
 */
static int vgpu_session_try_enter(struct vgpu_device *dev, struct vgpu_session *s, unsigned long *reaped)
{
	u32 limit = dev->session_limit;
	bool one_ends = false;
	unsigned long irq;
	u32 slot, i;
	int err = 0;

	spin_lock_irqsave(&dev->lock, irq);
	*reaped = dev->reaped;
	if (dev->closing || dev->stopped) {
		err = -ENODEV;
		goto out;
	}
	for (slot = 0; slot < VGPU_SESSIONS_MAX; slot++) {
		const struct vgpu_session *other = dev->sessions[slot];

		if (!other)
			continue;
		if (test_bit(VGPU_SESSION_IS_ENDING, &other->flags)) {
			one_ends = true;
		} else if (other->mm == s->mm) {
			err = -EBUSY;
			goto out;
		}
	}
	/* Not the lowest free one: a slot rests as long as possible before it means another process. */
	for (i = 0; i < limit; i++) {
		slot = (dev->next_slot + i) % limit;
		if (!dev->sessions[slot])
			break;
	}
	if (i == limit) {
		err = one_ends ? -EAGAIN : -EUSERS;
		goto out;
	}
	dev->next_slot = (slot + 1) % limit;
	s->slot = slot;
	kref_get(&s->refs);
	dev->sessions[slot] = s;
	dev->nr_sessions++;
out:
	spin_unlock_irqrestore(&dev->lock, irq);
	return err;
}

static int vgpu_session_enter(struct vgpu_device *dev, struct vgpu_session *s)
{
	unsigned long deadline = jiffies + VGPU_SLOT_PATIENCE;

	for (;;) {
		unsigned long reaped;
		long left;
		int err = vgpu_session_try_enter(dev, s, &reaped);

		if (err != -EAGAIN)
			return err;
		left = (long)(deadline - jiffies);
		if (left <= 0)
			return -EUSERS;
		left = wait_event_killable_timeout(dev->idle,
						   READ_ONCE(dev->reaped) != reaped || READ_ONCE(dev->closing),
						   left);
		if (left < 0)
			return -EINTR;
	}
}

/* Sends OPEN_SESSION with the environment block in user memory. */
static int vgpu_session_greet(struct vgpu_session *s, const struct vgpu_ioctl_open *arg,
			      struct vgpu_answer *answer)
{
	struct vgpu_open_session body = {
		.abi_version = arg->abi_version,
		.pid = task_tgid_nr(current),
		.page_gpa = page_to_phys(s->page->pages[0]),
		.env_len = arg->env_len,
		.uid = from_kuid_munged(&init_user_ns, current_uid()),
	};
	struct vgpu_request *req;
	void *env;
	int err;

	memcpy(body.fingerprint, arg->fingerprint, sizeof(body.fingerprint));
	req = vgpu_request_alloc(VGPU_OPEN_SESSION, s->slot, &body, sizeof(body), 0, GFP_KERNEL);
	if (!req)
		return -ENOMEM;
	if (arg->env_len) {
		env = memdup_user(u64_to_user_ptr(arg->env), arg->env_len);
		if (IS_ERR(env)) {
			err = PTR_ERR(env);
			goto out;
		}
		vgpu_request_add_payload(req, env, arg->env_len);
	}
	err = vgpu_call(s->dev, req, answer);
out:
	vgpu_request_put(req);
	return err;
}

/* Opens a session for the caller's address space. The caller gets a reference. */
struct vgpu_session *vgpu_session_open(struct vgpu_device *dev, const struct vgpu_ioctl_open *arg,
				       struct vgpu_answer *answer)
{
	struct vgpu_session *s;
	int err;

	*answer = (struct vgpu_answer){ .outcome = VGPU_REFUSED };
	if (arg->abi_version != VGPU_ABI_VERSION)
		return ERR_PTR(-EPROTO);
	if (arg->env_len > VGPU_ENV_BYTES_MAX)
		return ERR_PTR(-E2BIG);

	s = vgpu_session_alloc(dev);
	if (IS_ERR(s))
		return s;
	err = vgpu_session_enter(dev, s);
	if (err) {
		mmdrop(s->mm);
		vgpu_memory_put(s->page);
		vgpu_session_put(s);
		return ERR_PTR(err);
	}

	/* From here on the session is in the table, and goes only by its end. */
	err = vgpu_session_begin(s);
	if (err)
		goto end;
	err = mmu_notifier_register(&s->notifier, s->mm);
	if (!err) {
		s->notified = true;
		err = vgpu_session_greet(s, arg, answer);
		s->at_device = answer->outcome != VGPU_REFUSED;
	}
	vgpu_session_finish(s);
	if (!err)
		return s;
end:
	vgpu_session_end(s);
	vgpu_session_put(s);
	return ERR_PTR(err);
}

/* A call that changes the session begins. On success vgpu_session_finish() must follow. */
int vgpu_session_begin(struct vgpu_session *s)
{
	if (down_read_killable(&s->ops))
		return -EINTR;
	if (vgpu_session_over(s)) {
		up_read(&s->ops);
		return -ENODEV;
	}
	return 0;
}

void vgpu_session_finish(struct vgpu_session *s)
{
	up_read(&s->ops);
}
