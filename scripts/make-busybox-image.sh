#!/bin/sh
# Build a small image from Debian's busybox-static as an OCI layout: make-busybox-image.sh LAYOUT
set -eu
layout=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

umoci init --layout "$layout" >/dev/null
umoci new --image "$layout:latest" >/dev/null
umoci unpack --image "$layout:latest" "$work/bundle" >/dev/null
root=$work/bundle/rootfs
mkdir -p "$root/bin" "$root/etc" "$root/root" "$root/tmp" "$root/home/sailor"
chmod 1777 "$root/tmp"
cp /bin/busybox "$root/bin/busybox"
for applet in $(/bin/busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nsailor:x:1000:1000::/home/sailor:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\ndeck:x:50:sailor\nsailor:x:1000:\n' >"$root/etc/group"
chown 1000:1000 "$root/home/sailor"
umoci repack --image "$layout:latest" "$work/bundle" >/dev/null
umoci config --image "$layout:latest" --config.cmd sh --config.env PATH=/bin --author orlop
