/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR Apache-2.0 */
/*
 * What the vgpu driver and the vgpu device must agree on byte for byte: ids, the register block,
 * control and event messages, the command ring and the session page.
 *
 * Every field is little endian and naturally aligned; no structure has hidden padding.
 *
 * Generated from the crate pci-layout by `cargo xtask headers`: do not edit.
 */
#ifndef _VGPU_LAYOUT_H
#define _VGPU_LAYOUT_H

#include <linux/types.h>

/* ---- common ---- */

/*
 * The version of every layout in this crate, exchanged in the first control message and at
 * session opening.
 */
#define VGPU_ABI_VERSION 1
/* The page size that page runs, ring parts and mmap offsets are multiples of, in bytes. */
#define VGPU_PAGE_BYTES 4096

/* ---- ids ---- */

/* Tag of the function among the guest's file systems; magic of the register block. */
#define VGPU_TAG "VGPUSTUB"
/* virtio device id of the carrier vhost-user-fs-pci (virtio 1.2, 5.11, file system device). */
#define VGPU_VIRTIO_ID_FS_CARRIER 26
/*
 * virtio device id of vhost-user-test-device-pci: named in the specification, driven by no
 * mainline driver.
 */
#define VGPU_VIRTIO_ID_GENERIC 21
/*
 * Length of the tag field in the file system device's config space, in bytes (virtio 1.2,
 * 5.11.4).
 */
#define VGPU_FS_TAG_BYTES 36
/* Index of the control queue (the carrier's high priority queue). */
#define VGPU_QUEUE_CONTROL 0
/* Index of the event queue (the carrier's first request queue). */
#define VGPU_QUEUE_EVENT 1
/* Number of queues. */
#define VGPU_QUEUE_COUNT 2
/* PCI vendor of the literal function (vfio-user front). */
#define VGPU_PCI_VENDOR 0x10de
/* PCI device of the literal function. */
#define VGPU_PCI_DEVICE 0x2331
/* Its class: a 3D controller. */
#define VGPU_PCI_CLASS 0x30200
/* PCI subsystem vendor of the literal function: Red Hat's, as QEMU's own devices have it. */
#define VGPU_PCI_SUBSYSTEM_VENDOR 0x1af4
/*
 * PCI subsystem id of the literal function, from the range that is left to experiments: our
 * driver knows the function by it, whatever vendor and device say.
 */
#define VGPU_PCI_SUBSYSTEM_DEVICE 0x10f6

/* ---- regs ---- */

