#!/bin/sh
# Installs the guest's part of the paravirtual GPU where there is no package for the system. See --help.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
version=@VERSION@
root=
force=
action=install

usage() {
    cat <<'TEXT'
Usage: ./install.sh [OPTION]...

Installs libcuda.so.1, libnvidia-ml.so.1, vgpu-smi, vgpu-run and the sources of the kernel module, has DKMS build the module where DKMS is, and
looks whether everything works. Done twice, it is as done once.

  --check        say what is installed and what is missing or different, and change nothing; status 1 if something is
  --uninstall    remove what this script has installed, and nothing else
  --force        also replace a driver of NVIDIA's that is in the way
  --root DIR     install into the system in this folder, and start nothing
  --help         this

Debian and Ubuntu have packages: vgpu-guest and vgpu-guest-dkms.
TEXT
}

while [ $# -gt 0 ]; do
    case "$1" in
        --check) action=check ;;
        --uninstall) action=uninstall ;;
        --force) force=1 ;;
        --root)
            [ $# -gt 1 ] && [ -d "$2" ] || { echo "install.sh: --root needs a folder that is there" >&2; exit 2; }
            root=${2%/}
            shift
            ;;
        -h | --help) usage; exit 0 ;;
        *) echo "install.sh: $1 is no option; --help lists them" >&2; exit 2 ;;
    esac
    shift
done

if [ -d "$root/usr/lib/x86_64-linux-gnu" ]; then
    libraries=/usr/lib/x86_64-linux-gnu
else
    libraries=/usr/lib64
fi
list=$root/usr/share/vgpu/installed

# Each file: where it is here, where it goes, its mode.
files() {
    cat <<TEXT
lib/libcuda.so.1 $libraries/libcuda.so.1 644
lib/libnvidia-ml.so.1 $libraries/libnvidia-ml.so.1 644
bin/vgpu-smi /usr/bin/vgpu-smi 755
share/vgpu-run /usr/bin/vgpu-run 755
share/vgpu-rebind /usr/lib/vgpu/vgpu-rebind 755
share/vgpu-nodes /usr/lib/vgpu/vgpu-nodes 755
share/vgpu-nodes.service /usr/lib/systemd/system/vgpu-nodes.service 644
share/ollama.conf /usr/lib/systemd/system/ollama.service.d/vgpu.conf 644
share/60-vgpu.rules /usr/lib/udev/rules.d/60-vgpu.rules 644
share/vgpu-modprobe.conf /usr/lib/modprobe.d/vgpu.conf 644
share/cdi.yaml /etc/cdi/vgpu.yaml 644
TEXT
    (cd "$here" && find kmod -type f | sort | while read -r file; do
        echo "$file /usr/src/vgpu-$version/${file#kmod/} 644"
    done)
}

links() {
    cat <<TEXT
libcuda.so.1 $libraries/libcuda.so
libnvidia-ml.so.1 $libraries/libnvidia-ml.so
TEXT
}

# The file as it is installed: the libraries' folder is this system's.
made() {
    sed "s|@LIBRARIES@|$libraries|g" "$here/$1"
}

is_ours() {
    [ -e "$list" ] && grep -qxF "$1" "$list"
}

refuse_nvidia() {
    for library in libcuda.so.1 libnvidia-ml.so.1; do
        path=$libraries/$library
        if { [ -e "$root$path" ] || [ -L "$root$path" ]; } && ! is_ours "$path"; then
            echo "install.sh: $root$path is there and was not installed by this script: a driver of NVIDIA's, perhaps." >&2
            echo "install.sh: nothing was changed. Remove that driver, or use --force to have its libraries replaced." >&2
            exit 1
        fi
    done
}

live() {
    [ -z "$root" ]
}

