// SPDX-License-Identifier: GPL-2.0-only
/*
 * The two virtqueues.
 *
 * Control queue: requests go out, each gets one answer. A request is allocated, submitted and, by
 * vgpu_call(), waited for. The wait is limited in time and ends when the caller is killed; the request
 * stays with the queue until the device gives it back, so a late answer is written to memory that still
 * is the request's. What the outcome means for memory named in the request is the caller's business:
 * VGPU_UNKNOWN means that it must not be given back yet.
 *
 * Event queue: VGPU_EVENT_BUFFERS buffers are always posted. An event is handled in the interrupt: wakes
 * of a session are bits in its shared page, so events of one session coalesce.
 *
 * A kick (frames for a parked worker) puts nothing into a queue: it sets the session's bit in the pending
 * page and notifies the control queue. It calls virtqueue_notify() itself, because the suppression of
 * notifications that virtqueue_kick_prepare() obeys is about buffers.
 */
#define pr_fmt(fmt) "vgpu: " fmt

#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "vgpu.h"

struct vgpu_request *vgpu_request_alloc(u32 kind, u32 slot, const void *body, size_t body_len,
					size_t reply_room, gfp_t gfp)
{
	struct vgpu_request_header *header;
	struct vgpu_request *req;

	if (WARN_ON_ONCE(sizeof(*header) + body_len > VGPU_HEAD_BYTES))
		return NULL;
	req = kzalloc(sizeof(*req), gfp);
	if (!req)
		return NULL;
	req->reply = kzalloc(sizeof(*req->reply) + reply_room, gfp);
	if (!req->reply) {
		kfree(req);
		return NULL;
	}
	refcount_set(&req->refs, 1);
	init_completion(&req->done);
	req->reply_room = reply_room;

	header = (struct vgpu_request_header *)req->head;
	header->kind = kind;
	header->session = slot;
	if (body_len)
		memcpy(req->head + sizeof(*header), body, body_len);

	sg_init_table(req->out, ARRAY_SIZE(req->out));
	sg_set_buf(&req->out[0], req->head, sizeof(*header) + body_len);
	req->nr_out = 1;
	sg_init_one(&req->in, req->reply, sizeof(*req->reply) + reply_room);
	return req;
}

/* Appends memory to the request, which owns it from now on. */
void vgpu_request_add_payload(struct vgpu_request *req, void *payload, size_t len)
{
	req->payload = payload;
	sg_set_buf(&req->out[req->nr_out++], payload, len);
}

/* Appends a block of runs. The block must live until the device has answered, or for as long as the session. */
void vgpu_request_add_block(struct vgpu_request *req, const struct vgpu_run_block *block)
{
	if (WARN_ON_ONCE(req->nr_out >= ARRAY_SIZE(req->out)))
		return;
	sg_set_buf(&req->out[req->nr_out++], block->runs, block->count * sizeof(*block->runs));
}

/* Also in interrupts. */
void vgpu_request_put(struct vgpu_request *req)
{
	if (!refcount_dec_and_test(&req->refs))
		return;
	kfree(req->payload);
	kfree(req->reply);
	kfree(req);
}

/* The queue has no more to do with the request. */
static void vgpu_request_complete(struct vgpu_request *req, int status)
{
	req->status = status;
	if (req->finished)
		req->finished(req);
	complete_all(&req->done);
	vgpu_request_put(req);
}

/* The device has written the answer, @len bytes as it says. */
static void vgpu_request_answered(struct vgpu_request *req, u32 len)
{
	const struct vgpu_request_header *header = (const struct vgpu_request_header *)req->head;
	const struct vgpu_reply_header *reply = req->reply;

	if (len < sizeof(*reply) || reply->request_id != header->request_id ||
	    reply->len > len - sizeof(*reply) || reply->len > req->reply_room) {
		pr_err_ratelimited("answer to request %u (type %u) makes no sense: %u bytes, id %u, length %u\n",
				   header->request_id, header->kind, len, reply->request_id, reply->len);
		vgpu_request_complete(req, -EPROTO);
		return;
	}
	req->reply_len = reply->len;
	vgpu_request_complete(req, 0);
}

