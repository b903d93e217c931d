// SPDX-License-Identifier: GPL-2.0-only
/*
 * The plain PCI function: the device where it is no virtio device of QEMU's.
 *
 * Its queue registers say where two virtqueues are, as virtio's own transports do. So this is such a transport:
 * the PCI driver makes a virtio device of the function, with the id by which the virtio driver knows its own, and
 * everything else is as behind the other carriers. The function's other BARs are left to programs.
 *
 * One interrupt, a message (MSI), serves both queues.
 */
#define pr_fmt(fmt) "vgpu: " fmt

#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "vgpu.h"

/* Descriptors of a queue. */
#define VGPU_FUNCTION_QUEUE_SIZE 256
/* What a function reads as that is not there any more, or whose device model has ended. */
#define VGPU_FUNCTION_GONE (~0U)

struct vgpu_function {
	struct virtio_device vdev;
	struct pci_dev *pdev;
	void __iomem *regs;
	struct virtqueue *queues[VGPU_QUEUE_COUNT];	/* read by the interrupt */
};

static struct vgpu_function *to_vgpu_function(struct virtio_device *vdev)
{
	return container_of(vdev, struct vgpu_function, vdev);
}

static void vgpu_write64(struct vgpu_function *fn, u32 at, u64 value)
{
	iowrite32(lower_32_bits(value), fn->regs + at);
	iowrite32(upper_32_bits(value), fn->regs + at + 4);
}

/* ---- the virtio transport ---- */

static void vgpu_function_get(struct virtio_device *vdev, unsigned int offset, void *buf, unsigned int len)
{
	memcpy_fromio(buf, to_vgpu_function(vdev)->regs + VGPU_OFF_QUEUES_CONFIG + offset, len);
}

static void vgpu_function_set(struct virtio_device *vdev, unsigned int offset, const void *buf, unsigned int len)
{
	memcpy_toio(to_vgpu_function(vdev)->regs + VGPU_OFF_QUEUES_CONFIG + offset, buf, len);
}

static u8 vgpu_function_get_status(struct virtio_device *vdev)
{
	return ioread32(to_vgpu_function(vdev)->regs + VGPU_OFF_QUEUES_STATUS);
}

static void vgpu_function_set_status(struct virtio_device *vdev, u8 status)
{
	/* 0 would be a reset. */
	if (!WARN_ON_ONCE(!status))
		iowrite32(status, to_vgpu_function(vdev)->regs + VGPU_OFF_QUEUES_STATUS);
}

/* Afterwards the device touches no memory of ours: where its end of the function has died, it does so no more either. */
static void vgpu_function_reset(struct virtio_device *vdev)
{
	struct vgpu_function *fn = to_vgpu_function(vdev);
	u32 status;

	iowrite32(0, fn->regs + VGPU_OFF_QUEUES_STATUS);
	while ((status = ioread32(fn->regs + VGPU_OFF_QUEUES_STATUS)) && status != VGPU_FUNCTION_GONE)
		msleep(1);
	synchronize_irq(pci_irq_vector(fn->pdev, 0));
}

static u64 vgpu_function_get_features(struct virtio_device *vdev)
{
	void __iomem *features = to_vgpu_function(vdev)->regs + VGPU_OFF_QUEUES_FEATURES;

	return ioread32(features) | (u64)ioread32(features + 4) << 32;
}

static int vgpu_function_finalize_features(struct virtio_device *vdev)
{
	vring_transport_features(vdev);
	vgpu_write64(to_vgpu_function(vdev), VGPU_OFF_QUEUES_DRIVER_FEATURES, vdev->features);
	return 0;
}

static const char *vgpu_function_bus_name(struct virtio_device *vdev)
{
	return pci_name(to_vgpu_function(vdev)->pdev);
}

static bool vgpu_function_notify(struct virtqueue *vq)
{
	iowrite32(vq->index, to_vgpu_function(vq->vdev)->regs + VGPU_OFF_QUEUES_KICK);
	return true;
}

