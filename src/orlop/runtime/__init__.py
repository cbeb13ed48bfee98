"""Running containers: bundles, shims and tasks.

A task is a container that runs, or has run and is not deleted yet. Its bundle is a folder with its
spec; its shim is the process that holds its stdio and exit status, and outlives this daemon.
`TaskManager` makes tasks, finds them again after a restart, and clears up after shims that died.
"""

from orlop.runtime.bundle import Bundle, Bundles
from orlop.runtime.model import Exit, ProcessState, Stdio
from orlop.runtime.shims import Shims
from orlop.runtime.tasks import TaskManager

__all__ = ["Bundle", "Bundles", "Exit", "ProcessState", "Shims", "Stdio", "TaskManager"]
