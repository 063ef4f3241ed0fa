"""From what stands on the command line to a model: baseline, directory, callable or predictions."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from vcmbench.errors import VcmbenchError, bad_input, unknown_name
from vcmbench.extras import extra_of
from vcmbench.models.card import read_card
from vcmbench.models.interface import (
    CARD,
    HamiltonianModel,
    LoadedModel,
    ModelKind,
    PredictionsModel,
)
from vcmbench.resources import resource_folders
from vcmbench.store.predictions import SUFFIXES

Accelerator = Literal["cpu", "cuda"]


def load_model(spec: str, *, accelerator: Accelerator = "cpu") -> LoadedModel:
    """Load a model.

    Parameters
    ----------
    spec : str
        A baseline's name; a model directory (its ``model.yml`` names the loader);
        ``module:callable``, called without arguments; or a predictions folder. A name that is
        both a baseline's and a folder's means the baseline: write ``./name`` for the folder.
    accelerator : {"cpu", "cuda"}
        Where to compute; passed on to loaders and callables that have a parameter `accelerator`.

    Returns
    -------
    LoadedModel

    Raises
    ------
    VcmbenchError
        If there is no such model, its card or weights are wrong, or it cannot use the accelerator.

    Notes
    -----
    A model directory with a loader of its own, and a callable, run as code with the rights of
    the caller: load only what you trust. Cards, weights and predictions are data.
    """
    known = known_baselines()
    path = Path(spec)
    if spec in known:
        return _load_directory(known[spec], "baseline", accelerator)
    if (path / CARD).is_file():
        return _load_directory(path, "directory", accelerator)
    if path.is_dir():
        return _load_predictions(path)
    if ":" in spec:
        return _load_callable(spec, accelerator)
    raise unknown_name("model", spec, known)


def known_baselines() -> dict[str, Path]:
    """Baselines that travel with the code, by name."""
    folders = resource_folders("baselines")
    return {name: folder for name, folder in folders.items() if (folder / CARD).is_file()}


def _load_directory(folder: Path, kind: ModelKind, accelerator: Accelerator) -> LoadedModel:
    card = read_card(folder)
    source, _, name = card.loader.rpartition(":")
    with _importable_from(folder):
        if source.endswith(".py"):
            module = _import_file(folder, source)
        else:
            module = _import_module(source, str(folder / CARD))
        load = _attribute(module, name, f"{folder / CARD}: loader")
        model = _call(load, folder, source=str(folder / CARD), accelerator=accelerator)
    return LoadedModel(card.name, kind, model, card, _digest(folder))


def _load_predictions(folder: Path) -> LoadedModel:
    if not any(path.name.endswith(SUFFIXES) for path in folder.iterdir()):
        raise bad_input(
            folder,
            "content",
            found="neither",
            expected=f"{CARD} of a model directory or DEVICE{SUFFIXES[0]} of predictions",
        )
    return LoadedModel(folder.resolve().name, "predictions", PredictionsModel(folder))


def _load_callable(spec: str, accelerator: Accelerator) -> LoadedModel:
    module_name, _, name = spec.partition(":")
    with _importable_from(Path.cwd()):
        module = _import_module(module_name, spec)
        make = _attribute(module, name, spec)
        model = _call(make, source=spec, accelerator=accelerator)
    return LoadedModel(spec.replace(":", "."), "callable", model)


def _call(
    make: Callable[..., Any], *arguments: Path, source: str, accelerator: Accelerator
) -> HamiltonianModel:
    """Make the model; `accelerator` goes to those that take it."""
    if "accelerator" in inspect.signature(make).parameters:
        model = make(*arguments, accelerator=accelerator)
    elif accelerator == "cpu":
        model = make(*arguments)
    else:
        raise bad_input(source, "accelerator", found=accelerator, expected="cpu, all it can use")
    if not isinstance(model, HamiltonianModel):
        raise bad_input(
            source,
            "loader",
            found=f"a {type(model).__name__}",
            expected="an object with predict(structure) and cutoff_ang",
        )
    return model


def _import_module(name: str, source: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _missing(source, name, error) from error


def _import_file(folder: Path, name: str) -> ModuleType:
    """Run a Python file of a model directory as a module of its own."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise bad_input(
            folder / CARD, "loader", found=name, expected="a Python file in this directory"
        )
    module_name = f"_vcmbench_model_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    specification = importlib.util.spec_from_file_location(module_name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module_name] = module  # dataclasses and pickles of tensors look modules up there
    try:
        specification.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise _missing(str(folder / CARD), name, error) from error
    return module


def _missing(source: str, name: str, error: ModuleNotFoundError) -> VcmbenchError:
    """Name the module that could not be imported, and how it is installed if an extra has it."""
    extra = extra_of(error.name or "")
    hint = f": pip install 'vcmbench[{extra}]'" if extra else ""
    return bad_input(
        source, "module", found=f"{name!r} ({error})", expected=f"an importable module{hint}"
    )


def _attribute(module: ModuleType, name: str, source: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if not callable(found):
        raise bad_input(
            source,
            "function",
            found=f"no callable {name!r} in {module.__name__}",
            expected="one that returns the model",
        )
    return found


@contextmanager
def _importable_from(folder: Path) -> Iterator[None]:
    """Let imports find modules beside the model while it loads."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files of a model directory."""
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith((".", "__pycache__")) for part in relative.parts)
        if path.is_file() and not hidden:
            state.update(f"{relative.as_posix()}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as handle:
                state.update(hashlib.file_digest(handle, "sha256").digest())
    return state.hexdigest()
