// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rings and their staging buffers.
 *
 * The driver allocates the memory and tells the device; it reads and writes nothing in it. A ring's index
 * is chosen here. A call claims the ring by making it busy, so calls about different rings run side by side
 * and two about the same one exclude each other (EBUSY).
 *
 * Where it stays unknown whether the device has a part (no answer in time, caller killed), the memory goes
 * to the session's limbo and the ring's index is lost until the session's end.
 */
#include <linux/slab.h>

#include "vgpu.h"

static u64 vgpu_part_offset(u32 ring, u32 part)
{
	return VGPU_MMAP_RING_STRIDE * (ring + 1) + (part == VGPU_PART_STAGING ? VGPU_MMAP_STAGING_OFFSET : 0);
}

static void vgpu_ring_set(struct vgpu_session *s, u32 ring, enum vgpu_ring_state state)
{
	spin_lock(&s->lock);
	WRITE_ONCE(s->rings[ring].state, state);
	spin_unlock(&s->lock);
}

/* Makes a live ring busy. */
static int vgpu_ring_claim(struct vgpu_session *s, u32 ring)
{
	int err = -ENOENT;

	if (ring >= VGPU_RINGS_MAX)
		return err;
	spin_lock(&s->lock);
	switch (s->rings[ring].state) {
	case VGPU_RING_LIVE:
		WRITE_ONCE(s->rings[ring].state, VGPU_RING_BUSY);
		err = 0;
		break;
	case VGPU_RING_BUSY:
		err = -EBUSY;
		break;
	case VGPU_RING_LOST:
		err = -ENODEV;
		break;
	case VGPU_RING_FREE:
		break;
	}
	spin_unlock(&s->lock);
	return err;
}

/* Makes a free ring busy: its index, or -EMFILE. */
static int vgpu_ring_claim_free(struct vgpu_session *s)
{
	u32 limit = min_t(u32, s->dev->ring_limit, VGPU_RINGS_MAX);
	int found = -EMFILE;
	u32 ring;

	spin_lock(&s->lock);
	for (ring = 0; ring < limit; ring++) {
		if (s->rings[ring].state == VGPU_RING_FREE) {
			WRITE_ONCE(s->rings[ring].state, VGPU_RING_BUSY);
			found = ring;
			break;
		}
	}
	spin_unlock(&s->lock);
	return found;
}

/* Allocates a part of a busy ring and gives it to the device. */
static int vgpu_ring_add_part(struct vgpu_session *s, u32 ring, u32 part, u64 len, struct vgpu_answer *answer)
{
	struct vgpu_add_ring_part body = { .ring = ring, .part = part, .len = len };
	struct vgpu_memory *mem = vgpu_memory_alloc(len, vgpu_part_offset(ring, part));
	struct vgpu_run_block *block;
	struct vgpu_request *req;
	unsigned int blocks = 0;
	int err;

	*answer = (struct vgpu_answer){ .outcome = VGPU_REFUSED };
	if (IS_ERR(mem))
		return PTR_ERR(mem);

	/* The largest part, of single pages everywhere, fits one request. */
	BUILD_BUG_ON(VGPU_STAGING_BYTES_MAX / PAGE_SIZE > VGPU_REQUEST_BLOCKS * VGPU_BLOCK_RUNS);
	list_for_each_entry(block, &mem->runs.blocks, node) {
		body.run_count += block->count;
		blocks++;
	}
	if (WARN_ON_ONCE(blocks > VGPU_REQUEST_BLOCKS)) {
		vgpu_memory_put(mem);
		return -EINVAL;
	}
	req = vgpu_request_alloc(VGPU_ADD_RING_PART, s->slot, &body, sizeof(body), 0, GFP_KERNEL);
	if (!req) {
		vgpu_memory_put(mem);
		return -ENOMEM;
	}
	list_for_each_entry(block, &mem->runs.blocks, node)
		vgpu_request_add_block(req, block);
	err = vgpu_call(s->dev, req, answer);
	vgpu_request_put(req);

	spin_lock(&s->lock);
	if (answer->outcome == VGPU_DONE) {
		s->rings[ring].part[part] = mem;
		mem = NULL;
	} else if (answer->outcome == VGPU_UNKNOWN) {
		list_add(&mem->limbo, &s->limbo);
		mem = NULL;
	}
	spin_unlock(&s->lock);
	vgpu_memory_put(mem);
	return err;
}

