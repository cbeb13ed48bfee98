"""What clients that are not in Debian ask of containerd's API, played call by call over gRPC.

Each file plays one of them: BuildKit's containerd worker, nerdctl, and a dockerd (25 and later)
that keeps its images in the daemon below. The sequences are those of their sources. They run on
orlopd, and on Debian's containerd as far as it has the calls: they ask for nothing of ours.
"""
