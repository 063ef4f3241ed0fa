"""Devices whose oxide is a jittered grid of ions: what vacancies, quality and inputs need, fast."""

import numpy as np

from vcmbench.build.builder import assemble
from vcmbench.build.metal import HF, O, displaced, metal_stack
from vcmbench.build.oxide import Oxide
from vcmbench.build.spec import DeviceSpec
from vcmbench.structure import Structure


def toy_spec(**changes: object) -> DeviceSpec:
    fields: dict[str, object] = {"cross_section_ang": 8.48, "oxide_units": 24, "seed": 3}
    return DeviceSpec.parse("test", **(fields | changes))


def toy_device(spec: DeviceSpec | None = None) -> Structure:
    """TiN | grid of Hf and O | Ti | TiN with the sites a real build would have, order included."""
    spec = spec or toy_spec()
    stack = metal_stack(spec)
    rng = np.random.default_rng(spec.seed)
    n_ions = 3 * spec.n_oxide_units
    across = round(spec.side_ang / 2.2)
    along = -(-n_ions // across**2)
    left, right = stack.oxide_ang
    x = left + 1.9 + (right - left - 3.8) * (np.arange(along) + 0.5) / along
    yz = (np.arange(across) + 0.5) * spec.side_ang / across
    grid = np.stack(np.meshgrid(x, yz, yz, indexing="ij"), axis=-1).reshape(-1, 3)[:n_ions]
    positions = (grid + rng.uniform(-0.1, 0.1, grid.shape)).round(8)
    numbers = np.where(np.arange(n_ions) % 3 == 0, HF, O).astype(np.int32)
    order = np.argsort(positions[:, 0])
    metal = displaced(stack, spec.displacement_ang, rng)
    return assemble(stack, metal, Oxide(numbers[order], positions[order], "toy"))