/* Size of the block in bytes. */
#define VGPU_BLOCK_BYTES 256
/* Write: reserved. A queue kick is the doorbell; the register exists for fronts without queues. */
#define VGPU_DOORBELL 0x00
/* Read: one of the VGPU_STATUS_* values. */
#define VGPU_STATUS 0x04
/* Read: the VM's pool, an ASCII letter ('A', 'B' …). */
#define VGPU_POOL_ID 0x08
/* Read: the VM's priority, one of the VGPU_PRIORITY_* values. */
#define VGPU_PRIORITY 0x0c
/* Read: the VM's id as the host numbers it. */
#define VGPU_VM_ID 0x10
/* Read: the last error, one of the VGPU_ERROR_* values. */
#define VGPU_ERROR_CODE 0x14
/* Length of the request in bytes (fronts with request buffers only; 0 elsewhere). */
#define VGPU_REQUEST_LEN 0x18
/* Length of the response in bytes (fronts with request buffers only; 0 elsewhere). */
#define VGPU_RESPONSE_LEN 0x1c
/* Read: VGPU_ABI_VERSION. */
#define VGPU_PROTOCOL_VER 0x20
/* Read: the VGPU_CAP_* bits. */
#define VGPU_CAPABILITIES 0x24
/* Write: bit 0 enables completion interrupts (fronts without queues only). */
#define VGPU_IRQ_CTRL 0x28
/* Read: pending interrupt causes; write 1 to clear (fronts without queues only). */
#define VGPU_IRQ_STATUS 0x2c
/* Read: the id of the last control request that was answered. */
#define VGPU_REQUEST_ID 0x30
/* Read: host time of that answer, CLOCK_MONOTONIC in ns, low half. */
#define VGPU_TIMESTAMP_LO 0x34
/* Read: the high half of that time. */
#define VGPU_TIMESTAMP_HI 0x38
/* Read and write: keeps what was written; for probing. */
#define VGPU_SCRATCH 0x3c
/* Read: the 8 bytes of VGPU_TAG. */
#define VGPU_MAGIC 0x40
/* Read: number of queues. */
#define VGPU_QUEUES 0x48
/* Read: rings that one session may have. */
#define VGPU_RING_LIMIT 0x4c
/* Read: sessions that the VM may have at once. */
#define VGPU_SESSION_LIMIT 0x50
/* Read: number of CUDA devices. */
#define VGPU_DEVICE_COUNT 0x54
/* Read: the call table's fingerprint, 16 bytes. */
#define VGPU_TABLE_FINGERPRINT 0x58
/* Read: VRAM quota in bytes, 64 bits; 0 = none. */
#define VGPU_VRAM_QUOTA 0x68
/* Read: sessions open now. */
#define VGPU_SESSIONS_OPEN 0x70
/* No session is open. */
#define VGPU_STATUS_IDLE 0
/* A control request is being carried out. */
#define VGPU_STATUS_BUSY 1
/* The last control request succeeded. */
#define VGPU_STATUS_DONE 2
/* The last control request failed; see VGPU_ERROR_CODE. */
#define VGPU_STATUS_ERROR 3
/* No error. */
#define VGPU_ERROR_NONE 0
/* The request makes no sense: unknown type, bad handle, forged region. */
#define VGPU_ERROR_INVALID_REQUEST 1
/* The request is larger than the device accepts. */
#define VGPU_ERROR_TOO_LARGE 2
/* No worker can be had: no GPU, the executor failed to start, the daemon is stopping. */
#define VGPU_ERROR_MEDIATOR_UNAVAILABLE 3
/* The worker did not answer in time. */
#define VGPU_ERROR_TIMEOUT 4
/* The executor answered with a CUDA error. */
#define VGPU_ERROR_CUDA 5
/* The pool named does not exist. */
#define VGPU_ERROR_INVALID_POOL 6
/* Too many sessions, rings, regions or requests at once. */
#define VGPU_ERROR_QUEUE_FULL 7
/* Known, but not supported here. */
#define VGPU_ERROR_UNSUPPORTED 8
/* A length does not fit its message. */
#define VGPU_ERROR_INVALID_LENGTH 9
/* The VM's rate limit was reached. */
#define VGPU_ERROR_RATE_LIMITED 10
/* The VM is quarantined. */
#define VGPU_ERROR_QUARANTINED 11
/* Priority low. */
#define VGPU_PRIORITY_LOW 0
/* Priority medium. */
#define VGPU_PRIORITY_MEDIUM 1
/* Priority high. */
#define VGPU_PRIORITY_HIGH 2
/* Guest pages can be mapped by the worker: pinned memory is shared, not copied. */
#define VGPU_CAP_MAP_GUEST_PAGES 0x01
/* The executor is a real GPU (else the software executor). */
#define VGPU_CAP_HARDWARE 0x02

/* ---- function ---- */

/* Which BAR is the mailbox. */
#define VGPU_BAR_MAILBOX 0
/* Which BAR is the data window (64 bits wide, so the next one is its upper half). */
#define VGPU_BAR_DATA 1
/* Which BAR has the queue registers. */
#define VGPU_BAR_QUEUES 3
/* Bytes of the mailbox BAR. */
#define VGPU_MAILBOX_BAR_BYTES 4096
/* Smallest data window in bytes; its size is a power of two. */
#define VGPU_DATA_BAR_BYTES_MIN 16777216
/* Bytes of the queue registers' BAR. */
#define VGPU_QUEUES_BAR_BYTES 4096
/*
 * Bytes of the registers at the start of the mailbox: the block of regs without what follows
 * SCRATCH.
 */
