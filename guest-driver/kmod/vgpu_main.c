// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module and the virtio driver: probe, greeting, removal.
 *
 * probe starts the queues, registers /dev/vgpu and greets the device (HELLO, with a random number by which the
 * device knows that sessions of an earlier boot or probe are over). The answer comes whenever it comes: boot
 * goes on after VGPU_GREET_PATIENCE, and open() says EAGAIN until then. A refused greeting is repeated.
 *
 * remove ends all sessions, gives the device VGPU_CLOSE_PATIENCE to answer the CLOSE_SESSIONs, resets it, and
 * only then takes back what it has not answered for.
 *
 * One device is supported: rings, regions and /dev/vgpu itself do not say which device they mean.
 */
#define pr_fmt(fmt) "vgpu: " fmt

#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>

#include "vgpu.h"

/* How long probe waits for the answer to HELLO. */
#define VGPU_GREET_PATIENCE (1 * HZ)
/* Pause before HELLO is repeated, where the device refused it. */
#define VGPU_GREET_RETRY (5 * HZ)
/* How long removal waits for sessions to be closed by the device. */
#define VGPU_CLOSE_PATIENCE (5 * HZ)

/* The device that is probed, if any. */
static DEFINE_MUTEX(vgpu_only_lock);
static struct vgpu_device *vgpu_only;

/* ---- greeting ---- */

/* 0, or why /dev/vgpu cannot be used now: -ENODEV, -EAGAIN, -EPROTO. */
int vgpu_device_ready(struct vgpu_device *dev)
{
	if (READ_ONCE(dev->closing) || READ_ONCE(dev->stopped))
		return -ENODEV;
	switch (smp_load_acquire(&dev->state)) {
	case VGPU_READY:
		return 0;
	case VGPU_INCOMPATIBLE:
		return -EPROTO;
	case VGPU_GREETING:
		break;
	}
	return -EAGAIN;
}

static void vgpu_set_state(struct vgpu_device *dev, enum vgpu_device_state state)
{
	/* After capabilities and limits. */
	smp_store_release(&dev->state, state);
	wake_up_all(&dev->ready);
}

/* In interrupts, or where the device is stopped. */
static void vgpu_hello_finished(struct vgpu_request *req)
{
	struct vgpu_device *dev = req->context;

	queue_work(dev->wq, &dev->greeted);
}

static void vgpu_greet_work(struct work_struct *work)
{
	struct vgpu_device *dev = container_of(to_delayed_work(work), struct vgpu_device, greet);
	const struct vgpu_hello body = {
		.abi_version = VGPU_ABI_VERSION,
		.boot_nonce = get_random_u64(),
		.pending_gpa = virt_to_phys(dev->pending),
	};

	dev->hello = vgpu_request_alloc(VGPU_HELLO, 0, &body, sizeof(body),
					sizeof(struct vgpu_hello_reply), GFP_KERNEL);
	if (!dev->hello) {
		queue_delayed_work(dev->wq, &dev->greet, VGPU_GREET_RETRY);
		return;
	}
	dev->hello->context = dev;
	dev->hello->finished = vgpu_hello_finished;
	if (vgpu_request_submit(dev, dev->hello, true)) {
		vgpu_request_put(dev->hello);	/* stopped: there is nobody to greet */
		dev->hello = NULL;
	}
}

static void vgpu_greeted_work(struct work_struct *work)
{
	struct vgpu_device *dev = container_of(work, struct vgpu_device, greeted);
	struct vgpu_request *req = dev->hello;
	const struct vgpu_hello_reply *hello = (const struct vgpu_hello_reply *)(req->reply + 1);

	dev->hello = NULL;
	if (req->status == -ENODEV)
		goto put;
	/* A device of another version refuses, and says which it has. */
	if (!req->status && req->reply_len >= sizeof(*hello) && hello->abi_version != VGPU_ABI_VERSION) {
		dev_err(&dev->vdev->dev, "device has ABI version %u, this driver has %u\n", hello->abi_version,
			VGPU_ABI_VERSION);
		vgpu_set_state(dev, VGPU_INCOMPATIBLE);
		goto put;
	}
	if (req->status || req->reply->error != VGPU_ERROR_NONE || req->reply_len < sizeof(*hello)) {
		dev_warn(&dev->vdev->dev, "greeting refused (status %d, error %u), trying again\n", req->status,
			 req->status ? 0 : req->reply->error);
		queue_delayed_work(dev->wq, &dev->greet, VGPU_GREET_RETRY);
		goto put;
	}
	dev->capabilities = hello->capabilities;
	dev->session_limit = min_t(u32, hello->session_limit, VGPU_SESSIONS_MAX);
	dev->ring_limit = hello->ring_limit;
	dev_info(&dev->vdev->dev, "ready: capabilities %#x, %u sessions, %u rings each\n", hello->capabilities,
		 hello->session_limit, hello->ring_limit);
	vgpu_set_state(dev, VGPU_READY);
put:
	vgpu_request_put(req);
}

