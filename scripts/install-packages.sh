#!/bin/sh
# Install the Debian packages that orlop's demo and tests use; asks apt only for what is missing.
set -eu
packages="attr bind9-dnsutils busybox-static containerd containernetworking-plugins criu curl dnsmasq-base docker-compose docker-registry docker.io iproute2 iptables nftables nginx-light openssl procps python3-venv runc skopeo tini umoci util-linux"
outside="btrfs-progs chromium chromium-driver debootstrap e2fsprogs erofs-utils prometheus qemu-system-x86 xfsprogs" # not needed in the virtual machine of the tests
if [ "${1:-}" = --list ]; then # what the virtual machine needs in its turn
    echo "$packages"
    exit 0
fi
missing=
for package in $packages $outside; do
    dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "missing Debian packages:$missing; run as root, or: sudo apt-get install$missing" >&2
    exit 1
fi
echo "installing$missing"
apt-get update -qq
# Package scripts must not start a second containerd on this machine.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