#define VGPU_MAILBOX_HEAD_BYTES 64
/* Longest request in the mailbox, and longest response, in bytes. */
#define VGPU_MAILBOX_BYTES 1024
/* Mailbox: where the request is. */
#define VGPU_OFF_MAILBOX_REQUEST 0x40
/* Mailbox: where the response is. */
#define VGPU_OFF_MAILBOX_RESPONSE 0x440
/* Mailbox: write a session's slot: its parked worker looks at its rings. */
#define VGPU_OFF_MAILBOX_KICK 0x840
/* IRQ_CTRL and IRQ_STATUS: the response is there. */
#define VGPU_IRQ_RESPONSE 1
/* Queue registers, read: the 8 bytes of VGPU_TAG. */
#define VGPU_OFF_QUEUES_MAGIC 0x00
/* Queue registers, read: VGPU_ABI_VERSION. */
#define VGPU_OFF_QUEUES_VERSION 0x08
/* Queue registers, read: most descriptors that a queue may have. */
#define VGPU_OFF_QUEUES_SIZE_MAX 0x0c
/* Queue registers, read: the virtio features offered, 64 bits. */
#define VGPU_OFF_QUEUES_FEATURES 0x10
/* Queue registers, write: the virtio features that the driver takes, 64 bits. */
#define VGPU_OFF_QUEUES_DRIVER_FEATURES 0x18
/*
 * Queue registers: the virtio device status. Writing 0 begins a reset; it reads as 0 once that
 * is over. With DRIVER_OK (4) the queues start as they were described.
 */
#define VGPU_OFF_QUEUES_STATUS 0x20
/* Queue registers, write: the index of a queue that has something new. */
#define VGPU_OFF_QUEUES_KICK 0x24
/* Queue registers: where the description of the first queue is. */
#define VGPU_OFF_QUEUES_FIRST 0x40
/* Bytes from one queue's description to the next one's. */
#define VGPU_OFF_QUEUE_STRIDE 0x20
/* In a queue's description: its number of descriptors. */
#define VGPU_OFF_QUEUE_SIZE 0x00
/* In a queue's description: guest-physical address of the descriptor table, 64 bits. */
#define VGPU_OFF_QUEUE_DESCRIPTORS 0x08
/* In a queue's description: guest-physical address of the available ring, 64 bits. */
#define VGPU_OFF_QUEUE_AVAILABLE 0x10
/* In a queue's description: guest-physical address of the used ring, 64 bits. */
#define VGPU_OFF_QUEUE_USED 0x18
/*
 * Queue registers: the register block of regs, whole, as the virtio config space of other fronts
 * has it.
 */
#define VGPU_OFF_QUEUES_CONFIG 0x400

/* ---- control ---- */

/*
 * Longest request in bytes: a map of 64 MiB of scattered pages. Stops a guest from making the
 * daemon hold more.
 */
#define VGPU_REQUEST_BYTES_MAX 524288
/* Longest answer in bytes. */
#define VGPU_REPLY_BYTES_MAX 69632
/* Most page runs in one request. */
#define VGPU_RUNS_MAX 16384
/* Longest environment block in bytes (VGPU_OPEN_SESSION). */
#define VGPU_ENV_BYTES_MAX 16384
/* Sessions that a VM may have at once; also the number of bits in the pending bitmap. */
#define VGPU_SESSIONS_MAX 256
/*
 * vgpu_request_header.session of an VGPU_OPEN_SESSION in the local transport: the daemon chooses
 * the slot, and the answer's body is its number, 64 bits.
 */
#define VGPU_SESSION_UNASSIGNED 4294967295
/* Pinned regions that a session may have at once. */
#define VGPU_REGIONS_MAX 4096
/*
 * The driver's first message after it bound the device: struct vgpu_hello → struct
 * vgpu_hello_reply. Sessions left over from an earlier boot (another nonce) are killed and
 * reaped before it is answered.
 */
#define VGPU_HELLO 1
/* No body → the register block, VGPU_BLOCK_BYTES bytes. */
#define VGPU_READ_REGS 2
/*
 * struct vgpu_read_info → bytes of the device and VM information, a blob that only the guest's
 * libraries read.
 */
#define VGPU_READ_INFO 3
/* struct vgpu_open_session and the environment block → no body. Answered when a worker runs. */
#define VGPU_OPEN_SESSION 4
/* struct vgpu_add_ring_part and page runs → no body. */
#define VGPU_ADD_RING_PART 5
/*
 * struct vgpu_ring_ref → no body. The ring's thread has ended and its memory is unmapped when
 * this is answered.
 */
#define VGPU_REMOVE_RING 6
/*
 * struct vgpu_map_region and page runs → no body. Pinned user memory is mapped at the same
 * address in the worker.
 */
#define VGPU_MAP_REGION 7
/*
 * struct vgpu_region_ref → no body. No page of it is mapped in the worker when this is
 * answered.
 */
