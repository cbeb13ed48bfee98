"""Layers as EROFS images: an index over a tar, which the kernel mounts, and no file extracted.

`tree` makes a tree of nodes out of a layer's entries, `layout` knows the bytes of EROFS, `image`
writes an image: the tar as it comes, metadata that points into it, and the superblock last.
Workers are forked from a process that has little loaded, so nothing is imported here.
"""
