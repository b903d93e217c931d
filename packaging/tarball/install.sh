#!/bin/sh
# Installs the guest's side of vgpu on a system without dpkg: libraries, vgpu-smi, rules, and the kernel module.
set -eu

VERSION="@VERSION@"
here="$(cd "$(dirname "$0")" && pwd)"
root=""
action=install
force=no
module=yes

usage() {
    cat <<TEXT
Usage: ./install.sh [--check | --uninstall] [--force] [--no-module] [--root DIR]

Without an option: installs vgpu $VERSION in this guest, or brings an installation up to date. It may be run again at any time.

  --check      changes nothing: says what is installed, whether it is this release, and runs the self-test
  --uninstall  takes away what was installed, and puts back what --force has moved aside
  --force      installs also where NVIDIA's libraries are: moves them aside, as NAME.before-vgpu
  --no-module  without the kernel module (it is built with DKMS, else with make, for the running kernel)
  --root DIR   into this folder instead of /: files only, no module, no ldconfig outside of it

Exit status: 0 done, or all is well; 1 not done, or something is missing; 2 wrong arguments.
TEXT
}

while [ $# -gt 0 ]; do
    case "$1" in
    --check) action=check ;;
    --uninstall) action=uninstall ;;
    --force) force=yes ;;
    --no-module) module=no ;;
    --root)
        [ $# -ge 2 ] || { usage >&2; exit 2; }
        root="${2%/}"
        shift
        ;;
    -h | --help) usage; exit 0 ;;
    *) echo "install.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
    esac
    shift
done

say() { echo "vgpu: $*"; }
fail() { echo "vgpu: $*" >&2; exit 1; }

# Where this system's loader looks first: Debian's place, Red Hat's, or the rest's.
if [ -d "$root/usr/lib/x86_64-linux-gnu" ]; then
    libraries=/usr/lib/x86_64-linux-gnu
elif [ -d "$root/usr/lib64" ] && [ ! -L "$root/usr/lib64" ]; then
    libraries=/usr/lib64
else
    libraries=/usr/lib
fi
state=/usr/lib/vgpu
list="$state/installed"
# Only this project's libraries read this setting.
ours() { grep -q VGPU_TRANSPORT "$1" 2>/dev/null; }
by_package() { command -v dpkg >/dev/null 2>&1 && [ -z "$root" ] && dpkg -S "$1" >/dev/null 2>&1; }

files() {
    for library in libcuda.so.1 libnvidia-ml.so.1; do
        echo "lib/$library $libraries/$library 644"
    done
    echo "bin/vgpu-smi /usr/bin/vgpu-smi 755"
    echo "bin/vgpu-run /usr/bin/vgpu-run 755"
    echo "share/60-vgpu.rules /usr/lib/udev/rules.d/60-vgpu.rules 644"
    echo "share/vgpu.conf /usr/lib/modprobe.d/vgpu.conf 644"
    echo "share/vgpu.yaml /etc/cdi/vgpu.yaml 644"
    echo "share/50-vgpu.conf /usr/lib/systemd/system/ollama.service.d/50-vgpu.conf 644"
}

links() {
    echo "$libraries/libcuda.so libcuda.so.1"
    echo "$libraries/libnvidia-ml.so libnvidia-ml.so.1"
    for library in libcuda.so.1 libnvidia-ml.so.1; do
        echo "$state/$library $libraries/$library"
    done
}

note() { grep -qxF "$1" "$root$list" 2>/dev/null || echo "$1" >>"$root$list"; }

aside() {
    say "$1 is moved aside, to $1.before-vgpu"
    mv "$root$1" "$root$1.before-vgpu"
    note "aside $1"
}

