/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR Apache-2.0 */
/*
 * The ioctls of /dev/vgpu. One file, one session, one process: OPEN_SESSION ties the file to the
 * caller's address space, and every later ioctl from another one (a forked child's) fails with ECHILD.
 *
 * mmap: offset VGPU_MMAP_SESSION_PAGE is the session page (read-only); VGPU_MMAP_RING_STRIDE * (ring + 1)
 * is a ring's memory, that plus VGPU_MMAP_STAGING_OFFSET its staging buffer. Map them shared and whole.
 * Mappings are not inherited by fork.
 *
 * Every field is little endian and naturally aligned; the layout is the same for 32-bit programs.
 *
 * Generated from the crate pci-layout by `cargo xtask headers`: do not edit.
 */
#ifndef _VGPU_IOCTL_H
#define _VGPU_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The ioctl type byte. */
#define VGPU_IOCTL_TYPE 0xb7
/* mmap offset of the session page. */
#define VGPU_MMAP_SESSION_PAGE 0x00ULL
/* mmap offset between rings, in bytes. */
#define VGPU_MMAP_RING_STRIDE 0x100000000ULL
/* mmap offset of a ring's staging buffer from the ring's own, in bytes. */
#define VGPU_MMAP_STAGING_OFFSET 0x80000000ULL
/* _IOWR, struct vgpu_ioctl_info: reads the device and VM information. */
#define VGPU_IOCTL_NR_GET_INFO 1
/* _IOWR, struct vgpu_ioctl_regs: reads the register block. */
#define VGPU_IOCTL_NR_READ_REGS 2
/* _IOWR, struct vgpu_ioctl_open. */
#define VGPU_IOCTL_NR_OPEN_SESSION 3
/* _IOWR, struct vgpu_ioctl_ring: makes a ring; its index comes back. */
#define VGPU_IOCTL_NR_CREATE_RING 4
/* _IOWR, struct vgpu_ioctl_ring: removes a ring. */
#define VGPU_IOCTL_NR_REMOVE_RING 5
/* _IOWR, struct vgpu_ioctl_ring: gives a ring a staging buffer of len bytes. */
#define VGPU_IOCTL_NR_ADD_STAGING 6
/*
 * _IOWR, struct vgpu_ioctl_region: pins user memory and maps it in the worker at the same
 * address.
 */
#define VGPU_IOCTL_NR_MAP_REGION 7
/* _IOWR, struct vgpu_ioctl_region: takes it back. */
#define VGPU_IOCTL_NR_UNMAP_REGION 8
/* _IO: a ring whose host side is parked has frames. */
#define VGPU_IOCTL_NR_KICK 9
/*
 * _IOWR, struct vgpu_ioctl_wait: sleeps until the ring's wake bit is set, the session dies, or
 * the time is over.
 */
#define VGPU_IOCTL_NR_WAIT 10
/* _IO: ends the session; returns when the worker was reaped. */
#define VGPU_IOCTL_NR_CLOSE_SESSION 11

/* Argument of GET_INFO. */
struct vgpu_ioctl_info {
	/* In: where to put the bytes. */
	__u64 buf;
	/* In: first byte wanted. */
	__u32 offset;
	/* In: room; out: bytes written. */
	__u32 len;
};

/* Argument of READ_REGS. */
struct vgpu_ioctl_regs {
	/* Out: the register block. */
	__u8 block[256];
};

/* Argument of OPEN_SESSION. */
struct vgpu_ioctl_open {
	/* In: ABI version of libcuda. */
	__u32 abi_version;
	/*
	 * Out: an VGPU_ERROR_* value of the register block if the device refused (the ioctl then
	 * fails with EREMOTEIO).
	 */
	__u32 error;
	/* In: call table fingerprint. */
	__u8 fingerprint[16];
	/* In: the environment block. */
	__u64 env;
	/* In: its length in bytes. */
	__u32 env_len;
	/* Out: session slot. */
	__u32 session;
	/* Out: VGPU_CAP_* bits. */
	__u32 capabilities;
	/* Out: CUresult where error is ERROR_CUDA. */
	__u32 cuda_result;
};

/* Argument of CREATE_RING, REMOVE_RING and ADD_STAGING. */
struct vgpu_ioctl_ring {
	/* Ring index. */
	__u32 ring;
	/* Out: an VGPU_ERROR_* value if the device refused. */
	__u32 error;
	/* Staging length in bytes (ADD_STAGING). */
	__u64 len;
};

/* Argument of MAP_REGION and UNMAP_REGION. */
struct vgpu_ioctl_region {
	/* User address, page aligned. */
	__u64 va;
	/* Length in bytes, a multiple of the page size. */
	__u64 len;
	/* VGPU_MAP_* bits of the control module. */
	__u32 flags;
	/* Region number (out of MAP_REGION, in to UNMAP_REGION). */
	__u32 region;
	/* Out: an VGPU_ERROR_* value if the device refused. */
	__u32 error;
	/* Zero. */
	__u32 reserved;
};

/* Argument of WAIT. */
struct vgpu_ioctl_wait {
	/* Ring index. */
	__u32 ring;
	/* Longest sleep in milliseconds; 0 = until woken. */
	__u32 timeout_ms;
};

#define VGPU_IOCTL_GET_INFO _IOWR(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_GET_INFO, struct vgpu_ioctl_info)
#define VGPU_IOCTL_READ_REGS _IOWR(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_READ_REGS, struct vgpu_ioctl_regs)
#define VGPU_IOCTL_OPEN_SESSION _IOWR(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_OPEN_SESSION, struct vgpu_ioctl_open)
#define VGPU_IOCTL_CREATE_RING _IOWR(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_CREATE_RING, struct vgpu_ioctl_ring)
#define VGPU_IOCTL_REMOVE_RING _IOWR(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_REMOVE_RING, struct vgpu_ioctl_ring)
#define VGPU_IOCTL_ADD_STAGING _IOWR(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_ADD_STAGING, struct vgpu_ioctl_ring)
#define VGPU_IOCTL_MAP_REGION _IOWR(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_MAP_REGION, struct vgpu_ioctl_region)
#define VGPU_IOCTL_UNMAP_REGION _IOWR(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_UNMAP_REGION, struct vgpu_ioctl_region)
#define VGPU_IOCTL_KICK _IO(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_KICK)
#define VGPU_IOCTL_WAIT _IOWR(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_WAIT, struct vgpu_ioctl_wait)
#define VGPU_IOCTL_CLOSE_SESSION _IO(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_CLOSE_SESSION)

#endif /* _VGPU_IOCTL_H */