static void vgpu_notify(struct vgpu_device *dev, struct virtqueue *vq)
{
	/* Removal sets stopped and waits for this section before it deletes the queues. */
	rcu_read_lock();
	if (!READ_ONCE(dev->stopped)) {
		vgpu_count(dev, VGPU_DOORBELLS);
		virtqueue_notify(vq);
	}
	rcu_read_unlock();
}

/* Tries to put the request into the queue. @seen: value of dev->answered at the attempt. */
static int vgpu_request_add(struct vgpu_device *dev, struct vgpu_request *req, unsigned long *seen)
{
	struct vgpu_request_header *header = (struct vgpu_request_header *)req->head;
	struct scatterlist *sgs[2] = { req->out, &req->in };
	unsigned long irq;
	bool notify = false;
	int err;

	sg_mark_end(&req->out[req->nr_out - 1]);
	spin_lock_irqsave(&dev->lock, irq);
	*seen = dev->answered;
	if (dev->stopped) {
		err = -ENODEV;
	} else {
		header->request_id = ++dev->next_request_id;
		refcount_inc(&req->refs);
		err = virtqueue_add_sgs(dev->control, sgs, 1, 1, req, GFP_ATOMIC);
		if (err) {
			refcount_dec(&req->refs);
		} else {
			vgpu_count(dev, VGPU_REQUESTS);
			notify = virtqueue_kick_prepare(dev->control);
		}
	}
	spin_unlock_irqrestore(&dev->lock, irq);
	if (notify)
		vgpu_notify(dev, dev->control);
	return err;
}

/*
 * Gives the request to the device, and waits for room in the queue where there is none: @forever, or until
 * the caller is killed or VGPU_CALL_TIMEOUT has passed. An error means that the device has not seen it.
 */
int vgpu_request_submit(struct vgpu_device *dev, struct vgpu_request *req, bool forever)
{
	unsigned long deadline = jiffies + VGPU_CALL_TIMEOUT;

	for (;;) {
		unsigned long seen;
		long left;
		int err = vgpu_request_add(dev, req, &seen);

		if (!err)
			return 0;
		if (err != -ENOSPC && err != -ENOMEM)
			return -ENODEV;	/* stopped, or broken */
#define VGPU_ROOM (READ_ONCE(dev->answered) != seen || READ_ONCE(dev->stopped))
		if (forever) {
			wait_event(dev->space, VGPU_ROOM);
			continue;
		}
		left = (long)(deadline - jiffies);
		if (left <= 0)
			return -ETIMEDOUT;
		left = wait_event_killable_timeout(dev->space, VGPU_ROOM, left);
		if (left < 0)
			return -EINTR;
		if (!left)
			return -ETIMEDOUT;
#undef VGPU_ROOM
	}
}

/*
 * Errors after which the device holds nothing of the request. The others (no worker, no answer of the
 * worker in time, and those that this driver does not know) leave that open.
 */
static bool vgpu_error_is_refusal(u32 error)
{
	switch (error) {
	case VGPU_ERROR_INVALID_REQUEST:
	case VGPU_ERROR_TOO_LARGE:
	case VGPU_ERROR_CUDA:
	case VGPU_ERROR_INVALID_POOL:
	case VGPU_ERROR_QUEUE_FULL:
	case VGPU_ERROR_UNSUPPORTED:
	case VGPU_ERROR_INVALID_LENGTH:
	case VGPU_ERROR_RATE_LIMITED:
		return true;
	}
	return false;
}

/*
 * Submits the request and waits for its answer. The caller keeps its reference.
 *
 * Return: 0, -EREMOTEIO (the device answered with an error: @answer), -EINTR (killed), -ETIMEDOUT,
 * -ENODEV (the device is gone), -EPROTO (the answer makes no sense).
 */