is_root() { [ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "this needs root: sudo $0"; }

refresh() {
    [ -z "$root" ] || return 0
    ldconfig
    if [ -S /run/udev/control ]; then
        udevadm control --reload || true
        udevadm trigger --action=change --subsystem-match=misc --sysname-match=vgpu || true
    fi
    if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
}

install_module() {
    [ "$module" = yes ] && [ -z "$root" ] || return 0
    if command -v dkms >/dev/null 2>&1; then
        if [ -z "$(dkms status -m vgpu -v "$VERSION" 2>/dev/null)" ]; then
            rm -rf "/usr/src/vgpu-$VERSION"
            cp -r "$here/kmod" "/usr/src/vgpu-$VERSION"
            dkms add -m vgpu -v "$VERSION"
        fi
        note "dkms $VERSION"
        dkms install -m vgpu -v "$VERSION" || fail "the kernel module does not build: are the headers of $(uname -r) installed?"
    else
        make -C "$here/kmod" BUILD="$here/kmod/build" all >/dev/null \
            || fail "the kernel module does not build: it needs make, gcc and the headers of $(uname -r); or install dkms"
        mkdir -p "/lib/modules/$(uname -r)/updates"
        cp "$here/kmod/build/vgpu.ko" "/lib/modules/$(uname -r)/updates/vgpu.ko"
        note "file /lib/modules/$(uname -r)/updates/vgpu.ko"
        depmod
    fi
    modprobe vgpu || say "the module does not load; the self-test says why"
}

do_install() {
    is_root
    if by_package "$libraries/libcuda.so.1"; then
        fail "$libraries/libcuda.so.1 belongs to a package ($(dpkg -S "$libraries/libcuda.so.1" | cut -d: -f1)): use packages, or remove that one first"
    fi
    for library in libcuda.so.1 libnvidia-ml.so.1; do
        file="$libraries/$library"
        if [ -e "$root$file" ] && ! ours "$root$file" && [ "$force" = no ]; then
            fail "$file is not this project's: NVIDIA's driver, most likely. A VM with a GPU of its own does not need this. \
Uninstall that driver first, or move its libraries aside with --force. Nothing was changed."
        fi
    done
    mkdir -p "$root$state"
    touch "$root$list"
    for library in libcuda.so.1 libnvidia-ml.so.1; do
        file="$libraries/$library"
        if [ -e "$root$file" ] || [ -L "$root$file" ]; then
            ours "$root$file" || aside "$file"
        fi
    done
    files | while read -r from to mode; do
        mkdir -p "$root$(dirname "$to")"
        # Beside its place first: programs that run keep the file that they have.
        cp "$here/$from" "$root$to.new"
        chmod "$mode" "$root$to.new"
        mv -f "$root$to.new" "$root$to"
        note "file $to"
    done
    links | while read -r link target; do
        if [ -e "$root$link" ] && [ ! -L "$root$link" ]; then aside "$link"; fi
        ln -sfn "$target" "$root$link"
        note "link $link"
    done
    if [ ! -e "$root/usr/bin/nvidia-smi" ] && [ ! -L "$root/usr/bin/nvidia-smi" ]; then
        ln -s vgpu-smi "$root/usr/bin/nvidia-smi"
        note "link /usr/bin/nvidia-smi"
    fi
    refresh
    install_module
    say "vgpu $VERSION is installed; ./install.sh --uninstall takes it away"
    [ -n "$root" ] || vgpu-smi doctor || say "once that is done, see again with: vgpu-smi doctor"
}

do_uninstall() {
    is_root
    [ -e "$root$list" ] || { say "nothing of it is installed by install.sh"; exit 0; }
    while read -r kind path; do
        case "$kind" in
        file | link) rm -f "$root$path" ;;
        dkms)
            modprobe -r vgpu 2>/dev/null || true
            dkms remove -m vgpu -v "$path" --all || true
            rm -rf "/usr/src/vgpu-$path"
            ;;
        esac
    done <"$root$list"
    while read -r kind path; do
        if [ "$kind" = aside ] && [ -e "$root$path.before-vgpu" ]; then mv "$root$path.before-vgpu" "$root$path"; fi
    done <"$root$list"
    rm -rf "$root/usr/lib/vgpu"
    for folder in /usr/lib/systemd/system/ollama.service.d /etc/cdi; do
        rmdir "$root$folder" 2>/dev/null || true
    done
    [ -n "$root" ] || depmod || true
    refresh
    say "vgpu is uninstalled"
}

do_check() {
    missing=0
    # Not in a pipe: the count would be lost.
    table="$(files)"
    while read -r from to _; do
        if [ ! -e "$root$to" ]; then
            say "missing: $to"
            missing=1
        elif ! cmp -s "$here/$from" "$root$to"; then
            say "another release, or changed: $to"
            missing=1
        fi
    done <<TABLE
$table
TABLE
    [ "$missing" = 0 ] || fail "not installed as in vgpu $VERSION: ./install.sh installs it"
    say "the files of vgpu $VERSION are installed"
    [ -n "$root" ] || exec vgpu-smi doctor
}

"do_$action"
