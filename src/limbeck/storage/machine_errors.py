"""Errors of the machine, such as a lack of memory or of file handles, which say nothing about a file's content."""

from __future__ import annotations

import errno

MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What is raised where a file should be and is none."""
_ERRNOS = frozenset(
    {
        errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EROFS, errno.EAGAIN, errno.EINTR,
        errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT, errno.EIO, errno.ENOSPC, errno.EDQUOT,
    }
)  # fmt: skip
_NO_MEMORY = ("DefaultCPUAllocator", "CUDA out of memory", "std::bad_alloc")
"""Parts of the messages of errors that have no class of their own."""


def is_machine_error(error: BaseException | None) -> bool:
    """Tell whether an error, or what caused it, is one of the machine: then the same file may be read later.

    Args:
        error: The error.

    >>> is_machine_error(MemoryError()), is_machine_error(OSError(errno.EMFILE, "Too many open files"))
    (True, True)
    >>> is_machine_error(FileNotFoundError(errno.ENOENT, "No such file")), is_machine_error(ValueError("not JSON"))
    (False, False)
    """
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's
            return True
        if isinstance(error, OSError) and error.errno in _ERRNOS:
            return True
        if isinstance(error, RuntimeError) and any(part in str(error) for part in _NO_MEMORY):
            return True
        error = error.__cause__
    return False
