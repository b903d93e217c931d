// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that the driver allocates and shares with device and process (session page, rings, staging), the
 * run lists by which the device is told of memory, and mmap.
 *
 * Memory is made of the largest blocks of pages that can be had, so that the device gets few runs, and
 * split into single pages, so that each can be mapped. Each mapping has a reference to the memory; the last
 * reference frees it. Whoever maps it later than the session's end therefore sees its own old pages, never
 * another's.
 *
 * A mapping is shared, covers the whole object and is not inherited by fork; the session page's cannot be
 * made writable. Pages are put into it at once, and again by the fault handler where the process has thrown
 * them out (MADV_DONTNEED).
 *
 * vgpu_charge() counts every page that the driver holds for processes: this memory, and pinned user
 * memory. The sum over all sessions has a limit, because such pages can neither be swapped out nor moved.
 */
#define pr_fmt(fmt) "vgpu: " fmt

#include <linux/module.h>
#include <linux/slab.h>

#include "vgpu.h"

/* Largest block of pages asked for: 2 MiB. */
#define VGPU_MEMORY_ORDER 9
/* Longest run: so that a request full of runs stays below the device's limit of 1 TiB. */
#define VGPU_RUN_BYTES_MAX (128ULL << 20)

static unsigned long vgpu_memory_limit_mb;
module_param_named(memory_limit_mb, vgpu_memory_limit_mb, ulong, 0644);
MODULE_PARM_DESC(memory_limit_mb,
		 "most memory in MiB that all sessions together may pin or be given (0, the default: three quarters of RAM)");

static atomic_long_t vgpu_charged;

/* Counts pages in, or says -ENOMEM where that would exceed the limit. */
int vgpu_charge(unsigned long pages)
{
	unsigned long mb = READ_ONCE(vgpu_memory_limit_mb);
	unsigned long limit = mb ? mb << (20 - PAGE_SHIFT) : totalram_pages() / 4 * 3;
	unsigned long charged = atomic_long_add_return(pages, &vgpu_charged);

	if (charged <= limit)
		return 0;
	atomic_long_sub(pages, &vgpu_charged);
	pr_warn_ratelimited("%s asks for %lu pages beyond the %lu that all sessions may hold\n",
			    current->comm, charged - limit, limit);
	return -ENOMEM;
}

void vgpu_uncharge(unsigned long pages)
{
	atomic_long_sub(pages, &vgpu_charged);
}

/* At the module's end: no file, no mapping and no session is left, so nothing may be held. */
void vgpu_check_uncharged(void)
{
	long held = atomic_long_read(&vgpu_charged);

	WARN(held, "vgpu: %ld pages are still counted as held\n", held);
}

/* ---- runs ---- */

void vgpu_runs_init(struct vgpu_runs *runs)
{
	INIT_LIST_HEAD(&runs->blocks);
}

/* Appends @nr physically contiguous pages. */
int vgpu_runs_add(struct vgpu_runs *runs, struct page *page, unsigned long nr)
{
	struct vgpu_run_block *block = NULL;
	u64 gpa = page_to_phys(page);
	u64 bytes = (u64)nr << PAGE_SHIFT;

	if (!list_empty(&runs->blocks)) {
		struct vgpu_run *last;

		block = list_last_entry(&runs->blocks, struct vgpu_run_block, node);
		last = &block->runs[block->count - 1];
		if (last->gpa + last->len == gpa && last->len + bytes <= VGPU_RUN_BYTES_MAX) {
			last->len += bytes;
			block->bytes += bytes;
			return 0;
		}
	}
	if (!block || block->count == VGPU_BLOCK_RUNS) {
		block = kzalloc(sizeof(*block), GFP_KERNEL_ACCOUNT);
		if (!block)
			return -ENOMEM;
		block->runs = (struct vgpu_run *)__get_free_page(GFP_KERNEL_ACCOUNT);
		if (!block->runs) {
			kfree(block);
			return -ENOMEM;
		}
		list_add_tail(&block->node, &runs->blocks);
	}
	block->runs[block->count++] = (struct vgpu_run){ .gpa = gpa, .len = bytes };
	block->bytes += bytes;
	return 0;
}

void vgpu_runs_free(struct vgpu_runs *runs)
{
	struct vgpu_run_block *block, *next;

	list_for_each_entry_safe(block, next, &runs->blocks, node) {
		free_page((unsigned long)block->runs);
		kfree(block);
	}
	INIT_LIST_HEAD(&runs->blocks);
}

/* ---- memory ---- */

static void vgpu_memory_free(struct kref *refs)
{
	struct vgpu_memory *mem = container_of(refs, struct vgpu_memory, refs);
	unsigned long i;

	for (i = 0; i < mem->nr_pages && mem->pages[i]; i++)
		__free_page(mem->pages[i]);
	vgpu_runs_free(&mem->runs);
	vgpu_uncharge(mem->nr_pages);
	kvfree(mem->pages);
	kfree(mem);
}

void vgpu_memory_put(struct vgpu_memory *mem)
{
	if (mem)
		kref_put(&mem->refs, vgpu_memory_free);
}

