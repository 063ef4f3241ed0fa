"""Speed of so2-local against a network of e3nn's tensor products, and what chunks do to its memory.

    python benchmarks/compare_models.py [DATASET [DEVICE]]

- Speed: from the graph of a device to all its blocks within 8 Å (the messages, both directions
  where both are needed, the rotations out of the frames included), without gradients, float32.
  `tensor-product` has the same channels, highest degree, rounds of messages, cutoffs and edges.
  Both run in turn; the ratio is the median over the pairs.
- Memory: peak of the resident set above what it was before, in a process of its own, for a step of
  training (forward and backward) on half of the blocks and on all of them; once in chunks and once
  in one piece. A ratio of 1 is flat.

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch

import vcmbench
from vcmbench.blocks import BlockPattern
from vcmbench.models.neural.assembly import CHUNK, predicted_blocks
from vcmbench.models.neural.graph import structure_graph
from vcmbench.models.neural.network import BlockNetwork
from vcmbench.models.neural.networks import So2LocalNetwork, TensorProductNetwork
from vcmbench.models.neural.settings import So2LocalSettings, TensorProductSettings
from vcmbench.models.neural.table import BlockTable

REPEATS = 3
# glibc gives memory back as soon as it is free: the resident set is what tensors take.
FREED_AT_ONCE = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}
CHANNELS, L_MAX, ROUNDS = 16, 3, 2
SHARED = {"channels": CHANNELS, "l_max": L_MAX, "message_cutoff_ang": 5.0, "block_cutoff_ang": 8.0}
# so2-local's density is a round of messages, too.
SO2_LOCAL = So2LocalNetwork(
    name="so2-local", settings=So2LocalSettings(**SHARED, layers=ROUNDS - 1)
)
TENSOR_PRODUCT = TensorProductNetwork(
    name="tensor-product", settings=TensorProductSettings(**SHARED, layers=ROUNDS)
)


def forward(network: BlockNetwork, pattern: BlockPattern, *, share: float, chunk: int) -> float:
    """Predict a share of the blocks; their summed absolute values."""
    graph = structure_graph(pattern.structure, network.basis, network.message_cutoff_ang)
    features = network.features(graph, chunk=chunk)
    chosen = np.random.default_rng(0).permutation(pattern.n_blocks)
    blocks = torch.from_numpy(np.sort(chosen[: int(share * pattern.n_blocks)]))
    leaf = features.detach().requires_grad_(features.requires_grad)
    total = 0.0
    table = BlockTable.of(pattern, torch.device("cpu"))
    for step in predicted_blocks(network, leaf, table, blocks, chunk=chunk, dtype=torch.float32):
        size = sum(piece.values.abs().sum() for piece in step.pieces)
        if features.requires_grad:
            size.backward()
        total += float(size.detach())
    if features.requires_grad:
        features.backward(leaf.grad)
    return total


def seconds(network: BlockNetwork, pattern: BlockPattern) -> float:
    """Time of one forward pass."""
    begin = time.perf_counter()
    with torch.inference_mode():
        forward(network, pattern, share=1.0, chunk=CHUNK["cpu"])
    return time.perf_counter() - begin


def peak_memory(pattern: BlockPattern, share: float, chunk: int) -> float:
    """Peak of the resident set above what it was, bytes; call it in a process of its own."""
    network = SO2_LOCAL.make(pattern.basis)
    # Loads all code, and leaves the allocator little that it could use again.
    forward(network, pattern, share=0.002, chunk=64)
    before, peak, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    forward(network, pattern, share=share, chunk=chunk)
    done.set()
    watcher.join()
    return peak - before


def resident() -> int:
    """Resident set of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", nargs="?", default="vcm-demo")
    parser.add_argument("device", nargs="?", default="device-a")
    parser.add_argument("--memory", nargs=2, type=float, metavar=("SHARE", "CHUNK"), default=None)
    arguments = parser.parse_args()
    device = vcmbench.load(arguments.dataset).device(arguments.device)
    pattern = device.pattern.subset(device.pattern.distance < SHARED["block_cutoff_ang"])
    if arguments.memory:
        share, chunk = arguments.memory
        sys.stdout.write(f"{peak_memory(pattern, share, int(chunk))}\n")
        return

    def peak(share: float, chunk: int) -> float:
        command = [sys.executable, __file__, arguments.dataset, arguments.device]
        told = subprocess.run(
            [*command, "--memory", str(share), str(chunk)],
            env={**os.environ, **FREED_AT_ONCE},
            check=True,
            capture_output=True,
            text=True,
        )
        return float(told.stdout.split()[-1])

    torch.manual_seed(0)
    networks = [kind.make(device.basis) for kind in (SO2_LOCAL, TENSOR_PRODUCT)]
    for network in networks:
        seconds(network, pattern)
    pairs = [[seconds(network, pattern) for network in networks] for _ in range(REPEATS)]
    chunked = [peak(share, 2048) for share in (0.5, 1.0)]
    whole = [peak(share, 10**9) for share in (0.5, 1.0)]
    n_directed = int(pattern.weight[~pattern.is_onsite].sum())
    result = {
        "speedup_vs_tensor_product": statistics.median(b / a for a, b in pairs),
        "peak_memory_ratio_chunked": chunked[1] / chunked[0],
        "peak_memory_ratio_in_one_piece": whole[1] / whole[0],
        "peak_memory_chunked_mib": [round(c / 2**20) for c in chunked],
        "peak_memory_in_one_piece_mib": [round(w / 2**20) for w in whole],
        "directed_edges": n_directed,
        "edges_per_s": [round(n_directed / min(s)) for s in zip(*pairs, strict=True)],
        "channels": CHANNELS,
        "l_max": L_MAX,
        "rounds": ROUNDS,
        "threads": torch.get_num_threads(),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