install_all() {
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || { echo "install.sh: only root can install: sudo ./install.sh" >&2; exit 1; }
    [ -n "$force" ] || refuse_nvidia
    mkdir -p "$root/usr/share/vgpu"
    new=$list.new
    : > "$new"
    files | while read -r from to mode; do
        mkdir -p "$(dirname "$root$to")"
        # Renamed into place: a program that has the old one open goes on with it.
        case "$from" in
            share/*) made "$from" > "$root$to.vgpu-new" ;;
            *) cp "$here/$from" "$root$to.vgpu-new" ;;
        esac
        chmod "$mode" "$root$to.vgpu-new"
        mv -f "$root$to.vgpu-new" "$root$to"
        echo "$to" >> "$new"
    done
    links | while read -r target to; do
        ln -sfn "$target" "$root$to"
        echo "$to" >> "$new"
    done
    if [ ! -e "$root/usr/bin/nvidia-smi" ] && [ ! -L "$root/usr/bin/nvidia-smi" ] || is_ours /usr/bin/nvidia-smi; then
        ln -sfn vgpu-smi "$root/usr/bin/nvidia-smi"
        echo /usr/bin/nvidia-smi >> "$new"
    fi
    # What an older release had and this one has not.
    if [ -e "$list" ]; then
        grep -vxFf "$new" "$list" | while read -r old; do rm -f "$root$old"; done || true
    fi
    mv "$new" "$list"
    echo "install.sh: $version is installed in ${root:-/}; --uninstall removes it"
    live || return 0
    ldconfig
    if command -v dkms >/dev/null; then
        dkms remove -m vgpu -v "$version" --all >/dev/null 2>&1 || true
        dkms add -m vgpu -v "$version" >/dev/null
        dkms install -m vgpu -v "$version" || echo "install.sh: the module was not built: the running kernel's headers are needed" >&2
    else
        echo "install.sh: there is no DKMS: make -C /usr/src/vgpu-$version install builds the module for the running kernel" >&2
    fi
    command -v udevadm >/dev/null && udevadm control --reload || true
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
    /usr/lib/vgpu/vgpu-rebind || true
    vgpu-smi doctor || echo "install.sh: what is said above is to be done before CUDA programs run; vgpu-smi doctor looks again."
}

check() {
    wrong=$(
        files | while read -r from to mode; do
            if [ ! -e "$root$to" ]; then
                echo "missing: $root$to"
            elif ! case "$from" in
                share/*) made "$from" | cmp -s - "$root$to" ;;
                *) cmp -s "$here/$from" "$root$to" ;;
            esac; then
                echo "different: $root$to"
            elif [ "$(stat -c %a "$root$to")" != "$mode" ]; then
                echo "mode is not $mode: $root$to"
            fi
        done
        links | while read -r target to; do
            [ "$(readlink "$root$to")" = "$target" ] || echo "not a link to $target: $root$to"
        done
    )
    if [ -n "$wrong" ]; then
        echo "$wrong"
        exit 1
    fi
    echo "install.sh: $version is installed in ${root:-/}, and nothing is missing"
    ! live || vgpu-smi doctor
}

uninstall() {
    if [ ! -e "$list" ]; then
        echo "install.sh: nothing is installed in ${root:-/} by this script"
        return 0
    fi
    if live; then
        [ "$(id -u)" = 0 ] || { echo "install.sh: only root can uninstall" >&2; exit 1; }
        [ ! -d /run/systemd/system ] || systemctl disable --now vgpu-nodes.service >/dev/null 2>&1 || true
        modprobe -r vgpu 2>/dev/null || true
        command -v dkms >/dev/null && dkms remove -m vgpu -v "$version" --all || true
    fi
    while read -r file; do
        rm -f "$root$file"
        (cd "$root/" && rmdir -p "$(dirname ".$file")") 2>/dev/null || true
    done < "$list"
    rm -f "$list"
    (cd "$root/" && rmdir -p ./usr/share/vgpu) 2>/dev/null || true
    ! live || ldconfig
    echo "install.sh: removed from ${root:-/}"
}

case "$action" in
    install) install_all ;;
    check) check ;;
    uninstall) uninstall ;;
esac