#define VGPU_UNMAP_REGION 8
/*
 * struct vgpu_session_ref → no body. Answered after the worker was reaped: only then may pages
 * be unpinned.
 */
#define VGPU_CLOSE_SESSION 9
/*
 * vgpu_read_info.offset: from here on lies a second blob, of what changes while the VM runs. It
 * is made anew now and then, also between the reading of two of its parts: its number stands at
 * both of its ends.
 */
#define VGPU_INFO_LIVE 2147483648
/* vgpu_add_ring_part.part: header, frames and replies. */
#define VGPU_PART_RING 0
/* vgpu_add_ring_part.part: the staging buffer. */
#define VGPU_PART_STAGING 1
/*
 * vgpu_map_region.flags: the worker may only read it; the pages were pinned without write
 * intent.
 */
#define VGPU_MAP_READ_ONLY 0x01

/* A run of guest-physical memory (or of a memfd in the local transport). */
struct vgpu_run {
	/* Guest-physical address, page aligned; local transport: offset in the memfd. */
	__u64 gpa;
	/* Length in bytes, a multiple of the page size, not 0. */
	__u64 len;
};

/* The start of every request. */
struct vgpu_request_header {
	/* One of the request types. */
	__u32 kind;
	/* Chosen by the driver, repeated in the answer and in the REQUEST_ID register. */
	__u32 request_id;
	/*
	 * Session slot, below VGPU_SESSIONS_MAX; 0 where the type has none. Chosen by the driver
	 * at opening.
	 */
	__u32 session;
	/* Zero. */
	__u32 reserved;
};

/* The start of every answer. */
struct vgpu_reply_header {
	/* One of the VGPU_ERROR_* values of the register block. */
	__u32 error;
	/* The request's id. */
	__u32 request_id;
	/* Bytes that follow. */
	__u32 len;
	/* A CUresult where error is ERROR_CUDA, else 0. */
	__u32 cuda_result;
};

/* Body of VGPU_HELLO. */
struct vgpu_hello {
	/* VGPU_ABI_VERSION of the driver. */
	__u32 abi_version;
	/* Zero. */
	__u32 reserved;
	/* Random number made at the driver's load; another value than before means another boot. */
	__u64 boot_nonce;
	/*
	 * Guest-physical address of one page: the pending bitmap, a bit per session slot, set by
	 * the driver before a kick.
	 */
	__u64 pending_gpa;
};

/* Answer to VGPU_HELLO. */
struct vgpu_hello_reply {
	/* VGPU_ABI_VERSION of the daemon. */
	__u32 abi_version;
	/* The VGPU_CAP_* bits. */
	__u32 capabilities;
	/* Sessions that the VM may have at once. */
	__u32 session_limit;
	/* Rings that a session may have. */
	__u32 ring_limit;
};

/* Body of VGPU_READ_INFO. */
struct vgpu_read_info {
	/* First byte wanted. */
	__u32 offset;
	/* Bytes wanted, at most 64 KiB; fewer come at the end of the blob. */
	__u32 len;
};

/* Body of VGPU_OPEN_SESSION; the environment block (NUL-terminated NAME=value strings) follows. */
struct vgpu_open_session {
	/* VGPU_ABI_VERSION of libcuda. */
	__u32 abi_version;
	/* Process id in the guest, for logs and lists only. */
	__u32 pid;
	/* Call table fingerprint of libcuda. */
	__u8 fingerprint[16];
	/*
	 * Guest-physical address of the session page (struct vgpu_session_page); 0 in the local
	 * transport.
	 */
	__u64 page_gpa;
	/* Bytes of the environment block that follow. */
	__u32 env_len;
	/* User id in the guest, for logs and lists only. */
	__u32 uid;
};

/* Body of VGPU_ADD_RING_PART; run_count runs follow. */
struct vgpu_add_ring_part {
	/* Ring index, below VGPU_RINGS_MAX. */
	__u32 ring;
	/* VGPU_PART_RING or VGPU_PART_STAGING. */
	__u32 part;
	/* Length in bytes; the ring part's is fixed (VGPU_RING_BYTES). */
	__u64 len;
	/* Number of runs that follow; their lengths add up to len. */
	__u32 run_count;
	/* Zero. */
	__u32 reserved;
};

