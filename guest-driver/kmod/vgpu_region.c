// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pinned user memory.
 *
 * MAP_REGION pins a range of the process for long, tells the device the page runs, and the worker maps them
 * at the same address. UNMAP_REGION tells the device, and unpins when it has answered. A region longer than
 * one request goes in pieces with one region number.
 *
 * What a pin means for the process
 *   - It is the pages that are pinned, not the range. If the process unmaps the range, or maps something
 *     else there, the worker keeps the old pages; they stay pinned until UNMAP_REGION or the end of the
 *     session. So there is no mmu notifier that invalidates.
 *   - After fork a write by the parent would give the parent a new page under the pin. User space calls
 *     madvise(MADV_DONTFORK) on what it registers; kernels from 5.19 on copy for the child instead.
 *   - Pinned pages count in the process's pinned_vm (VmPin), but RLIMIT_MEMLOCK does not refuse them:
 *     NVIDIA's driver does not ask it either, and programs rely on that. The limit is memory_limit_mb.
 *
 * Where it stays unknown whether the device has a region, its pages stay pinned until the session's end.
 */
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "vgpu.h"

/* Pages pinned at a time: their array is a page. */
#define VGPU_PIN_BATCH (PAGE_SIZE / sizeof(struct page *))

enum vgpu_region_state {
	VGPU_REGION_BUSY,		/* a call is changing it */
	VGPU_REGION_LIVE,
	VGPU_REGION_LOST,		/* unknown to us what the device thinks of it: kept until the end */
};

struct vgpu_region {
	u32 number;
	enum vgpu_region_state state;
	bool read_only;
	u64 va;
	u64 len;
	unsigned long nr_pinned;
	struct vgpu_runs runs;
};

/* ---- pinning ---- */

static void vgpu_region_unpin(struct vgpu_session *s, struct vgpu_region *region)
{
	struct vgpu_run_block *block;
	u32 i;

	list_for_each_entry(block, &region->runs.blocks, node) {
		for (i = 0; i < block->count; i++) {
			const struct vgpu_run *run = &block->runs[i];

			unpin_user_page_range_dirty_lock(pfn_to_page(PHYS_PFN(run->gpa)),
							 run->len >> PAGE_SHIFT, !region->read_only);
			cond_resched();
		}
	}
	atomic64_sub(region->nr_pinned, &s->mm->pinned_vm);
	region->nr_pinned = 0;
}

static long vgpu_pin_batch(u64 va, unsigned long nr, bool read_only, struct page **pages)
{
	long got;

	if (!read_only)
		return pin_user_pages_fast(va, nr, FOLL_WRITE | FOLL_LONGTERM, pages);
	if (VGPU_READ_ONLY_PIN_NEEDS_FORCE) {
		got = pin_user_pages_fast(va, nr, FOLL_WRITE | FOLL_FORCE | FOLL_LONGTERM, pages);
		/* A shared mapping that cannot be written has no page of its own to be given. */
		if (got != -EFAULT)
			return got;
	}
	return pin_user_pages_fast(va, nr, FOLL_LONGTERM, pages);
}

/* Pins the range. Where it fails, what was pinned until then is in @region->runs, for vgpu_region_release(). */
static int vgpu_region_pin(struct vgpu_session *s, struct vgpu_region *region)
{
	unsigned long left = region->len >> PAGE_SHIFT;
	struct page **pages;
	u64 va = region->va;
	int err = 0;

	pages = (struct page **)__get_free_page(GFP_KERNEL);
	if (!pages)
		return -ENOMEM;
	while (left) {
		long got, i;

		if (fatal_signal_pending(current)) {
			err = -EINTR;
			break;
		}
		got = vgpu_pin_batch(va, min_t(unsigned long, left, VGPU_PIN_BATCH), region->read_only, pages);
		if (got <= 0) {
			err = got ? got : -EFAULT;
			break;
		}
		for (i = 0; i < got; i++) {
			err = vgpu_runs_add(&region->runs, pages[i], 1);
			if (err)
				break;
		}
		region->nr_pinned += i;
		atomic64_add(i, &s->mm->pinned_vm);
		if (err) {
			unpin_user_pages(pages + i, got - i);
			break;
		}
		left -= got;
		va += (u64)got << PAGE_SHIFT;
		cond_resched();
	}
	free_page((unsigned long)pages);
	return err;
}