int vgpu_call(struct vgpu_device *dev, struct vgpu_request *req, struct vgpu_answer *answer)
{
	long left;
	int err;

	*answer = (struct vgpu_answer){ .outcome = VGPU_REFUSED };
	err = vgpu_request_submit(dev, req, false);
	if (err)
		return err;

	answer->outcome = VGPU_UNKNOWN;
	left = wait_for_completion_killable_timeout(&req->done, VGPU_CALL_TIMEOUT);
	if (left < 0)
		return -EINTR;
	if (!left) {
		pr_warn_ratelimited("no answer to request type %u within %u s\n",
				    ((struct vgpu_request_header *)req->head)->kind, VGPU_CALL_TIMEOUT / HZ);
		return -ETIMEDOUT;
	}
	if (req->status)
		return req->status;

	answer->error = req->reply->error;
	answer->cuda_result = req->reply->cuda_result;
	if (answer->error == VGPU_ERROR_NONE) {
		answer->outcome = VGPU_DONE;
		return 0;
	}
	if (vgpu_error_is_refusal(answer->error))
		answer->outcome = VGPU_REFUSED;
	return -EREMOTEIO;
}

/* A call without payload and without bytes in the answer. */
int vgpu_call_body(struct vgpu_device *dev, u32 kind, u32 slot, const void *body, size_t body_len,
		   struct vgpu_answer *answer)
{
	struct vgpu_request *req = vgpu_request_alloc(kind, slot, body, body_len, 0, GFP_KERNEL);
	int err;

	if (!req) {
		*answer = (struct vgpu_answer){ .outcome = VGPU_REFUSED };
		return -ENOMEM;
	}
	err = vgpu_call(dev, req, answer);
	vgpu_request_put(req);
	return err;
}

static void vgpu_control_callback(struct virtqueue *vq)
{
	struct vgpu_device *dev = vq->vdev->priv;
	struct vgpu_request *req;
	unsigned long irq;
	u32 len;

	spin_lock_irqsave(&dev->lock, irq);
	do {
		virtqueue_disable_cb(vq);
		while ((req = virtqueue_get_buf(vq, &len))) {
			dev->answered++;
			vgpu_request_answered(req, len);
		}
	} while (!virtqueue_enable_cb(vq));
	spin_unlock_irqrestore(&dev->lock, irq);
	wake_up_all(&dev->space);
}

static void vgpu_handle_event(struct vgpu_device *dev, const struct vgpu_event *event)
{
	struct vgpu_session *s = NULL;

	lockdep_assert_held(&dev->lock);
	if (event->session < VGPU_SESSIONS_MAX)
		s = dev->sessions[event->session];
	if (!s)
		return;	/* the session has ended meanwhile */
	switch (event->kind) {
	case VGPU_EVENT_WAKE:
		vgpu_session_wake(s);
		break;
	case VGPU_EVENT_SESSION_DIED:
		/* The device has written the page first; else the event is about an earlier owner of the slot. */
		if (READ_ONCE(vgpu_shared_page(s)->state) != VGPU_SESSION_DEAD)
			break;
		pr_info_ratelimited("session %u has died, reason %u\n", s->slot, event->reason);
		vgpu_session_died(s);
		break;
	default:
		pr_warn_ratelimited("unknown event type %u\n", event->kind);
	}
}

static int vgpu_post_event_buffer(struct vgpu_device *dev, struct vgpu_event *buffer)
{
	struct scatterlist sg;

	sg_init_one(&sg, buffer, sizeof(*buffer));
	return virtqueue_add_inbuf(dev->events, &sg, 1, buffer, GFP_ATOMIC);
}

