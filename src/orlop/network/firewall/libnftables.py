"""libnftables: rulesets in nftables' own language, one transaction a call; for the worker alone.

It works in the network namespace in which it was made (libnftables(3)).
"""

from __future__ import annotations

import ctypes

from orlop.errors import AlreadyExists, FailedPrecondition, NotFound, OrlopError

_LIBRARY = "libnftables.so.1"


class Netfilter:
    """The kernel's packet filter, as nft(8) sees it; FailedPrecondition without libnftables."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise FailedPrecondition(
                f"{_LIBRARY} cannot be loaded: install nftables ({error})"
            ) from None
        self._library.nft_ctx_new.restype = ctypes.c_void_p
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(self._library, name).restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str, *, check: bool = False) -> str:
        """Run commands, all or none; what nft would print. With `check`, only try them."""
        self._library.nft_ctx_set_dry_run(self._context, ctypes.c_bool(check))
        failed = self._library.nft_run_cmd_from_buffer(
            self._context, ctypes.c_char_p(commands.encode())
        )
        output = self._library.nft_ctx_get_output_buffer(self._context) or b""
        errors = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise _error(errors.decode(errors="replace").strip())
        return output.decode(errors="replace")  # others' comments may be anything


def _error(text: str) -> OrlopError:
    kind: type[OrlopError] = FailedPrecondition
    if "No such file or directory" in text:
        kind = NotFound
    elif "File exists" in text:
        kind = AlreadyExists
    return kind(f"nftables refuses: {text or 'no reason given'}")
