#!/bin/sh
# Build what the virtual machine of the tests boots: build-image.sh FOLDER
#
# FOLDER gets `kernel`, `initrd`, `root.img` (Debian with what orlop and its tests need; it knows nothing of
# any checkout) and `python`, the version of its Python. It appears whole or not at all.
set -eu
folder=$1
here=$(dirname "$(readlink -f "$0")")
suite=bookworm

[ "$(id -u)" -eq 0 ] || { echo "the image of the virtual machine is built by root only" >&2; exit 1; }
mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
root=$work/root
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM

# Debian's archive as this machine's apt is configured to reach it.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' | sort -u | head -n 1
}
from=$(mirror)
[ -n "$from" ] || { apt-get update -qq; from=$(mirror); }
case $from in
mirror+file:*) from=$(sed -n 's/^\(https\?:[^[:space:]]*\).*/\1/p' "${from#mirror+file:}" | head -n 1) ;;
esac
[ -n "$from" ] || { echo "apt on this machine knows no Debian archive: see /etc/apt" >&2; exit 1; }
eval "$(apt-config shell proxy Acquire::http::Proxy secure_proxy Acquire::https::Proxy)"
case ${proxy:-DIRECT} in DIRECT) ;; *) export http_proxy="$proxy" ;; esac
case ${secure_proxy:-DIRECT} in DIRECT) ;; *) export https_proxy="$secure_proxy" ;; esac

echo "virtual machine: building its image from $from (once, a few minutes)" >&2
export DEBIAN_FRONTEND=noninteractive INITRD=No LC_ALL=C
inside() { chroot "$root" /usr/bin/env -u TMPDIR PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

{
    debootstrap --variant=minbase "$suite" "$root" "$from"
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no service starts in the chroot
    chmod +x "$root/usr/sbin/policy-rc.d"
    echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
    # shellcheck disable=SC2046
    inside apt-get install -y -q --no-install-recommends \
        $("$here/../install-packages.sh" --list) $(grep -v '^#' "$here/packages")
    inside apt-get clean
    rm -rf "$root/usr/share/doc" "$root/usr/share/locale" "$root/usr/share/man" "$root/var/lib/apt/lists"
} >"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; echo "the image could not be built" >&2; exit 1; }

# The system: what the guest does at boot is its run.service; nothing else has to start.
cp "$here/run.service" "$root/etc/systemd/system/"
install -m 755 "$here/run" "$root/usr/local/sbin/orlop-vm-run"
for unit in containerd docker docker.socket docker-registry nginx e2scrub_reap; do
    systemctl --root "$root" --quiet disable "$unit"
done
systemctl --root "$root" --quiet mask getty@tty1 serial-getty@ttyS0 serial-getty@hvc0 \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    systemd-journal-flush systemd-update-utmp systemd-timesyncd systemd-sysusers \
    modprobe@dm_mod modprobe@efi_pstore modprobe@drm modprobe@configfs apparmor
systemctl --root "$root" --quiet enable run
systemctl --root "$root" --quiet set-default multi-user.target
echo orlop-vm >"$root/etc/hostname"
printf '127.0.0.1 localhost orlop-vm\n' >"$root/etc/hosts"
: >"$root/etc/resolv.conf" # no name servers; but ctr mounts the file
: >"$root/etc/orlop-vm" # how the tests know where they are
echo 11111111111111111111111111111111 >"$root/etc/machine-id"

# A small initrd of our own: Debian's takes seconds to unpack under emulation.
release=$(basename "$root"/lib/modules/*)
initrd=$work/initrd.d
mkdir -p "$initrd/bin" "$initrd/dev" "$initrd/root"
cp "$root/bin/busybox" "$initrd/bin/"
install -m 755 "$here/init" "$initrd/init"
inside modprobe --set-version "$release" --show-depends --all virtio_pci virtio_blk |
    awk '/^insmod/ && !seen[$2]++ { print $2 }' | while read -r module; do
    cp "$root$module" "$initrd/"
    basename "$module" >>"$initrd/modules"
done
cp -a "$initrd" "$root/tmp/initrd"
inside sh -c 'cd /tmp/initrd && find . | cpio --quiet -o -H newc' | gzip -1 >"$work/initrd"
rm -rf "$root/tmp/initrd" "$initrd"

cp "$root/boot/vmlinuz-$release" "$work/kernel"
inside python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' >"$work/python"
rm -rf "$root/boot"/*
mke2fs -q -L root -t ext4 -O ^has_journal -d "$root" "$work/root.img" 4G
rm -rf --one-file-system "$root"
chmod 755 "$work"
mv -T "$work" "$folder"
