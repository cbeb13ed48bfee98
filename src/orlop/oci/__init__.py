"""OCI models and rules: digests, descriptors, manifests, references, platforms, the runtime spec.

Pure functions and frozen values; nothing here does I/O on anything but what it is given.
"""
