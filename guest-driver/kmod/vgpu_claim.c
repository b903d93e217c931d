// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which devices are ours, and getting them.
 *
 * The usual carrier is QEMU's vhost-user file system device (virtio id 26) with the tag "VGPUSTUB". The
 * virtiofs driver takes every device with that id, and where it was there first (built into the kernel, as in
 * Debian's 6.12 cloud kernel, or loaded earlier) it has ours, too. A modprobe softdep helps only where both
 * are modules. So the driver looks at what other drivers have, and takes what carries our tag: when it is
 * loaded, and whenever another driver gets a device later. A file system with that tag cannot be mounted.
 *
 * A real file system that our driver was offered first must reach virtiofs as if we had not been there. The
 * virtio core leaves a device whose probe failed marked FAILED, which only a reset takes away: so we do that.
 *
 * The other carrier is the generic vhost-user device with id 21: the magic is in its register block.
 */
#define pr_fmt(fmt) "vgpu: " fmt

#include <linux/device.h>
#include <linux/string.h>
#include <linux/virtio_config.h>
#include <linux/workqueue.h>

#include "vgpu.h"

static struct virtio_driver *vgpu_driver;

/* Does the device carry our tag, alone and padded with zeros, or our magic? */
bool vgpu_is_ours(struct virtio_device *vdev)
{
	u8 found[VGPU_FS_TAG_BYTES] = {};
	u8 tag[VGPU_FS_TAG_BYTES] = VGPU_TAG;

	switch (vdev->id.device) {
	case VGPU_VIRTIO_ID_FS_CARRIER:
		virtio_cread_bytes(vdev, 0, found, sizeof(found));
		return !memcmp(found, tag, sizeof(tag));
	case VGPU_VIRTIO_ID_GENERIC:
		virtio_cread_bytes(vdev, VGPU_MAGIC, found, strlen(VGPU_TAG));
		return !memcmp(found, tag, strlen(VGPU_TAG));
	}
	return false;
}

static bool vgpu_is_file_system(struct device *dev)
{
	return dev_to_virtio(dev)->id.device == VGPU_VIRTIO_ID_FS_CARRIER && !vgpu_is_ours(dev_to_virtio(dev));
}

/* Takes the mark of our refusal from a device, as the bus hands devices to drivers. With the device's lock. */
static void vgpu_hand_back(struct device *dev)
{
	struct virtio_device *vdev = dev_to_virtio(dev);

	if (!(vdev->config->get_status(vdev) & VIRTIO_CONFIG_S_FAILED))
		return;
	virtio_reset_device(vdev);
	virtio_add_status(vdev, VIRTIO_CONFIG_S_ACKNOWLEDGE);
}

static bool vgpu_other_driver_has(struct device *dev)
{
	return dev->driver && dev->driver != &vgpu_driver->driver &&
	       dev_to_virtio(dev)->id.device == VGPU_VIRTIO_ID_FS_CARRIER;
}

static int vgpu_claim_device(struct device *dev, void *claimed)
{
	bool ours;

	device_lock(dev);
	ours = vgpu_other_driver_has(dev) && vgpu_is_ours(dev_to_virtio(dev));
	if (ours)
		dev_info(dev, "vgpu takes it over from %s: its tag is %s\n", dev->driver->name, VGPU_TAG);
	else if (!dev->driver && vgpu_is_file_system(dev))
		vgpu_hand_back(dev);	/* refused when our driver was registered, before the notifier was */
	device_unlock(dev);
	if (ours) {
		device_release_driver(dev);
		*(bool *)claimed = true;
	}
	return 0;
}

static void vgpu_claim(struct work_struct *work)
{
	bool claimed = false;

	bus_for_each_dev(vgpu_driver->driver.bus, NULL, &claimed, vgpu_claim_device);
	/* Offers every device without a driver to ours alone. */
	if (claimed && driver_attach(&vgpu_driver->driver))
		pr_err("a device taken over could not be probed\n");
}

static DECLARE_WORK(vgpu_claim_work, vgpu_claim);

static int vgpu_bus_event(struct notifier_block *block, unsigned long action, void *data)
{
	struct device *dev = data;

	/* The device's lock is held here. */
	if (action == BUS_NOTIFY_BOUND_DRIVER && vgpu_other_driver_has(dev))
		schedule_work(&vgpu_claim_work);
	else if (action == BUS_NOTIFY_DRIVER_NOT_BOUND && dev->driver == &vgpu_driver->driver &&
		 vgpu_is_file_system(dev))
		vgpu_hand_back(dev);
	return NOTIFY_DONE;
}

static struct notifier_block vgpu_bus_notifier = {
	.notifier_call = vgpu_bus_event,
};

/* After @driver was registered: claims what is there, and what comes. */
int vgpu_claim_start(struct virtio_driver *driver)
{
	int err;

	vgpu_driver = driver;
	err = bus_register_notifier(driver->driver.bus, &vgpu_bus_notifier);
	if (err)
		return err;
	vgpu_claim(NULL);
	return 0;
}

void vgpu_claim_stop(void)
{
	bus_unregister_notifier(vgpu_driver->driver.bus, &vgpu_bus_notifier);
	cancel_work_sync(&vgpu_claim_work);
}