static int vgpu_memory_fill(struct vgpu_memory *mem)
{
	unsigned int order = VGPU_MEMORY_ORDER;
	unsigned long done = 0;

	while (done < mem->nr_pages) {
		gfp_t gfp = GFP_USER | __GFP_ACCOUNT | __GFP_ZERO;
		struct page *page;
		unsigned int i;
		int err;

		order = min_t(unsigned int, order, ilog2(mem->nr_pages - done));
		if (order)
			gfp |= __GFP_NORETRY | __GFP_NOWARN;
		page = alloc_pages(gfp, order);
		if (!page) {
			if (!order)
				return -ENOMEM;
			order--;
			continue;
		}
		if (order)
			split_page(page, order);
		for (i = 0; i < 1U << order; i++)
			mem->pages[done++] = page + i;
		err = vgpu_runs_add(&mem->runs, page, 1UL << order);
		if (err)
			return err;
	}
	return 0;
}

/* Zeroed memory of @bytes (whole pages) that is mapped at the file offset @offset. */
struct vgpu_memory *vgpu_memory_alloc(u64 bytes, u64 offset)
{
	struct vgpu_memory *mem = kzalloc(sizeof(*mem), GFP_KERNEL_ACCOUNT);
	int err;

	if (!mem)
		return ERR_PTR(-ENOMEM);
	kref_init(&mem->refs);
	INIT_LIST_HEAD(&mem->limbo);
	vgpu_runs_init(&mem->runs);
	mem->pgoff = offset >> PAGE_SHIFT;
	mem->nr_pages = bytes >> PAGE_SHIFT;
	err = vgpu_charge(mem->nr_pages);
	if (err) {
		kfree(mem);
		return ERR_PTR(err);
	}
	mem->pages = kvcalloc(mem->nr_pages, sizeof(*mem->pages), GFP_KERNEL_ACCOUNT);
	if (!mem->pages) {
		vgpu_uncharge(mem->nr_pages);
		kfree(mem);
		return ERR_PTR(-ENOMEM);
	}
	err = vgpu_memory_fill(mem);
	if (err) {
		vgpu_memory_put(mem);
		return ERR_PTR(err);
	}
	return mem;
}

/* ---- mmap ---- */

static void vgpu_vma_open(struct vm_area_struct *vma)
{
	struct vgpu_memory *mem = vma->vm_private_data;

	kref_get(&mem->refs);
}

static void vgpu_vma_close(struct vm_area_struct *vma)
{
	vgpu_memory_put(vma->vm_private_data);
}

static vm_fault_t vgpu_vma_fault(struct vm_fault *vmf)
{
	struct vgpu_memory *mem = vmf->vma->vm_private_data;
	unsigned long index = vmf->pgoff - mem->pgoff;

	if (index >= mem->nr_pages)
		return VM_FAULT_SIGBUS;
	vmf->page = mem->pages[index];
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct vgpu_vm_ops = {
	.open = vgpu_vma_open,
	.close = vgpu_vma_close,
	.fault = vgpu_vma_fault,
};

/* The memory at a file offset, with a reference. */
static struct vgpu_memory *vgpu_memory_at(struct vgpu_session *s, unsigned long pgoff)
{
	const unsigned long stride = VGPU_MMAP_RING_STRIDE >> PAGE_SHIFT;
	struct vgpu_memory *mem = NULL;
	unsigned long ring, part;

	spin_lock(&s->lock);
	if (pgoff < stride) {
		mem = s->page;
	} else {
		ring = pgoff / stride - 1;
		part = pgoff % stride < VGPU_MMAP_STAGING_OFFSET >> PAGE_SHIFT ? VGPU_PART_RING :
										 VGPU_PART_STAGING;
		if (ring < VGPU_RINGS_MAX)
			mem = s->rings[ring].part[part];
	}
	if (mem && mem->pgoff == pgoff)
		kref_get(&mem->refs);
	else
		mem = NULL;
	spin_unlock(&s->lock);
	return mem;
}

/*
 * Return: 0, -ENOTCONN (no session), -ECHILD (another process's), -ENODEV (the session is over), -ENOENT
 * (nothing at this offset), -EINVAL (not whole, or not shared), -EACCES (session page writable).
 */
int vgpu_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct vgpu_file *file = filp->private_data;
	struct vgpu_session *s = smp_load_acquire(&file->session);
	struct vgpu_memory *mem;
	unsigned long left;
	int err = -EINVAL;

	if (!s)
		return -ENOTCONN;
	if (vma->vm_mm != s->mm)
		return -ECHILD;
	if (vgpu_session_over(s))
		return -ENODEV;
	mem = vgpu_memory_at(s, vma->vm_pgoff);
	if (!mem)
		return -ENOENT;
	if (!(vma->vm_flags & VM_SHARED) || vma_pages(vma) != mem->nr_pages)
		goto put;
	vgpu_vm_flags(vma, VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP | VM_MIXEDMAP, 0);
	if (mem->pgoff == VGPU_MMAP_SESSION_PAGE >> PAGE_SHIFT) {
		err = -EACCES;
		if (vma->vm_flags & VM_WRITE)
			goto put;
		vgpu_vm_flags(vma, 0, VM_MAYWRITE);
	}
	left = mem->nr_pages;
	err = vm_insert_pages(vma, vma->vm_start, mem->pages, &left);
	if (err)
		goto put;
	/* The mapping's reference, which close drops. */
	vma->vm_private_data = mem;
	vma->vm_ops = &vgpu_vm_ops;
	return 0;
put:
	vgpu_memory_put(mem);
	return err;
}
