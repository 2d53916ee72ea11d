"""What comes before the nodes of a command start: its numbers, its configuration, the data that all nodes read."""

from __future__ import annotations

import codecs
import ctypes
import gc
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from skippipe.config import CONFIGS, DataConfig, RunConfig
from skippipe.errors import UserError, shown
from skippipe.fields import load_config

if TYPE_CHECKING:
    from skippipe.data.prepared import Prepared

PR_SET_PDEATHSIG = 1
MOST_DIGITS = 9
DEFAULT_CONFIG = CONFIGS / "default.yaml"


def whole_number(text: str, name: str, smallest: int) -> int:
    """A whole number from the command line; UserError if it is none, or below `smallest`."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else -1
    if number < smallest:
        raise UserError(f"{name} must be a whole number of at least {smallest}, not {shown(text)}")
    return number


def config_from_arguments(arguments: Sequence[str], base: dict[str, Any] | None = None) -> RunConfig:
    """The configuration that arguments `[CONFIG] key=value ..` stand for; UserError names the one that is wrong.

    Fields that these do not give are as in `base`.
    """
    if arguments and "=" not in arguments[0]:
        return load_config(RunConfig, Path(arguments[0]), arguments[1:], base)
    return load_config(RunConfig, DEFAULT_CONFIG, arguments, base)


def prepare_here(config: DataConfig) -> Prepared:
    """Prepare the data on this machine; imports torch."""
    from skippipe.data.batches import prepare

    return prepare(config)


class PreparationFailedError(BaseException):
    """The child that prepares the data has ended too early; no Exception, which some import might swallow."""


def prepare_and_import(
    config: RunConfig,
    check: Callable[[Prepared], None] = lambda prepared: None,
    prepare: Callable[[DataConfig], Prepared] = prepare_here,
) -> Prepared:
    """Prepare the data, and `check` it, in a child process while this one imports what all nodes need.

    If the child fails, whose UserError or other failure is a line on stderr, SystemExit comes without delay.
    """
    launcher = os.getpid()
    reader, writer = os.pipe()
    children: list[int] = []

    def notice(*_: object) -> None:
        if children and failed_already(children[0]):
            raise PreparationFailedError

    before = signal.signal(signal.SIGCHLD, notice)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGCHLD, before)
        prepare_in_child(config, check, prepare, launcher, writer)
    try:
        children.append(child)
        # It may have ended before it was noted down.
        notice()
        import_everything(config)
        status = os.waitpid(child, 0)[1]
    except PreparationFailedError:
        status = os.waitpid(child, 0)[1]
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        children.clear()
        signal.signal(signal.SIGCHLD, before)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        name = signal.Signals(-code).name
        print(f"error: data: preparing it was killed by {name}; is there enough memory?", file=sys.stderr)
    if code != 0:
        sys.exit(code if code > 0 else 1)
    os.close(writer)
    with open(reader, "rb") as pipe:
        # Our own child's; a hub dataset has threads as soon as it is opened, with which this process could not fork.
        prepared: Prepared = pickle.load(pipe)
    return prepared


def failed_already(child: int) -> bool:
    """Whether a child has ended, and not well, without reaping it; of one that was reaped its status is known."""
    try:
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return ended is not None and ended.si_status != 0


def prepare_in_child(
    config: RunConfig,
    check: Callable[[Prepared], None],
    prepare: Callable[[DataConfig], Prepared],
    launcher: int,
    writer: int,
) -> NoReturn:
    """Prepare the data, check it and the device, write what was prepared into a pipe, and end this process.

    What goes wrong is a line on stderr.
    """
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher ends us
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == launcher:
            check_device(config.device, config.compile)
            prepared = prepare(config.data)
            check(prepared)
            os.write(writer, pickle.dumps(prepared))
            code = 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except (OSError, MemoryError) as error:
        reason = str(error) or "there is not enough memory"
        print(f"error: data: can't be prepared ({reason})", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def check_device(device: str, compiles: bool) -> None:
    """UserError if torch can't compute on a device here, or not compile for it if it is to.

    A process that has used CUDA can't be forked, nor one that has compiled: the compiler has threads.
    """
    import torch

    try:
        for name in devices_to_check(device, torch.cuda.device_count()):
            torch.zeros(1, device=name).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"device: {shown(device)} can't be used here ({reason[:200]})") from None
    if compiles:
        check_compiler(device)


def check_compiler(device: str) -> None:
    """UserError if torch.compile can't make code for a device here."""
    import torch

    try:
        torch.compile(torch.neg)(torch.ones(8, device=device))
    except RuntimeError as error:
        # The paragraphs that follow are for those who mend torch.
        reason = " ".join(str(error).partition("\n\n")[0].split())
        raise UserError(
            f"compile: torch can't compile for {device} here ({reason[:200]});"
            " install g++, for a GPU gcc, or set compile=false"
        ) from None


def devices_to_check(asked: str, gpus: int) -> list[str]:
    """Those that nodes may get on a machine with so many GPUs."""
    from skippipe.runtime.share import device_of

    return sorted({device_of(asked, place, gpus) for place in range(max(1, gpus))})


def import_everything(config: RunConfig) -> None:
    """Import what all nodes need."""
    # The garbage collector would look through all modules again and again, a sixth of the time, and find nothing.
    gc.disable()
    import torch

    if config.data.source == "hub":
        import datasets  # noqa: F401

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    import skippipe.runtime.launcher
    import skippipe.runtime.node  # noqa: F401
    from skippipe.model.optimizer import make_adamw

    # Torch, cryptography and sockets load a part of themselves at their first use; once here instead of once a node.
    make_adamw(torch.nn.Linear(1, 1), config.optimizer)
    X25519PrivateKey.generate()
    codecs.lookup("idna")
    gc.enable()