static irqreturn_t vgpu_function_interrupt(int irq, void *opaque)
{
	struct vgpu_function *fn = opaque;
	u32 i;

	for (i = 0; i < VGPU_QUEUE_COUNT; i++) {
		struct virtqueue *vq = READ_ONCE(fn->queues[i]);

		if (vq)
			vring_interrupt(irq, vq);
	}
	/* Also where neither has anything: programs that use the mailbox may have asked for it. */
	return IRQ_HANDLED;
}

static void vgpu_function_del_vqs(struct virtio_device *vdev)
{
	struct vgpu_function *fn = to_vgpu_function(vdev);
	struct virtqueue *vq, *next;
	u32 i;

	for (i = 0; i < VGPU_QUEUE_COUNT; i++)
		WRITE_ONCE(fn->queues[i], NULL);
	synchronize_irq(pci_irq_vector(fn->pdev, 0));
	list_for_each_entry_safe(vq, next, &vdev->vqs, list)
		vring_del_virtqueue(vq);
}

static int vgpu_function_find_vq(struct vgpu_function *fn, u32 index, vq_callback_t *callback, const char *name)
{
	u32 at = VGPU_OFF_QUEUES_FIRST + index * VGPU_OFF_QUEUE_STRIDE;
	u32 size = min_t(u32, VGPU_FUNCTION_QUEUE_SIZE, ioread32(fn->regs + VGPU_OFF_QUEUES_SIZE_MAX));
	struct virtqueue *vq;

	if (index >= VGPU_QUEUE_COUNT)
		return -ENOENT;
	vq = vring_create_virtqueue(index, size, SMP_CACHE_BYTES, &fn->vdev, true, true, false,
				    vgpu_function_notify, callback, name);
	if (!vq)
		return -ENOMEM;
	iowrite32(virtqueue_get_vring_size(vq), fn->regs + at + VGPU_OFF_QUEUE_SIZE);
	vgpu_write64(fn, at + VGPU_OFF_QUEUE_DESCRIPTORS, virtqueue_get_desc_addr(vq));
	vgpu_write64(fn, at + VGPU_OFF_QUEUE_AVAILABLE, virtqueue_get_avail_addr(vq));
	vgpu_write64(fn, at + VGPU_OFF_QUEUE_USED, virtqueue_get_used_addr(vq));
	WRITE_ONCE(fn->queues[index], vq);
	return 0;
}

static int vgpu_function_find_vqs(VGPU_FIND_VQS_PARAMETERS)
{
	unsigned int i;
	int err;

	for (i = 0; i < nvqs; i++) {
		err = vgpu_function_find_vq(to_vgpu_function(vdev), i, VGPU_FIND_VQS_CALLBACK(i),
					    VGPU_FIND_VQS_NAME(i));
		if (err) {
			vgpu_function_del_vqs(vdev);
			return err;
		}
		vqs[i] = to_vgpu_function(vdev)->queues[i];
	}
	return 0;
}

static const struct virtio_config_ops vgpu_function_ops = {
	.get = vgpu_function_get,
	.set = vgpu_function_set,
	.get_status = vgpu_function_get_status,
	.set_status = vgpu_function_set_status,
	.reset = vgpu_function_reset,
	.find_vqs = vgpu_function_find_vqs,
	.del_vqs = vgpu_function_del_vqs,
	.get_features = vgpu_function_get_features,
	.finalize_features = vgpu_function_finalize_features,
	.bus_name = vgpu_function_bus_name,
};

/* ---- the PCI driver ---- */

static void vgpu_function_release(struct device *dev)
{
	kfree(to_vgpu_function(dev_to_virtio(dev)));
}

static bool vgpu_function_is_ours(struct vgpu_function *fn)
{
	u8 found[sizeof(VGPU_TAG) - 1];

	memcpy_fromio(found, fn->regs + VGPU_OFF_QUEUES_MAGIC, sizeof(found));
	return !memcmp(found, VGPU_TAG, sizeof(found));
}

