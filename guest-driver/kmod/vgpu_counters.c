// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/class/misc/vgpu/counters/: how often the paths that cost a VM exit, an interrupt or a sleep were taken since the
 * device was found. Numbers that grow, for whoever measures; nothing in the driver reads them.
 *
 *   doorbells    notifications written to the device, of both queues and with kicks: a VM exit each
 *   kicks        ioctls of processes whose worker was parked; each rings the doorbell
 *   waits        ioctls of processes that wait for their worker
 *   sleeps       those of them that were not woken before they came to sleep
 *   requests     control requests given to the device
 *   events       events that the device has sent
 *
 * Interrupts are in /proc/interrupts. Of the configuration space the driver reads and writes only while the device is
 * started and stopped.
 *
 * Each CPU counts for itself: a kick takes no lock and shares no cache line with others.
 */
#define pr_fmt(fmt) "vgpu: " fmt

#include <linux/device.h>
#include <linux/sysfs.h>

#include "vgpu.h"

struct vgpu_counter_attribute {
	struct device_attribute attribute;
	enum vgpu_count what;
};

static ssize_t vgpu_counter_show(struct device *device, struct device_attribute *attribute, char *buf)
{
	/* The miscdevice is the device's data; it is deregistered, which waits for us, before the vgpu_device goes. */
	struct vgpu_device *dev = container_of(dev_get_drvdata(device), struct vgpu_device, misc);
	enum vgpu_count what = container_of(attribute, struct vgpu_counter_attribute, attribute)->what;
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(dev->counters, cpu)->of[what]);
	return sysfs_emit(buf, "%llu\n", sum);
}

/* For root: how busy other users' programs are is nobody's business. */
#define VGPU_COUNTER(name_, what_)                                                                   \
	static struct vgpu_counter_attribute vgpu_counter_##name_ = {                                \
		.attribute = __ATTR(name_, 0400, vgpu_counter_show, NULL),                           \
		.what = what_,                                                                       \
	}

VGPU_COUNTER(doorbells, VGPU_DOORBELLS);
VGPU_COUNTER(kicks, VGPU_KICKS);
VGPU_COUNTER(waits, VGPU_WAITS);
VGPU_COUNTER(sleeps, VGPU_SLEEPS);
VGPU_COUNTER(requests, VGPU_REQUESTS);
VGPU_COUNTER(events, VGPU_EVENTS);

static struct attribute *vgpu_counter_attributes[] = {
	&vgpu_counter_doorbells.attribute.attr,
	&vgpu_counter_kicks.attribute.attr,
	&vgpu_counter_waits.attribute.attr,
	&vgpu_counter_sleeps.attribute.attr,
	&vgpu_counter_requests.attribute.attr,
	&vgpu_counter_events.attribute.attr,
	NULL,
};

static const struct attribute_group vgpu_counter_group = {
	.name = "counters",
	.attrs = vgpu_counter_attributes,
};

const struct attribute_group *vgpu_groups[] = { &vgpu_counter_group, NULL };