static void vgpu_event_callback(struct virtqueue *vq)
{
	struct vgpu_device *dev = vq->vdev->priv;
	struct vgpu_event *buffer, event;
	bool notify = false;
	unsigned long irq;
	u32 len;

	spin_lock_irqsave(&dev->lock, irq);
	if (dev->stopped)
		goto out;
	do {
		virtqueue_disable_cb(vq);
		while ((buffer = virtqueue_get_buf(vq, &len))) {
			event = *buffer;
			vgpu_count(dev, VGPU_EVENTS);
			memset(buffer, 0, sizeof(*buffer));
			vgpu_post_event_buffer(dev, buffer);
			if (len >= sizeof(event))
				vgpu_handle_event(dev, &event);
			else
				pr_warn_ratelimited("event of %u bytes ignored\n", len);
		}
	} while (!virtqueue_enable_cb(vq));
	notify = virtqueue_kick_prepare(vq);
out:
	spin_unlock_irqrestore(&dev->lock, irq);
	if (notify)
		vgpu_notify(dev, vq);
}

/* Finds the queues and starts the device. */
int vgpu_queues_start(struct vgpu_device *dev)
{
	static const char *const names[] = { "control", "events" };
	static vq_callback_t *const callbacks[] = { vgpu_control_callback, vgpu_event_callback };
	struct virtqueue *vqs[VGPU_QUEUE_COUNT];
	unsigned long irq;
	bool notify;
	u32 i;
	int err;

	BUILD_BUG_ON(VGPU_QUEUE_COUNT != 2 || VGPU_QUEUE_CONTROL != 0 || VGPU_QUEUE_EVENT != 1);
	BUILD_BUG_ON(sizeof(struct vgpu_event) != VGPU_EVENT_BYTES);

	memset(dev->pending, 0, PAGE_SIZE);
	reinit_completion(&dev->quiet);
	err = vgpu_find_two_queues(dev->vdev, vqs, names, callbacks);
	if (err) {
		dev_err(&dev->vdev->dev, "the device does not have the two queues that are needed (%d)\n", err);
		return err;
	}
	if (virtqueue_get_vring_size(vqs[VGPU_QUEUE_CONTROL]) < VGPU_SG_MAX) {
		dev_err(&dev->vdev->dev, "a control queue of %u entries is too short, %u are needed\n",
			virtqueue_get_vring_size(vqs[VGPU_QUEUE_CONTROL]), VGPU_SG_MAX);
		dev->vdev->config->del_vqs(dev->vdev);
		return -EINVAL;
	}

	spin_lock_irqsave(&dev->lock, irq);
	dev->control = vqs[VGPU_QUEUE_CONTROL];
	dev->events = vqs[VGPU_QUEUE_EVENT];
	for (i = 0; i < VGPU_EVENT_BUFFERS; i++)
		if (vgpu_post_event_buffer(dev, &dev->event_buffers[i]))
			break;	/* a queue shorter than that: fewer wakes under way */
	dev->stopped = false;
	spin_unlock_irqrestore(&dev->lock, irq);

	virtio_device_ready(dev->vdev);

	spin_lock_irqsave(&dev->lock, irq);
	notify = virtqueue_kick_prepare(dev->events);
	spin_unlock_irqrestore(&dev->lock, irq);
	if (notify)
		vgpu_notify(dev, dev->events);
	return 0;
}

/*
 * Stops the device. Afterwards it touches no memory of ours, every request has its completion, and no
 * queue exists.
 */
void vgpu_queues_stop(struct vgpu_device *dev)
{
	struct vgpu_request *req;
	unsigned long irq;

	spin_lock_irqsave(&dev->lock, irq);
	WRITE_ONCE(dev->stopped, true);
	spin_unlock_irqrestore(&dev->lock, irq);
	synchronize_rcu();
	wake_up_all(&dev->space);

	virtio_reset_device(dev->vdev);
	complete_all(&dev->quiet);
	while ((req = virtqueue_detach_unused_buf(dev->control)))
		vgpu_request_complete(req, -ENODEV);
	while (virtqueue_detach_unused_buf(dev->events))
		;
	dev->vdev->config->del_vqs(dev->vdev);
}

/* Frames wait for the session's parked worker. */
void vgpu_kick(struct vgpu_device *dev, u32 slot)
{
	vgpu_count(dev, VGPU_KICKS);
	set_bit(slot, dev->pending);
	/* The bit before the notification: the device clears the bit after it was notified. */
	smp_mb__after_atomic();
	vgpu_notify(dev, dev->control);
}
