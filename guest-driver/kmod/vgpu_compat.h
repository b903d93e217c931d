/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between the kernels that the module builds on, from 5.15. Each entry says in which version
 * the kernel changed.
 */
#ifndef _VGPU_COMPAT_H
#define _VGPU_COMPAT_H

#include <linux/mm.h>
#include <linux/version.h>
#include <linux/virtio_config.h>

#ifdef CONFIG_CPU_BIG_ENDIAN
#error "the device's structures are little endian, and this driver reads them as they are"
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 15, 0)
#error "Linux 5.15 or newer is needed"
#endif

/* 5.17: virtio_reset_device() */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 17, 0)
static inline void virtio_reset_device(struct virtio_device *vdev)
{
	vdev->config->reset(vdev);
}
#endif

/* 6.3: vm_flags are changed through functions, so that locking can be checked */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vgpu_vm_flags(struct vm_area_struct *vma, unsigned long set, unsigned long clear)
{
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
}
#else
static inline void vgpu_vm_flags(struct vm_area_struct *vma, unsigned long set, unsigned long clear)
{
	vm_flags_mod(vma, set, clear);
}
#endif

/* 6.11: virtio_find_vqs() takes a structure per queue */
static inline int vgpu_find_two_queues(struct virtio_device *vdev, struct virtqueue *vqs[2],
				       const char *const names[2], vq_callback_t *const callbacks[2])
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
	vq_callback_t *calls[2] = { callbacks[0], callbacks[1] };

	return virtio_find_vqs(vdev, 2, vqs, calls, names, NULL);
#else
	struct virtqueue_info infos[2] = {
		{ .name = names[0], .callback = callbacks[0] },
		{ .name = names[1], .callback = callbacks[1] },
	};

	return virtio_find_vqs(vdev, 2, vqs, infos, NULL);
#endif
}

/* The same from the other side: what a transport's find_vqs() is given. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
#define VGPU_FIND_VQS_PARAMETERS                                                                       \
	struct virtio_device *vdev, unsigned int nvqs, struct virtqueue *vqs[],                        \
		vq_callback_t *callbacks[], const char *const names[], const bool *ctx,                \
		struct irq_affinity *desc
#define VGPU_FIND_VQS_CALLBACK(i) (callbacks[i])
#define VGPU_FIND_VQS_NAME(i) (names[i])
#else
#define VGPU_FIND_VQS_PARAMETERS                                                                       \
	struct virtio_device *vdev, unsigned int nvqs, struct virtqueue *vqs[],                        \
		struct virtqueue_info vqs_info[], struct irq_affinity *desc
#define VGPU_FIND_VQS_CALLBACK(i) (vqs_info[i].callback)
#define VGPU_FIND_VQS_NAME(i) (vqs_info[i].name)
#endif

/*
 * 6.2: a long-term pin without FOLL_WRITE of a private mapping sees later writes of the process. Before,
 * the write intent had to be forced so that the process owned the page.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define VGPU_READ_ONLY_PIN_NEEDS_FORCE 1
#else
#define VGPU_READ_ONLY_PIN_NEEDS_FORCE 0
#endif

#endif /* _VGPU_COMPAT_H */
