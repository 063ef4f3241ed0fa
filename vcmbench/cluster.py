"""Compute a recipe on Dask workers: order, what depends on what, and what is told meanwhile."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vcmbench.errors import VcmbenchError
from vcmbench.machine import available_cpus
from vcmbench.production import Site, produce_device, produce_lead
from vcmbench.production_record import ProductionRecord

if TYPE_CHECKING:
    from distributed import Client

    from vcmbench.recipe import DeviceJob

_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
TOPIC: Final = "vcmbench-build"
"""Dask topic of the progress messages."""


@dataclass(frozen=True)
class Outcome:
    """What became of one device or lead.

    Parameters
    ----------
    name : str
        Its id.
    record : ProductionRecord or None
        Its record if it is finished.
    error : str or None
        Why it is not.
    """

    name: str
    record: ProductionRecord | None
    error: str | None


@contextmanager
def local_cluster(n_workers: int) -> Iterator[Client]:
    """Client of a cluster of single-threaded processes on this machine."""
    distributed = _distributed()
    import dask

    # Dask's workers get one BLAS thread for each of their tasks; ours is alone on its cores.
    threads = max(1, available_cpus() // n_workers)
    environment = dict.fromkeys(_THREAD_VARIABLES, threads)
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment}),
        distributed.LocalCluster(
            n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@contextmanager
def running_cluster(address: str) -> Iterator[Client]:
    """Client of a scheduler that is already running, for example one of dask-jobqueue."""
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout="20s")
    except (OSError, ValueError) as error:
        raise VcmbenchError(f"--scheduler {address}: no Dask scheduler answers ({error})") from None
    with client:
        yield client


def build(
    client: Client,
    site: Site,
    jobs: tuple[DeviceJob, ...],
    *,
    tell: Callable[[str], None] = lambda _text: None,
) -> Iterator[Outcome]:
    """Compute the lead, then the devices; siblings wait for the first of their family.

    Parameters
    ----------
    client : Client
        Dask client; every worker sees the folders of `site` under the same paths.
    site : Site
        Recipe and folders.
    jobs : tuple of DeviceJob
        Devices to compute; the others of the recipe are left alone.
    tell : callable
        Shown the progress messages of all workers.

    Yields
    ------
    Outcome
        One for the lead and each device, as they finish. A device whose computation fails does
        not keep the others from being computed.
    """
    client.subscribe_topic(TOPIC, lambda event: tell(str(event[1])))  # type: ignore[no-untyped-call]
    # Dask hands out the result of an earlier task of the same key.
    build_id = uuid.uuid4().hex[:8]
    lead: Any = client.submit(_lead, site, key=f"lead-{site.recipe.lead}-{build_id}")
    names: dict[object, str] = {lead.key: site.recipe.lead}
    futures = [lead]
    for family in site.recipe.families():
        first: Any = None
        for job in (job for job in family if job in jobs):
            # One that is finished can start its siblings without being asked for.
            sibling = None if job is family[0] else family[0].id
            after = [lead] if first is None else [lead, first]
            future: Any = client.submit(
                _device, site, job, sibling, after, key=f"device-{job.id}-{build_id}"
            )
            if sibling is None:
                first = future
            names[future.key] = job.id
            futures.append(future)
    yield from _outcomes(futures, names)


def _outcomes(futures: list[Any], names: dict[object, str]) -> Iterator[Outcome]:
    for future in _distributed().as_completed(futures):
        name = names[future.key]
        if future.status == "finished":
            value: ProductionRecord | str = future.result()
            if isinstance(value, str):
                yield Outcome(name, None, value)
            else:
                yield Outcome(name, value, None)
        else:
            yield Outcome(name, None, f"{name}: {future.exception()!r}")


def _lead(site: Site) -> ProductionRecord | str:
    return _without_raising(site.recipe.lead, lambda: produce_lead(site, _tell))


def _device(
    site: Site, job: DeviceJob, first: str | None, after: list[ProductionRecord | str]
) -> ProductionRecord | str:
    if isinstance(after[0], str):
        return f"{job.id}: not computed, its lead failed: {after[0]}"
    return _without_raising(job.id, lambda: produce_device(site, job, first, _tell))


def _without_raising(name: str, work: Callable[[], ProductionRecord]) -> ProductionRecord | str:
    """Return what went wrong as a message: what depends on it decides for itself."""
    try:
        return work()
    except VcmbenchError as error:
        return str(error)
    except Exception as error:  # Raised, it would end what depends on it, siblings included.
        logging.getLogger(__name__).exception("%s", name)
        return f"{name}: {error!r}"


def _tell(text: str) -> None:
    _distributed().get_worker().log_event(TOPIC, text)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise VcmbenchError(
            "Dask is needed to compute a recipe: pip install 'vcmbench[dft]'"
        ) from error
    return distributed
