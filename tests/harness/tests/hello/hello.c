// SPDX-License-Identifier: GPL-2.0-only
/* The smallest module with a device node: shows that building, loading and node permissions work. */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

static ssize_t hello_read(struct file *file, char __user *buffer, size_t length, loff_t *position)
{
	static const char text[] = "hello from the kernel\n";

	return simple_read_from_buffer(buffer, length, position, text, sizeof(text) - 1);
}

static const struct file_operations hello_operations = {
	.owner = THIS_MODULE,
	.read = hello_read,
};

static struct miscdevice hello_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hello",
	.fops = &hello_operations,
	.mode = 0600,
};

module_misc_device(hello_device);

MODULE_DESCRIPTION("A node that says hello");
MODULE_LICENSE("GPL");