/* Body of VGPU_REMOVE_RING. */
struct vgpu_ring_ref {
	/* Ring index. */
	__u32 ring;
	/* Zero. */
	__u32 reserved;
};

/*
 * Body of VGPU_MAP_REGION; run_count runs follow. A region longer than one message can carry
 * comes as several messages with the same region number, in rising address order, each
 * continuing where the last ended.
 */
struct vgpu_map_region {
	/* Region number, below VGPU_REGIONS_MAX, chosen by the driver. */
	__u32 region;
	/* VGPU_MAP_* bits. */
	__u32 flags;
	/*
	 * User address in the guest process, page aligned: the worker maps it at the same
	 * address.
	 */
	__u64 va;
	/* Length in bytes of the piece that this message carries. */
	__u64 len;
	/* Number of runs that follow; their lengths add up to len. */
	__u32 run_count;
	/* Zero. */
	__u32 reserved;
};

/* Body of VGPU_UNMAP_REGION. */
struct vgpu_region_ref {
	/* Region number. */
	__u32 region;
	/* Zero. */
	__u32 reserved;
};

/* Body of VGPU_CLOSE_SESSION. */
struct vgpu_session_ref {
	/* Zero; the session is in the request header. */
	__u64 reserved;
};

/* ---- event ---- */

/* Size of an event buffer in bytes. */
#define VGPU_EVENT_BYTES 32
/*
 * Buffers that the driver keeps posted. Wakes coalesce per session, so one per session slot is
 * enough.
 */
#define VGPU_EVENT_BUFFERS 64
/* Threads of a session are to be woken: the bits of vgpu_session_page.wake say which. */
#define VGPU_EVENT_WAKE 1
/*
 * The session has died; reason is one of the VGPU_DEATH_* values. Every thread that waits for it
 * is to be woken.
 */
#define VGPU_EVENT_SESSION_DIED 2
/* The worker ended without being asked to (killed, crashed). */
#define VGPU_DEATH_WORKER_LOST 1
/*
 * The guest sent a frame that cannot be parsed, or forged something; the daemon's log has the
 * reason.
 */
#define VGPU_DEATH_MALFORMED 2
/* The daemon is ending, or the device was reset. */
#define VGPU_DEATH_SHUTDOWN 3
/* The executor could not go on. */
#define VGPU_DEATH_EXECUTOR 4
/* A kernel ran longer than the VM's kernels may. */
#define VGPU_DEATH_TIMEOUT 5

/* An event. */
struct vgpu_event {
	/* VGPU_EVENT_WAKE or VGPU_EVENT_SESSION_DIED. */
	__u32 kind;
	/* Session slot. */
	__u32 session;
	/* VGPU_DEATH_* value, or 0. */
	__u32 reason;
	/* Zero. */
	__u32 reserved[5];
};

/* ---- ring ---- */

/* Rings that a session may have. */
#define VGPU_RINGS_MAX 256
/* Bytes of the header at the start of the ring's memory. */
#define VGPU_HEADER_BYTES 4096
/* Bytes of the frame area, a power of two. */
#define VGPU_FRAME_AREA_BYTES 262144
/* Bytes of the reply area. */
#define VGPU_REPLY_AREA_BYTES 65536
/* Bytes of a ring's memory: header, frames, replies. */
#define VGPU_RING_BYTES 331776
/* Longest frame in bytes, header included. Kernel parameters alone may be 32764 bytes. */
#define VGPU_FRAME_BYTES_MAX 65536
/* Frames are multiples of this many bytes. */
#define VGPU_FRAME_ALIGN 8
/* Largest staging buffer of a ring, in bytes. */
#define VGPU_STAGING_BYTES_MAX 16777216
/* Frame flag: the guest waits for the reply. Without it the call is posted. */
#define VGPU_FRAME_WAIT 0x01
/* Frame flag: nothing but padding up to the end of the area. */
#define VGPU_FRAME_PAD 0x02
/*
 * Frame flag: the call uses the ring's staging buffer; bulk_done grows by one when it is
 * finished with it.
 */
#define VGPU_FRAME_BULK 0x04
/*
 * Frame flag: the call depends on no call of another ring, and does not wait for its turn among
 * them.
 */
