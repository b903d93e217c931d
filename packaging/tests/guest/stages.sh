#!/bin/sh
# Runs in a booted guest, one stage a boot, and says on a serial line of its own what each step printed and how it ended: the console's has
# a login prompt, which hangs up on others.
exec > /dev/ttyS1 2>&1
stage=$(sed -n 's/.*vgpu_stage=\([a-z-]*\).*/\1/p' /proc/cmdline)

# step NAME COMMAND…: its output, each line with the step's name before it, and its status.
step() {
    name=$1
    shift
    "$@" > /run/step.out 2>&1 < /dev/null
    status=$?
    sed "s/^/$name| /" /run/step.out
    echo "$name= $status"
}

doctor_as_user() {
    runuser -u tester -- vgpu-smi doctor
}

# As Ollama's unit, with the properties that matter to a device; more of them may be given.
doctor_in_a_unit() {
    systemd-run --wait --pipe --quiet -p User=tester -p ProtectSystem=full -p ProtectHome=yes -p PrivateTmp=yes -p NoNewPrivileges=yes \
        "$@" vgpu-smi doctor
}

# A unit of Ollama's name and user, more closed than its own: what the package adds to it lets it reach the device. It goes through the steps by
# which Ollama looks for GPUs.
ollama() {
    useradd --system --shell /bin/false ollama
    cat > /etc/systemd/system/ollama.service <<'UNIT'
[Service]
Type=oneshot
ExecStart=/stages/ollama-probe all
User=ollama
Group=ollama
DevicePolicy=closed
PrivateDevices=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
NoNewPrivileges=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
StandardOutput=truncate:/run/ollama.out
UNIT
    systemctl daemon-reload
    systemctl start ollama
    ended=$?
    cat /run/ollama.out
    rm /etc/systemd/system/ollama.service
    systemctl daemon-reload
    return $ended
}

everything() {
    find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/tmp -o -path /dev -o -path /var/log -o -path /var/lib/dpkg \
        -o -path /var/cache -o -path /var/lib/systemd -o -path /stages -o -path /etc/ld.so.cache \) -prune -o -print | sort
}

case "$stage" in
    install)
        everything > /stages/before
        step install dpkg -i /stages/vgpu-guest_*.deb /stages/vgpu-guest-dkms_*.deb
        step dkms dkms status
        step devices ls -l /dev/vgpu
        ;;
    use)
        step loaded grep -w vgpu /proc/modules
        step root vgpu-smi doctor
        step user doctor_as_user
        step unit doctor_in_a_unit -p DevicePolicy=closed -p 'DeviceAllow=/dev/vgpu rw'
        step unit-without doctor_in_a_unit -p PrivateDevices=yes
        step ollama ollama
        step smi nvidia-smi -L
        step loader sh -c 'ldconfig -p | grep -E "libcuda|libnvidia-ml"'
        chmod 600 /dev/vgpu
        step mode doctor_as_user
        chmod 666 /dev/vgpu
        step nodes systemctl enable --now vgpu-nodes
        step nodes-are ls -l /dev/nvidia0 /dev/nvidiactl
        step unload modprobe -r vgpu
        step module vgpu-smi doctor
        step load modprobe vgpu
        step again vgpu-smi doctor
        ;;
    quarantined | no-device)
        step doctor vgpu-smi doctor
        ;;
    remove)
        step upgrade dpkg -i /stages/vgpu-guest_*.deb /stages/vgpu-guest-dkms_*.deb
        step works vgpu-smi doctor
        step purge dpkg --purge vgpu-guest vgpu-guest-dkms
        everything > /stages/after
        step left diff /stages/before /stages/after
        ;;
    *)
        echo "stages.sh: there is no stage $stage"
        ;;
esac
echo "stage $stage is over"
sync
systemctl poweroff --no-block
