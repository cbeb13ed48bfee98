"""What takes more memory than a container may have."""

EAT = "(echo 1000 >/proc/self/oom_score_adj; head -c 100m /dev/zero | tail -n 1 >/dev/null)"
"""For a shell, which goes on: the kernel may choose several processes, and takes that one last."""
