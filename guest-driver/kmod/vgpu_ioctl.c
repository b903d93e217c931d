// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/vgpu: open, ioctl, release. No capability is asked for: like NVIDIA's device nodes, who may use the
 * GPU is decided by who may open the node, and what he may use by the host.
 *
 * Errors of every ioctl, beside those of its own
 *   -ENODEV      the device is gone, or the session is over
 *   -EAGAIN      the device has not greeted back (yet)
 *   -ENOTCONN    no session is open on this file
 *   -ECHILD      the session is another address space's (a forked child's ioctl)
 *   -EREMOTEIO   the device refused; the structure's error field says why
 *   -ETIMEDOUT   the device has not answered; what it does with the request is open until the session ends
 *   -EINTR       killed meanwhile
 *   -EFAULT, -ENOTTY
 *
 * GET_INFO and READ_REGS need no session. A file has one session in its life: after CLOSE_SESSION, open the
 * node again.
 */
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vgpu.h"

/* Bytes of device information asked for at a time: small enough to be allocated at any time. */
#define VGPU_INFO_CHUNK (16 * 1024)

/* Errors of open: -ENODEV (gone), -EAGAIN (not greeted), -EPROTO (another ABI version), -ENOMEM. */
static int vgpu_open(struct inode *inode, struct file *filp)
{
	struct vgpu_device *dev = container_of(filp->private_data, struct vgpu_device, misc);
	struct vgpu_file *file;
	int err;

	err = vgpu_device_ready(dev);
	if (err)
		return err;
	file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);
	if (!file)
		return -ENOMEM;
	mutex_init(&file->lock);
	vgpu_device_get(dev);
	file->dev = dev;
	filp->private_data = file;
	return 0;
}

/* The last reference is gone: descriptors of every process, and mappings, which hold the file too. */
static int vgpu_release(struct inode *inode, struct file *filp)
{
	struct vgpu_file *file = filp->private_data;

	if (file->session) {
		vgpu_session_end(file->session);
		vgpu_session_put(file->session);
	}
	vgpu_device_put(file->dev);
	mutex_destroy(&file->lock);
	kfree(file);
	return 0;
}

/* A request about the device, whose answer's bytes go to @buf: their number, at most @room, or an error. */
static long vgpu_read_device(struct vgpu_device *dev, u32 kind, const void *body, size_t body_len,
			     void __user *buf, u32 room)
{
	struct vgpu_answer answer;
	struct vgpu_request *req;
	long err;

	req = vgpu_request_alloc(kind, 0, body, body_len, room, GFP_KERNEL);
	if (!req)
		return -ENOMEM;
	err = vgpu_call(dev, req, &answer);
	if (!err) {
		err = req->reply_len;
		if (copy_to_user(buf, req->reply + 1, req->reply_len))
			err = -EFAULT;
	}
	vgpu_request_put(req);
	return err;
}

static long vgpu_ioctl_get_info(struct vgpu_device *dev, struct vgpu_ioctl_info __user *user)
{
	struct vgpu_ioctl_info arg;
	u32 done = 0;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (arg.offset + arg.len < arg.offset)
		return -EINVAL;
	while (done < arg.len) {
		struct vgpu_read_info body = {
			.offset = arg.offset + done,
			.len = min_t(u32, arg.len - done, VGPU_INFO_CHUNK),
		};
		long got = vgpu_read_device(dev, VGPU_READ_INFO, &body, sizeof(body),
					    u64_to_user_ptr(arg.buf + done), body.len);

		if (got < 0)
			return got;
		done += got;
		if (got < body.len)
			break;	/* the end of the blob */
	}
	return put_user(done, &user->len);
}

static long vgpu_ioctl_read_regs(struct vgpu_device *dev, struct vgpu_ioctl_regs __user *user)
{
	long got;

	BUILD_BUG_ON(sizeof(user->block) != VGPU_BLOCK_BYTES);
	got = vgpu_read_device(dev, VGPU_READ_REGS, NULL, 0, user->block, VGPU_BLOCK_BYTES);
	if (got < 0)
		return got;
	return got == VGPU_BLOCK_BYTES ? 0 : -EPROTO;
}

/*
 * Errors: -EBUSY (this file has or had a session, or the address space has one), -EPROTO (another ABI
 * version), -E2BIG (environment), -EUSERS (the device's sessions are all in use), -ENOMEM.
 */
static long vgpu_ioctl_open_session(struct vgpu_file *file, struct vgpu_ioctl_open __user *user)
{
	struct vgpu_answer answer = {};
	struct vgpu_ioctl_open arg;
	struct vgpu_session *s;
	long err = 0;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (mutex_lock_killable(&file->lock))
		return -EINTR;
	if (file->session) {
		err = -EBUSY;
		goto out;
	}
	s = vgpu_session_open(file->dev, &arg, &answer);
	arg.error = answer.error;
	arg.cuda_result = answer.cuda_result;
	if (IS_ERR(s)) {
		err = PTR_ERR(s);
	} else {
		arg.session = s->slot;
		arg.capabilities = file->dev->capabilities;
		/* Readers take no lock. */
		smp_store_release(&file->session, s);
	}
	if (copy_to_user(user, &arg, sizeof(arg)) && !err)
		err = -EFAULT;
out:
	mutex_unlock(&file->lock);
	return err;
}

