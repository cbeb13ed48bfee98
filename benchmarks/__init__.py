"""Comparisons with Debian's containerd, side by side in one run: `python -m benchmarks`.

Both daemons keep everything on a tmpfs; a warm-up comes first; the rivals alternate; what is
printed are medians and ratios. Absolute times differ from machine to machine and from minute to
minute.
"""
