"""Tests that need a kernel and a system of their own, and the virtual machine that gives them one.

`python -m tests.vm` boots Debian's cloud kernel under qemu: pure cgroup v2, systemd, AppArmor,
criu, crun, every capability. The tests of this folder run in there and nowhere else.
"""