/* ---- telling the device ---- */

/* Sends the piece that starts at block @first; @next becomes the block after it. */
static int vgpu_region_send_piece(struct vgpu_session *s, struct vgpu_region *region, u64 va,
				  struct vgpu_run_block *first, struct vgpu_run_block **next,
				  struct vgpu_answer *answer)
{
	struct vgpu_map_region body = {
		.region = region->number,
		.flags = region->read_only ? VGPU_MAP_READ_ONLY : 0,
		.va = va,
	};
	struct vgpu_run_block *block = first, *last = first;
	struct vgpu_request *req;
	unsigned int blocks = 0;
	int err;

	list_for_each_entry_from(block, &region->runs.blocks, node) {
		if (blocks++ == VGPU_REQUEST_BLOCKS)
			break;
		body.len += block->bytes;
		body.run_count += block->count;
		last = block;
	}
	req = vgpu_request_alloc(VGPU_MAP_REGION, s->slot, &body, sizeof(body), 0, GFP_KERNEL);
	if (!req) {
		*answer = (struct vgpu_answer){ .outcome = VGPU_REFUSED };
		return -ENOMEM;
	}
	for (block = first;; block = list_next_entry(block, node)) {
		vgpu_request_add_block(req, block);
		if (block == last)
			break;
	}
	*next = list_next_entry(last, node);
	err = vgpu_call(s->dev, req, answer);
	vgpu_request_put(req);
	return err;
}

static int vgpu_region_send_unmap(struct vgpu_session *s, struct vgpu_region *region, struct vgpu_answer *answer)
{
	const struct vgpu_region_ref body = { .region = region->number };

	return vgpu_call_body(s->dev, VGPU_UNMAP_REGION, s->slot, &body, sizeof(body), answer);
}

/*
 * Sends all pieces. @answer->outcome says of the whole region whether the device has it: after a failure in
 * a later piece the earlier ones are taken back.
 */
static int vgpu_region_send(struct vgpu_session *s, struct vgpu_region *region, struct vgpu_answer *answer)
{
	struct vgpu_run_block *block =
		list_first_entry(&region->runs.blocks, struct vgpu_run_block, node);
	bool first = true;
	u64 va = region->va;

	BUILD_BUG_ON(VGPU_REQUEST_BLOCKS * VGPU_BLOCK_RUNS > VGPU_RUNS_MAX);
	while (!list_entry_is_head(block, &region->runs.blocks, node)) {
		struct vgpu_run_block *piece = block;
		struct vgpu_answer undo;
		int err;

		err = vgpu_region_send_piece(s, region, va, piece, &block, answer);
		if (err) {
			if (answer->outcome == VGPU_REFUSED && !first) {
				vgpu_region_send_unmap(s, region, &undo);
				if (undo.outcome != VGPU_DONE)
					answer->outcome = VGPU_UNKNOWN;
			}
			return err;
		}
		for (; piece != block; piece = list_next_entry(piece, node))
			va += piece->bytes;
		first = false;
	}
	return 0;
}

/* ---- the calls ---- */

/* The device has nothing of the region. The caller has made it busy, or is alone. */
static void vgpu_region_release(struct vgpu_session *s, struct vgpu_region *region)
{
	vgpu_region_unpin(s, region);
	vgpu_uncharge(region->len >> PAGE_SHIFT);
	/* Under the lock: who looks the region up reads its state under it. */
	spin_lock(&s->lock);
	xa_erase(&s->regions, region->number);
	spin_unlock(&s->lock);
	vgpu_runs_free(&region->runs);
	kfree(region);
}

static void vgpu_region_set(struct vgpu_session *s, struct vgpu_region *region, enum vgpu_region_state state)
{
	spin_lock(&s->lock);
	region->state = state;
	spin_unlock(&s->lock);
}

