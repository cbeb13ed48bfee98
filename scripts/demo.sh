#!/bin/sh
# The main job, for real: push an image to a registry, pull it with orlopd, run it through runC with two
# clients, show network and metrics, clean up.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH
[ "$(id -u)" -eq 0 ] || { echo "run as root: containers need it" >&2; exit 1; }
# In a network namespace of its own: this machine's interfaces and rules stay as they are.
[ -n "${ORLOP_DEMO:-}" ] || exec env ORLOP_DEMO=1 unshare --net "$0"
ip link set lo up

work=$(mktemp -d)
address=$work/state/orlop.sock
registry_pid=
orlopd_pid=
other_pid=

finish() {
    status=$?
    [ "$status" -eq 0 ] || orlop rm -f deck web visitor >/dev/null 2>&1 || true
    [ -z "$other_pid" ] || { kill "$other_pid" && wait "$other_pid"; } 2>/dev/null || true
    [ -z "$orlopd_pid" ] || { kill "$orlopd_pid" && wait "$orlopd_pid"; } 2>/dev/null || true
    [ -z "$registry_pid" ] || { kill "$registry_pid" && wait "$registry_pid"; } 2>/dev/null || true
    if [ "$status" -ne 0 ]; then
        tail -n 20 "$work"/*.log >&2 || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

wait_for() {
    for _ in $(seq 100); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "gave up waiting for: $*" >&2
    return 1
}

step "A registry on loopback, and an image pushed to it by skopeo"
port=$(free_port)
cat >"$work/registry.yml" <<YAML
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:$port"}
YAML
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
registry_pid=$!
scripts/make-busybox-image.sh "$work/layout"
image=127.0.0.1:$port/demo/busybox:latest
wait_for python3 -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$port/v2/')"
show skopeo copy --quiet --dest-tls-verify=false "oci:$work/layout:latest" "docker://$image"

step "orlopd"
orlopd --root "$work/root" --state "$work/state" --address "$address" >"$work/orlopd.log" 2>&1 &
orlopd_pid=$!
wait_for test -S "$address.ttrpc"
orlop() { command orlop --address "$address" "$@"; }
ctr() { command ctr --address "$address" "$@"; }
show orlop version

step "Pull the image"
show orlop pull "$image"
show orlop images

step "Push it under another name, and see it in the registry"
copy=127.0.0.1:$port/demo/copy:1
show orlop tag "$image" "$copy"
show orlop push --progress plain "$copy"
show orlop rmi "$copy"
show orlop manifest inspect "$copy"
echo

step "Run it with containerd's own client"
show ctr run --rm "$image" hello-ctr echo "hello from runC, asked by ctr"

step "Run it with orlop"
show orlop run --rm "$image" echo "hello from runC, asked by orlop"
show orlop run --rm --user sailor "$image" sh -c 'id; ls -la /home'

step "A container that stays, its network, processes and metrics"
show orlop run -d --name deck "$image" sh -c 'echo on deck; exec sleep 60'
show orlop ps
show orlop exec deck ip addr
show ctr tasks ps deck
show ctr tasks metrics deck
show orlop logs deck

step "orlopd is killed and started again; the container runs on"
kill -9 "$orlopd_pid"
wait "$orlopd_pid" 2>/dev/null || true
orlopd --root "$work/root" --state "$work/state" --address "$address" >>"$work/orlopd.log" 2>&1 &
orlopd_pid=$!
wait_for ctr version
show orlop exec deck echo "still here"
show orlop ps

step "Two containers on a network, and a published port seen from another host"
unshare --net sleep 1000 &
other_pid=$!
sleep 0.2
ip link add cable type veth peer name eth0 netns "$other_pid"
ip addr add 192.0.2.1/24 dev cable
ip link set cable up
other() { nsenter --net="/proc/$other_pid/ns/net" "$@"; }
other ip addr add 192.0.2.2/24 dev eth0
other ip link set eth0 up
show orlop network create --subnet 10.201.0.0/24 back
show orlop run -d --name web --network back --ip 10.201.0.10 -p 8080:80 "$image" \
    sh -c 'mkdir /www; echo "hello from the web" >/www/index.html; exec httpd -f -h /www'
show orlop run --rm --name visitor --network back "$image" wget -qO- http://web
echo "other-host\$ curl http://192.0.2.1:8080"
other curl -sS http://192.0.2.1:8080
show orlop port web
show orlop network inspect back
show orlop rm -f web
show orlop network prune -f

step "Clean up"
show orlop stop -t 1 deck
show orlop rm deck
show orlop rmi "$image"
echo
echo "demo: all done"