#define VGPU_FRAME_UNORDERED 8
/* Offset of head, u64: bytes the guest has published. */
#define VGPU_OFF_HEAD 0x00
/* Offset of tail, u64: bytes the host has consumed. */
#define VGPU_OFF_TAIL 0x40
/* Offset of host_parked, u32: 1 while the host needs a kick to look at the ring. */
#define VGPU_OFF_HOST_PARKED 0x80
/*
 * Offset of guest_parked, u32: 0, or what the guest sleeps for (VGPU_GUEST_WAITS_PROGRESS,
 * VGPU_GUEST_WAITS_SPACE).
 */
#define VGPU_OFF_GUEST_PARKED 0xc0
/* Offset of the reply header (struct vgpu_reply), written by the host. */
#define VGPU_OFF_REPLY 0x100
/*
 * Offset of bulk_done, u64: bulk frames (staging transfers) that the host has finished since the
 * ring was made.
 */
#define VGPU_OFF_BULK_DONE 0x140
/*
 * Offset of async_error, u64: 0, or the first error of a posted call: CUresult in the low half,
 * wire id in the high. The host writes it only where it is 0; the guest takes it by exchanging
 * it with 0.
 */
#define VGPU_OFF_ASYNC_ERROR 0x180
/* guest_parked: the guest sleeps until a reply or bulk_done moves. */
#define VGPU_GUEST_WAITS_PROGRESS 1
/* guest_parked: the guest sleeps until at least half of the frame area is free. */
#define VGPU_GUEST_WAITS_SPACE 2
/*
 * First of the user addresses that workers keep free for guests' pinned memory, and that the
 * guest's libcuda therefore takes for memory of its own making.
 */
#define VGPU_PINNED_WINDOW_START 17592186044416ULL
/* The first address behind them. */
#define VGPU_PINNED_WINDOW_END 26388279066624ULL
/* Bytes of the session page. */
#define VGPU_SESSION_PAGE_BYTES 4096
/*
 * Offset in the session page of the completion words: a u64 per ring, which the device itself
 * writes once it gets there (vgpuSignal of the call table). The rest of the page up to its end.
 */
#define VGPU_OFF_COMPLETION 0x800
/* Session state: the worker is being started. */
#define VGPU_SESSION_OPENING 0
/* Session state: serving. */
#define VGPU_SESSION_LIVE 1
/* Session state: over; reason says why. Every call fails from now on. */
#define VGPU_SESSION_DEAD 2

/* The start of every frame. */
struct vgpu_frame_header {
	/* Length in bytes, this header included, a multiple of VGPU_FRAME_ALIGN. */
	__u32 len;
	/* Wire id of the call. */
	__u32 call;
	/* VGPU_FRAME_* bits. */
	__u32 flags;
	/* The context current in the calling thread: its guest handle's number, 0 = none. */
	__u32 context;
	/* Process-wide number that orders calls across threads; rises within a ring, never 0. */
	__u64 ticket;
};

/* The reply slot. ticket is written last (release) and read first (acquire). */
struct vgpu_reply {
	/* Ticket of the frame that is answered. */
	__u64 ticket;
	/* The CUresult. */
	__u32 result;
	/* Bytes in the reply area. */
	__u32 len;
};

/*
 * The session page: written by the host (and, for wake and event_posted, cleared by the guest's
 * kernel); mapped read-only in the guest process.
 */
struct vgpu_session_page {
	/* VGPU_SESSION_* state. */
	__u32 state;
	/* VGPU_DEATH_* value of the event module, once dead. */
	__u32 reason;
	/* The CUresult that every call answers from now on, or 0: a kernel has faulted. */
	__u32 sticky_result;
	/* 1 while a wake event is on its way: no second one is needed. */
	__u32 event_posted;
	/* Errors of posted calls so far. */
	__u64 posted_errors;
	/* Bytes that the worker's driver has printed for kernels so far. */
	__u64 printed_bytes;
	/*
	 * Not 0 while kernels may print: a completion word does not tell that their output has
	 * come.
	 */
	__u64 may_print;
	/*
	 * Frames that may wait in a ring at a time, 0 for as many as fit. While it is not 0 the
	 * host says of each frame that it was taken.
	 */
	__u64 queue_depth;
	/* Zero. */
	__u64 reserved[2];
	/* A bit per ring: its guest thread is to be woken. */
	__u64 wake[4];
};

#endif /* _VGPU_LAYOUT_H */