/* ---- the device ---- */

void vgpu_device_get(struct vgpu_device *dev)
{
	kref_get(&dev->refs);
}

static void vgpu_device_free(struct kref *refs)
{
	struct vgpu_device *dev = container_of(refs, struct vgpu_device, refs);

	free_page((unsigned long)dev->pending);
	kfree(dev->event_buffers);
	free_percpu(dev->counters);
	kvfree(dev);
}

void vgpu_device_put(struct vgpu_device *dev)
{
	kref_put(&dev->refs, vgpu_device_free);
}

static struct vgpu_device *vgpu_device_alloc(struct virtio_device *vdev)
{
	struct vgpu_device *dev = kvzalloc(sizeof(*dev), GFP_KERNEL);

	if (!dev)
		return NULL;
	kref_init(&dev->refs);
	dev->vdev = vdev;
	dev->stopped = true;
	spin_lock_init(&dev->lock);
	init_waitqueue_head(&dev->ready);
	init_waitqueue_head(&dev->space);
	init_waitqueue_head(&dev->idle);
	init_completion(&dev->quiet);
	INIT_DELAYED_WORK(&dev->greet, vgpu_greet_work);
	INIT_WORK(&dev->greeted, vgpu_greeted_work);
	dev->misc.minor = MISC_DYNAMIC_MINOR;
	dev->misc.name = "vgpu";
	dev->misc.fops = &vgpu_fops;
	dev->misc.mode = 0666;
	dev->misc.parent = &vdev->dev;
	dev->misc.groups = vgpu_groups;

	dev->event_buffers = kcalloc(VGPU_EVENT_BUFFERS, sizeof(*dev->event_buffers), GFP_KERNEL);
	dev->pending = (unsigned long *)get_zeroed_page(GFP_KERNEL);
	dev->counters = alloc_percpu(struct vgpu_counters);
	if (!dev->event_buffers || !dev->pending || !dev->counters) {
		vgpu_device_put(dev);
		return NULL;
	}
	return dev;
}

static int vgpu_device_start(struct vgpu_device *dev)
{
	int err;

	dev->state = VGPU_GREETING;
	/* Ends and reapings of all sessions may wait at once. */
	dev->wq = alloc_workqueue("vgpu", WQ_UNBOUND, 2 * VGPU_SESSIONS_MAX);
	if (!dev->wq)
		return -ENOMEM;
	err = vgpu_queues_start(dev);
	if (err) {
		destroy_workqueue(dev->wq);
		return err;
	}
	queue_delayed_work(dev->wq, &dev->greet, 0);
	return 0;
}

static u32 vgpu_device_sessions(struct vgpu_device *dev)
{
	unsigned long irq;
	u32 sessions;

	spin_lock_irqsave(&dev->lock, irq);
	sessions = dev->nr_sessions;
	spin_unlock_irqrestore(&dev->lock, irq);
	return sessions;
}

/* No new sessions from now on. */
static void vgpu_device_close(struct vgpu_device *dev, bool closing)
{
	unsigned long irq;

	spin_lock_irqsave(&dev->lock, irq);
	WRITE_ONCE(dev->closing, closing);
	spin_unlock_irqrestore(&dev->lock, irq);
	wake_up_all(&dev->idle);
}

/* No new sessions come. Afterwards the device knows nothing of this guest's memory. */
static void vgpu_device_stop(struct vgpu_device *dev)
{
	if (!dev->wq)
		return;	/* removed after a restore that failed */
	vgpu_sessions_end_all(dev);
	if (!virtqueue_is_broken(dev->control) &&
	    !wait_event_timeout(dev->idle, !vgpu_device_sessions(dev), VGPU_CLOSE_PATIENCE))
		dev_warn(&dev->vdev->dev, "%u sessions were not closed in time, resetting the device\n",
			 vgpu_device_sessions(dev));
	vgpu_queues_stop(dev);
	wait_event(dev->idle, !vgpu_device_sessions(dev));
	/* In this order: greeted may queue greet, and greet cannot submit any more. */
	cancel_work_sync(&dev->greeted);
	cancel_delayed_work_sync(&dev->greet);
	if (dev->hello) {	/* finished, and the work that would have read it was cancelled */
		vgpu_request_put(dev->hello);
		dev->hello = NULL;
	}
	destroy_workqueue(dev->wq);
	dev->wq = NULL;
}

/* ---- the virtio driver ---- */

/* Before anything is negotiated: not ours means that the next driver may try. */
static int vgpu_validate(struct virtio_device *vdev)
{
	if (!vgpu_is_ours(vdev))
		return -ENODEV;
	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1)) {
		dev_err(&vdev->dev, "vgpu needs a virtio 1.0 device (VIRTIO_F_VERSION_1)\n");
		return -EOPNOTSUPP;
	}
	if (virtio_has_feature(vdev, VIRTIO_F_ACCESS_PLATFORM)) {
		dev_err(&vdev->dev, "vgpu names memory by guest-physical address: no IOMMU, no encrypted memory (VIRTIO_F_ACCESS_PLATFORM)\n");
		return -EOPNOTSUPP;
	}
	return 0;
}