/* Errors: -EMFILE (no index is free), -ENOMEM, and those of vgpu_call(). */
int vgpu_ring_create(struct vgpu_session *s, struct vgpu_ioctl_ring *arg)
{
	struct vgpu_answer answer;
	int ring = vgpu_ring_claim_free(s);
	int err;

	BUILD_BUG_ON(VGPU_RING_BYTES % PAGE_SIZE);
	if (ring < 0)
		return ring;
	clear_bit(ring, s->woken);
	err = vgpu_ring_add_part(s, ring, VGPU_PART_RING, VGPU_RING_BYTES, &answer);
	arg->ring = ring;
	arg->error = answer.error;
	switch (answer.outcome) {
	case VGPU_DONE:
		vgpu_ring_set(s, ring, VGPU_RING_LIVE);
		break;
	case VGPU_REFUSED:
		vgpu_ring_set(s, ring, VGPU_RING_FREE);
		break;
	case VGPU_UNKNOWN:
		vgpu_ring_set(s, ring, VGPU_RING_LOST);
		break;
	}
	return err;
}

/* Errors: -EINVAL (length), -ENOENT, -EBUSY, -EEXIST (it has one), -ENOMEM, and those of vgpu_call(). */
int vgpu_ring_add_staging(struct vgpu_session *s, struct vgpu_ioctl_ring *arg)
{
	struct vgpu_answer answer;
	int err;

	if (!arg->len || arg->len % PAGE_SIZE || arg->len > VGPU_STAGING_BYTES_MAX)
		return -EINVAL;
	err = vgpu_ring_claim(s, arg->ring);
	if (err)
		return err;
	if (s->rings[arg->ring].part[VGPU_PART_STAGING]) {
		vgpu_ring_set(s, arg->ring, VGPU_RING_LIVE);
		return -EEXIST;
	}
	err = vgpu_ring_add_part(s, arg->ring, VGPU_PART_STAGING, arg->len, &answer);
	arg->error = answer.error;
	/* With the staging's fate unknown the ring itself still serves; a second try is refused by the device. */
	vgpu_ring_set(s, arg->ring, VGPU_RING_LIVE);
	return err;
}

/* Errors: -ENOENT, -EBUSY, and those of vgpu_call(). */
int vgpu_ring_remove(struct vgpu_session *s, struct vgpu_ioctl_ring *arg)
{
	const struct vgpu_ring_ref body = { .ring = arg->ring };
	struct vgpu_memory *parts[2] = {};
	struct vgpu_ring *ring;
	struct vgpu_answer answer;
	int err;

	err = vgpu_ring_claim(s, arg->ring);
	if (err)
		return err;
	ring = &s->rings[arg->ring];
	err = vgpu_call_body(s->dev, VGPU_REMOVE_RING, s->slot, &body, sizeof(body), &answer);
	arg->error = answer.error;
	switch (answer.outcome) {
	case VGPU_DONE:
		spin_lock(&s->lock);
		swap(parts[VGPU_PART_RING], ring->part[VGPU_PART_RING]);
		swap(parts[VGPU_PART_STAGING], ring->part[VGPU_PART_STAGING]);
		WRITE_ONCE(ring->state, VGPU_RING_FREE);
		spin_unlock(&s->lock);
		vgpu_memory_put(parts[VGPU_PART_RING]);
		vgpu_memory_put(parts[VGPU_PART_STAGING]);
		break;
	case VGPU_REFUSED:
		vgpu_ring_set(s, arg->ring, VGPU_RING_LIVE);
		break;
	case VGPU_UNKNOWN:
		vgpu_ring_set(s, arg->ring, VGPU_RING_LOST);
		break;
	}
	return err;
}

/* The session was reaped: no call is in progress, and the device has no ring of it. */
void vgpu_rings_release(struct vgpu_session *s)
{
	struct vgpu_memory *mem, *next;
	LIST_HEAD(gone);
	u32 ring, part;

	for (ring = 0; ring < VGPU_RINGS_MAX; ring++) {
		for (part = 0; part < ARRAY_SIZE(s->rings[ring].part); part++) {
			spin_lock(&s->lock);
			mem = s->rings[ring].part[part];
			s->rings[ring].part[part] = NULL;
			spin_unlock(&s->lock);
			vgpu_memory_put(mem);
		}
	}
	spin_lock(&s->lock);
	list_splice_init(&s->limbo, &gone);
	spin_unlock(&s->lock);
	list_for_each_entry_safe(mem, next, &gone, limbo)
		vgpu_memory_put(mem);
}