/*
 * Errors: -EOPNOTSUPP (the device cannot map guest pages; memory that cannot be pinned for long), -EINVAL
 * (alignment, flags), -EFAULT (not mapped, or not writable), -ENOSPC (no region number is free), -ENOMEM
 * (memory_limit_mb), and those of vgpu_call().
 */
int vgpu_region_map(struct vgpu_session *s, struct vgpu_ioctl_region *arg)
{
	struct vgpu_region *region;
	struct vgpu_answer answer;
	int err;

	if (!(s->dev->capabilities & VGPU_CAP_MAP_GUEST_PAGES))
		return -EOPNOTSUPP;
	if (!arg->len || (arg->va | arg->len) % PAGE_SIZE || arg->va + arg->len < arg->va ||
	    arg->flags & ~VGPU_MAP_READ_ONLY || arg->reserved)
		return -EINVAL;
	if (arg->va + arg->len > TASK_SIZE)
		return -EFAULT;

	region = kzalloc(sizeof(*region), GFP_KERNEL_ACCOUNT);
	if (!region)
		return -ENOMEM;
	region->va = arg->va;
	region->len = arg->len;
	region->read_only = arg->flags & VGPU_MAP_READ_ONLY;
	region->state = VGPU_REGION_BUSY;
	vgpu_runs_init(&region->runs);
	err = vgpu_charge(region->len >> PAGE_SHIFT);
	if (err)
		goto free;
	err = xa_alloc(&s->regions, &region->number, region, XA_LIMIT(0, VGPU_REGIONS_MAX - 1),
		       GFP_KERNEL_ACCOUNT);
	if (err) {
		err = err == -EBUSY ? -ENOSPC : err;
		vgpu_uncharge(region->len >> PAGE_SHIFT);
		goto free;
	}
	err = vgpu_region_pin(s, region);
	if (err) {
		vgpu_region_release(s, region);
		return err;
	}

	arg->region = region->number;
	err = vgpu_region_send(s, region, &answer);
	arg->error = answer.error;
	switch (answer.outcome) {
	case VGPU_DONE:
		vgpu_region_set(s, region, VGPU_REGION_LIVE);
		break;
	case VGPU_REFUSED:
		vgpu_region_release(s, region);
		break;
	case VGPU_UNKNOWN:
		vgpu_region_set(s, region, VGPU_REGION_LOST);
		break;
	}
	return err;
free:
	kfree(region);
	return err;
}

/* Errors: -ENOENT, -EBUSY (another call is changing it), -ENODEV (lost), and those of vgpu_call(). */
int vgpu_region_unmap(struct vgpu_session *s, struct vgpu_ioctl_region *arg)
{
	struct vgpu_region *region;
	struct vgpu_answer answer;
	int err;

	spin_lock(&s->lock);
	region = xa_load(&s->regions, arg->region);
	if (!region) {
		err = -ENOENT;
	} else if (region->state != VGPU_REGION_LIVE) {
		err = region->state == VGPU_REGION_BUSY ? -EBUSY : -ENODEV;
	} else {
		region->state = VGPU_REGION_BUSY;
		err = 0;
	}
	spin_unlock(&s->lock);
	if (err)
		return err;

	err = vgpu_region_send_unmap(s, region, &answer);
	arg->error = answer.error;
	switch (answer.outcome) {
	case VGPU_DONE:
		vgpu_region_release(s, region);
		break;
	case VGPU_REFUSED:
		vgpu_region_set(s, region, VGPU_REGION_LIVE);
		break;
	case VGPU_UNKNOWN:
		vgpu_region_set(s, region, VGPU_REGION_LOST);
		break;
	}
	return err;
}

/* The session was reaped: no call is in progress, and the device has no region of it. */
void vgpu_regions_release(struct vgpu_session *s)
{
	struct vgpu_region *region;
	unsigned long index;

	xa_for_each(&s->regions, index, region)
		vgpu_region_release(s, region);
	xa_destroy(&s->regions);
}