static int vgpu_probe(struct virtio_device *vdev)
{
	struct vgpu_device *dev;
	int err;

	BUILD_BUG_ON(PAGE_SIZE != VGPU_PAGE_BYTES);
	mutex_lock(&vgpu_only_lock);
	if (vgpu_only) {
		dev_err(&vdev->dev, "only one vgpu device is supported, and %s is it\n",
			dev_name(&vgpu_only->vdev->dev));
		err = -EBUSY;
		goto out;
	}
	dev = vgpu_device_alloc(vdev);
	if (!dev) {
		err = -ENOMEM;
		goto out;
	}
	vdev->priv = dev;
	err = vgpu_device_start(dev);
	if (err)
		goto put;
	err = misc_register(&dev->misc);
	if (err)
		goto stop;
	vgpu_only = dev;
	mutex_unlock(&vgpu_only_lock);

	if (!wait_event_timeout(dev->ready, READ_ONCE(dev->state) != VGPU_GREETING, VGPU_GREET_PATIENCE))
		dev_warn(&vdev->dev, "the device has not greeted back yet, /dev/vgpu says EAGAIN until it does\n");
	return 0;
stop:
	vgpu_device_stop(dev);
put:
	vgpu_device_put(dev);
out:
	mutex_unlock(&vgpu_only_lock);
	return err;
}

static void vgpu_remove(struct virtio_device *vdev)
{
	struct vgpu_device *dev = vdev->priv;

	vgpu_device_close(dev, true);
	misc_deregister(&dev->misc);
	vgpu_device_stop(dev);

	mutex_lock(&vgpu_only_lock);
	vgpu_only = NULL;
	mutex_unlock(&vgpu_only_lock);
	vgpu_device_put(dev);
}

#ifdef CONFIG_PM_SLEEP
/* Sessions live in a worker on the host, which a suspended guest cannot take along. */
static int vgpu_freeze(struct virtio_device *vdev)
{
	struct vgpu_device *dev = vdev->priv;
	u32 sessions;

	vgpu_device_close(dev, true);
	sessions = vgpu_device_sessions(dev);
	if (sessions) {
		vgpu_device_close(dev, false);
		dev_err(&vdev->dev, "cannot suspend: %u GPU sessions are open\n", sessions);
		return -EBUSY;
	}
	vgpu_device_stop(dev);
	return 0;
}

static int vgpu_restore(struct virtio_device *vdev)
{
	struct vgpu_device *dev = vdev->priv;
	int err = vgpu_device_start(dev);

	if (!err)
		vgpu_device_close(dev, false);
	return err;
}
#endif

/*
 * Reboot and kexec: the next kernel must not find workers writing into its memory. Kernels whose virtio bus
 * does this itself do not call it.
 */
static void vgpu_shutdown(struct device *device)
{
	struct virtio_device *vdev = dev_to_virtio(device);

	vgpu_device_close(vdev->priv, true);
	virtio_break_device(vdev);
	virtio_reset_device(vdev);
}

static const struct virtio_device_id vgpu_ids[] = {
	{ VGPU_VIRTIO_ID_FS_CARRIER, VIRTIO_DEV_ANY_ID },
	{ VGPU_VIRTIO_ID_GENERIC, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, vgpu_ids);

static struct virtio_driver vgpu_virtio_driver = {
	.driver.name = "vgpu",
	.driver.owner = THIS_MODULE,
	.id_table = vgpu_ids,
	.validate = vgpu_validate,
	.probe = vgpu_probe,
	.remove = vgpu_remove,
#ifdef CONFIG_PM_SLEEP
	.freeze = vgpu_freeze,
	.restore = vgpu_restore,
#endif
};

static int __init vgpu_init(void)
{
	int err = register_virtio_driver(&vgpu_virtio_driver);

	if (err)
		return err;
	/* A bus with a shutdown of its own, which resets the device, uses that and warns about ours. */
	if (!vgpu_virtio_driver.driver.bus->shutdown)
		vgpu_virtio_driver.driver.shutdown = vgpu_shutdown;
	err = vgpu_claim_start(&vgpu_virtio_driver);
	if (err)
		goto unregister;
	err = vgpu_functions_start();
	if (err)
		goto unclaim;
	return 0;
unclaim:
	vgpu_claim_stop();
unregister:
	unregister_virtio_driver(&vgpu_virtio_driver);
	return err;
}
module_init(vgpu_init);

static void __exit vgpu_exit(void)
{
	vgpu_functions_stop();
	vgpu_claim_stop();
	unregister_virtio_driver(&vgpu_virtio_driver);
	vgpu_check_uncharged();
}
module_exit(vgpu_exit);

MODULE_DESCRIPTION("Paravirtual GPU: sessions, rings and pinned memory for libcuda in a guest");
MODULE_AUTHOR("The vgpu-stub authors");
MODULE_LICENSE("GPL");
