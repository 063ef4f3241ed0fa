"""What vcmbench finds on this machine: versions, extras, programs, data, cache, Hub."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

from vcmbench.documents import Document
from vcmbench.errors import VcmbenchError
from vcmbench.extras import core, extras, problem_of
from vcmbench.machine import allowed_threads, available_cpus, processor_name
from vcmbench.models.loader import known_baselines
from vcmbench.release import Release, known_releases, verify_release
from vcmbench.resources import CACHE_VARIABLE, cache_folder

State = Literal["ok", "absent", "problem"]

HUB_TIMEOUT_S = 10.0
"""How long an answer of the Hub is waited for."""


class Check(Document):
    """One thing that was looked at."""

    topic: str
    """What it belongs to."""
    name: str
    """What was looked at."""
    state: State
    """``absent``: not there, and not needed by everyone; ``problem``: vcmbench does not work."""
    found: str
    """What there is."""
    remedy: str | None = None
    """What to do about it."""


def examine(
    *,
    data: bool = True,
    network: bool = True,
    progress: Callable[[str], None] = lambda _topic: None,
) -> list[Check]:
    """Look at everything.

    Parameters
    ----------
    data : bool
        Whether datasets are verified byte by byte.
    network : bool
        Whether the Hub is asked.
    progress : callable
        Called with each topic.

    Returns
    -------
    list of Check
    """
    found: list[Check] = []
    for topic, look in (
        ("environment", _environment),
        ("extras", _extras),
        ("accelerator", _accelerator),
        ("programs", _programs),
        ("baselines", _baselines),
        ("data", lambda: _data(data, progress)),
        ("cache", _cache),
        ("Hub", lambda: _hub(network)),
    ):
        progress(topic)
        found += [Check(topic=topic, **row._asdict()) for row in look()]
    return found


class _Row(NamedTuple):
    name: str
    state: State
    found: str
    remedy: str | None = None


def _environment() -> Iterator[_Row]:
    yield _Row("vcmbench", "ok", f"{version('vcmbench')} ({Path(__file__).parent})")
    yield _Row("Python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield _Row("system", "ok", f"{platform.system()} {platform.release()} {platform.machine()}")
    yield _Row("processor", "ok", f"{processor_name()}, {available_cpus()} CPUs")
    yield _Row("threads", "ok", f"{allowed_threads()} for BLAS and OpenMP")
    wrong = [problem for one in core() if (problem := problem_of(one))]
    if wrong:
        yield _Row("dependencies", "problem", "; ".join(wrong), "pip install --upgrade vcmbench")
    else:
        yield _Row("dependencies", "ok", ", ".join(f"{r.name} {version(r.name)}" for r in core()))


def _extras() -> Iterator[_Row]:
    for extra, needed in extras().items():
        wrong = [problem for one in needed if (problem := problem_of(one))]
        if wrong:
            yield _Row(f"[{extra}]", "absent", "; ".join(wrong), f"pip install 'vcmbench[{extra}]'")
        else:
            yield _Row(f"[{extra}]", "ok", ", ".join(f"{r.name} {version(r.name)}" for r in needed))


def _accelerator() -> Iterator[_Row]:
    board = shutil.which("nvidia-smi")
    try:
        import torch
    except (ImportError, OSError) as error:
        yield _Row("torch", "absent", str(error), "pip install 'vcmbench[torch]'")
        return
    built = torch.version.cuda
    yield _Row(
        "torch", "ok", f"{torch.__version__}, {f'CUDA {built}' if built else 'without CUDA'}"
    )
    if not torch.cuda.is_available():
        remedy = "install a torch with CUDA that fits the driver" if board else None
        there = "nvidia-smi is there, but torch sees no CUDA board" if board else "none: CPU only"
        yield _Row("CUDA board", "absent", there, remedy)
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        yield _Row(f"cuda:{index}", "ok", f"{torch.cuda.get_device_name(index)}, {memory}")


def _programs() -> Iterator[_Row]:
    from vcmbench.dft.launcher import Launcher

    try:
        launcher = Launcher.find()
    except VcmbenchError as error:
        yield _Row("CP2K", "absent", str(error), "only `vcmbench data build` needs it")
    else:
        yield _Row("CP2K", "ok", f"{launcher.program}, {launcher.mpi}")


def _baselines() -> Iterator[_Row]:
    known = known_baselines()
    if known:
        yield _Row("fitted", "ok", ", ".join(known))
    else:
        yield _Row("fitted", "problem", "none", "reinstall vcmbench: they come with it")


def _data(verify: bool, progress: Callable[[str], None]) -> Iterator[_Row]:
    # Downloads are looked at without the Hub's client.
    from vcmbench.hub.download import downloaded_releases

    folders = {**known_releases(), **downloaded_releases()}
    if not folders:
        yield _Row("datasets", "problem", "none", "reinstall vcmbench: vcm-demo comes with it")
    for name, folder in folders.items():
        try:
            release = Release.open(folder)
            problems = verify_release(release, progress) if verify else []
        except VcmbenchError as error:
            problems = [str(error)]
        if problems:
            yield _Row(name, "problem", "\n".join(problems), f"vcmbench data download {name}")
            continue
        present = len(release.manifest.devices) - len(release.left_out)
        how = "every byte verified" if verify else "not verified"
        yield _Row(release.label, "ok", f"{present} devices, {how} ({folder})")


def _cache() -> Iterator[_Row]:
    folder = cache_folder()
    remedy = f"point {CACHE_VARIABLE} to a folder that can be written"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except OSError as error:
        yield _Row("folder", "problem", f"{error.filename or folder}: {error.strerror}", remedy)
        return
    free = shutil.disk_usage(folder).free
    yield _Row("folder", "ok", f"{folder}: {size / 1e9:.2f} GB, {free / 1e9:.0f} GB free")


def _hub(network: bool) -> Iterator[_Row]:
    from vcmbench.hub.client import hub_client, hub_errors, is_offline

    try:
        client = hub_client()
    except VcmbenchError as error:
        yield _Row("client", "absent", str(error))
        return
    yield _Row("token", "ok", "present" if client.get_token() else "none: public datasets only")
    endpoint = client.constants.ENDPOINT
    if not network or is_offline():
        why = "HF_HUB_OFFLINE is set" if is_offline() else "--offline"
        yield _Row("access", "absent", f"{endpoint}: not asked ({why})")
        return
    try:
        with hub_errors(endpoint):
            client.get_session().head(endpoint, timeout=HUB_TIMEOUT_S)
    except VcmbenchError as error:
        proxies = [name for name in ("HTTPS_PROXY", "https_proxy") if name in os.environ]
        where = f" (through {proxies[0]})" if proxies else ""
        yield _Row("access", "absent", f"{error}{where}", "datasets at hand need no network")
    else:
        yield _Row("access", "ok", f"{endpoint} answers")
