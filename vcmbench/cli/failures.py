"""What ends a command: a message on standard error and an exit code.

0: done. 1: failed although the input is right, out of memory or a bug (with its traceback).
2: the input is wrong, or something that the command needs is not there. 130: interrupted.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from typing import Final, NamedTuple

from vcmbench.errors import VcmbenchError

FAILED: Final = 1
BAD_INPUT: Final = 2

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_SMALLER: Final = (
    "work on smaller pieces (vcmbench predict --slab-ang; slab_ang and blocks_per_step of a "
    "train.yml)"
)


class Failure(NamedTuple):
    """How a command ends that could not do its work.

    Attributes
    ----------
    message : str
        For the person who gave the command.
    code : int
        Exit code.
    """

    message: str
    code: int


def explain(error: Exception) -> Failure | None:
    """Describe an error that is no bug of ours; None for all others.

    Parameters
    ----------
    error : Exception
        What a command raised.
    """
    match error:
        case VcmbenchError():
            return Failure(str(error), BAD_INPUT)
        case OSError(filename=str() | bytes() as name):
            return Failure(f"{os.fsdecode(name)}: {error.strerror}", BAD_INPUT)
        case OSError(errno=code) if code in _NO_SPACE:
            return Failure(f"output: {error.strerror}", BAD_INPUT)
        case ModuleNotFoundError(name=str() as name) if not name.startswith("vcmbench"):
            from vcmbench.extras import install_hint

            return Failure(f"this needs {name}: {install_hint(name)}", BAD_INPUT)
        case MemoryError():
            return Failure(f"out of memory ({error}): {_SMALLER}", FAILED)
    if _is_accelerator_memory(error):
        first = str(error).partition(". ")[0]
        return Failure(f"accelerator: {first}: {_SMALLER}, or --accelerator cpu", FAILED)
    return None


def _is_accelerator_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def log_traceback(error: Exception) -> None:
    """Log where an explained error came from: `--verbose` shows it."""
    logging.getLogger(__name__).debug("where the error arose", exc_info=error)