static long vgpu_ioctl_ring(struct vgpu_session *s, struct vgpu_ioctl_ring __user *user,
			    int (*call)(struct vgpu_session *s, struct vgpu_ioctl_ring *arg))
{
	struct vgpu_ioctl_ring arg;
	int err;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	arg.error = VGPU_ERROR_NONE;
	err = vgpu_session_begin(s);
	if (err)
		return err;
	err = call(s, &arg);
	vgpu_session_finish(s);
	if (copy_to_user(user, &arg, sizeof(arg)) && !err)
		err = -EFAULT;
	return err;
}

static long vgpu_ioctl_region(struct vgpu_session *s, struct vgpu_ioctl_region __user *user,
			      int (*call)(struct vgpu_session *s, struct vgpu_ioctl_region *arg))
{
	struct vgpu_ioctl_region arg;
	int err;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	arg.error = VGPU_ERROR_NONE;
	err = vgpu_session_begin(s);
	if (err)
		return err;
	err = call(s, &arg);
	vgpu_session_finish(s);
	if (copy_to_user(user, &arg, sizeof(arg)) && !err)
		err = -EFAULT;
	return err;
}

static long vgpu_ioctl_wait(struct vgpu_session *s, struct vgpu_ioctl_wait __user *user)
{
	struct vgpu_ioctl_wait arg;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	return vgpu_session_wait(s, arg.ring, arg.timeout_ms);
}

static long vgpu_ioctl_close_session(struct vgpu_session *s)
{
	long left;

	vgpu_session_end(s);
	left = wait_for_completion_killable_timeout(&s->ended, VGPU_CALL_TIMEOUT);
	if (left < 0)
		return -EINTR;
	return left ? 0 : -ETIMEDOUT;
}

static long vgpu_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct vgpu_file *file = filp->private_data;
	struct vgpu_session *s = smp_load_acquire(&file->session);
	void __user *user = (void __user *)arg;
	int err;

	if (s && s->mm != current->mm)
		return -ECHILD;
	switch (cmd) {
	case VGPU_IOCTL_GET_INFO:
	case VGPU_IOCTL_READ_REGS:
	case VGPU_IOCTL_OPEN_SESSION:
		err = vgpu_device_ready(file->dev);
		if (err)
			return err;
		if (cmd == VGPU_IOCTL_GET_INFO)
			return vgpu_ioctl_get_info(file->dev, user);
		if (cmd == VGPU_IOCTL_READ_REGS)
			return vgpu_ioctl_read_regs(file->dev, user);
		return vgpu_ioctl_open_session(file, user);
	case VGPU_IOCTL_CREATE_RING:
	case VGPU_IOCTL_REMOVE_RING:
	case VGPU_IOCTL_ADD_STAGING:
	case VGPU_IOCTL_MAP_REGION:
	case VGPU_IOCTL_UNMAP_REGION:
	case VGPU_IOCTL_KICK:
	case VGPU_IOCTL_WAIT:
	case VGPU_IOCTL_CLOSE_SESSION:
		break;
	default:
		return -ENOTTY;
	}

	if (!s)
		return -ENOTCONN;
	if (cmd == VGPU_IOCTL_CLOSE_SESSION)
		return vgpu_ioctl_close_session(s);
	if (vgpu_session_over(s))
		return -ENODEV;
	switch (cmd) {
	case VGPU_IOCTL_CREATE_RING:
		return vgpu_ioctl_ring(s, user, vgpu_ring_create);
	case VGPU_IOCTL_REMOVE_RING:
		return vgpu_ioctl_ring(s, user, vgpu_ring_remove);
	case VGPU_IOCTL_ADD_STAGING:
		return vgpu_ioctl_ring(s, user, vgpu_ring_add_staging);
	case VGPU_IOCTL_MAP_REGION:
		return vgpu_ioctl_region(s, user, vgpu_region_map);
	case VGPU_IOCTL_UNMAP_REGION:
		return vgpu_ioctl_region(s, user, vgpu_region_unmap);
	case VGPU_IOCTL_WAIT:
		return vgpu_ioctl_wait(s, user);
	case VGPU_IOCTL_KICK:
		vgpu_kick(s->dev, s->slot);
		return 0;
	}
	return -ENOTTY;
}

const struct file_operations vgpu_fops = {
	.owner = THIS_MODULE,
	.open = vgpu_open,
	.release = vgpu_release,
	.unlocked_ioctl = vgpu_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = vgpu_mmap,
	.llseek = noop_llseek,
};
