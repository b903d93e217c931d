#!/bin/sh
# The first program of a test guest: mounts what programs expect, loads modules, starts the agent or a shell.
# It stays the parent of orphans and reaps them while it waits.
export PATH=/usr/local/bin:/usr/bin:/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
hostname guest
ip link set lo up

while read -r module; do
    insmod "/lib/modules/$module.ko" || echo "init: cannot load $module"
done </etc/modules

case " $(cat /proc/cmdline) " in
*" vgpu.shell "*)
    # With no agent, open the device's nodes here.
    while read -r node mode; do [ -e "/dev/$node" ] && chmod "$mode" "/dev/$node"; done </etc/device-nodes
    echo "This guest ends with this shell."
    cd /root && HOME=/root setsid cttyhack sh
    ;;
*)
    guest-agent || echo "init: the agent ended with $?"
    ;;
esac
sync
poweroff -f