static int vgpu_function_start(struct vgpu_function *fn)
{
	struct pci_dev *pdev = fn->pdev;
	int err;

	err = pci_enable_device(pdev);
	if (err)
		return err;
	err = pci_request_region(pdev, VGPU_BAR_QUEUES, "vgpu");
	if (err)
		goto disable;
	err = -ENODEV;
	fn->regs = pci_iomap(pdev, VGPU_BAR_QUEUES, VGPU_QUEUES_BAR_BYTES);
	if (!fn->regs)
		goto release;
	if (!vgpu_function_is_ours(fn)) {
		dev_err(&pdev->dev, "this function has our subsystem id and not our registers\n");
		goto unmap;
	}
	pci_set_master(pdev);
	err = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSI);
	if (err < 0)
		goto unmap;
	err = request_irq(pci_irq_vector(pdev, 0), vgpu_function_interrupt, 0, "vgpu", fn);
	if (err)
		goto no_irq;
	return 0;
no_irq:
	pci_free_irq_vectors(pdev);
unmap:
	pci_iounmap(pdev, fn->regs);
release:
	pci_release_region(pdev, VGPU_BAR_QUEUES);
disable:
	pci_disable_device(pdev);
	return err;
}

static void vgpu_function_stop(struct vgpu_function *fn)
{
	free_irq(pci_irq_vector(fn->pdev, 0), fn);
	pci_free_irq_vectors(fn->pdev);
	pci_iounmap(fn->pdev, fn->regs);
	pci_release_region(fn->pdev, VGPU_BAR_QUEUES);
	pci_disable_device(fn->pdev);
}

static int vgpu_function_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct vgpu_function *fn = kzalloc(sizeof(*fn), GFP_KERNEL);
	int err;

	if (!fn)
		return -ENOMEM;
	fn->pdev = pdev;
	fn->vdev.dev.parent = &pdev->dev;
	fn->vdev.dev.release = vgpu_function_release;
	fn->vdev.config = &vgpu_function_ops;
	fn->vdev.id.vendor = VGPU_PCI_SUBSYSTEM_VENDOR;
	fn->vdev.id.device = VGPU_VIRTIO_ID_GENERIC;
	err = vgpu_function_start(fn);
	if (err) {
		kfree(fn);
		return err;
	}
	pci_set_drvdata(pdev, fn);
	err = register_virtio_device(&fn->vdev);
	if (err) {
		vgpu_function_stop(fn);
		put_device(&fn->vdev.dev);	/* frees it */
	}
	return err;
}

static void vgpu_function_remove(struct pci_dev *pdev)
{
	struct vgpu_function *fn = pci_get_drvdata(pdev);
	struct device *dev = get_device(&fn->vdev.dev);

	/* Unplugged, or without a device model: nobody answers any more. */
	if (ioread32(fn->regs + VGPU_OFF_QUEUES_VERSION) == VGPU_FUNCTION_GONE)
		virtio_break_device(&fn->vdev);
	unregister_virtio_device(&fn->vdev);
	vgpu_function_stop(fn);
	put_device(dev);
}

#ifdef CONFIG_PM_SLEEP
static int vgpu_function_freeze(struct device *dev)
{
	struct vgpu_function *fn = pci_get_drvdata(to_pci_dev(dev));

	return virtio_device_freeze(&fn->vdev);
}

static int vgpu_function_restore(struct device *dev)
{
	struct vgpu_function *fn = pci_get_drvdata(to_pci_dev(dev));

	pci_set_master(fn->pdev);
	return virtio_device_restore(&fn->vdev);
}
#endif

static SIMPLE_DEV_PM_OPS(vgpu_function_pm, vgpu_function_freeze, vgpu_function_restore);

static const struct pci_device_id vgpu_function_ids[] = {
	{ PCI_ANY_ID, PCI_ANY_ID, VGPU_PCI_SUBSYSTEM_VENDOR, VGPU_PCI_SUBSYSTEM_DEVICE },
	{ 0 },
};
MODULE_DEVICE_TABLE(pci, vgpu_function_ids);

static struct pci_driver vgpu_pci_driver = {
	.name = "vgpu",
	.id_table = vgpu_function_ids,
	.probe = vgpu_function_probe,
	.remove = vgpu_function_remove,
	.driver.pm = &vgpu_function_pm,
};

/* After the virtio driver was registered. */
int vgpu_functions_start(void)
{
	return pci_register_driver(&vgpu_pci_driver);
}

void vgpu_functions_stop(void)
{
	pci_unregister_driver(&vgpu_pci_driver);
}
