"""A shim of our own, for tests: a program apart that speaks the shim protocol of any release.

Its containers are plain processes of the host, its sandboxes nothing at all. Its manners (a file
that tests write, read again at each step) say what it is to get wrong, and when.
"""
