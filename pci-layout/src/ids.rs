//! Who we are on the bus.

/// The tag by which our driver knows our function among the guest's file systems (`vhost-user-fs-pci,tag=…`), and the
/// magic at [`crate::regs::MAGIC`] where the register block is in config space.
pub const TAG: [u8; 8] = *b"VGPUSTUB";

consts! {
    /// virtio device id of the carrier `vhost-user-fs-pci` (virtio 1.2, 5.11, file system device).
    pub const VIRTIO_ID_FS_CARRIER: u32 = 26;
    /// virtio device id of `vhost-user-test-device-pci`: named in the specification, driven by no mainline driver.
    pub const VIRTIO_ID_GENERIC: u32 = 21;
    /// Length of the tag field in the file system device's config space, in bytes (virtio 1.2, 5.11.4).
    pub const FS_TAG_BYTES: u32 = 36;
    /// Index of the control queue (the carrier's high priority queue).
    pub const QUEUE_CONTROL: u32 = 0;
    /// Index of the event queue (the carrier's first request queue).
    pub const QUEUE_EVENT: u32 = 1;
    /// Number of queues.
    pub const QUEUE_COUNT: u32 = 2;
    /// PCI vendor of the literal function (vfio-user front).
    pub const PCI_VENDOR: u32 = 0x10de;
    /// PCI device of the literal function.
    pub const PCI_DEVICE: u32 = 0x2331;
    /// Its class: a 3D controller.
    pub const PCI_CLASS: u32 = 0x03_0200;
    /// PCI subsystem vendor of the literal function: Red Hat's, as QEMU's own devices have it.
    pub const PCI_SUBSYSTEM_VENDOR: u32 = 0x1af4;
    /// PCI subsystem id of the literal function, from the range that is left to experiments: our driver knows the function by it, whatever
    /// vendor and device say.
    pub const PCI_SUBSYSTEM_DEVICE: u32 = 0x10f6;
}
