"""Where the time of a prediction goes, and how far its hot operators are from the machine's limits.

    python benchmarks/profile_model.py MODEL [--dataset vcm-demo] [--sites 300,5000]
        [--accelerator cpu|cuda] [--output FOLDER]

For each size of the throughput ladder, after one prediction that warms up:

- the stages that the model reports, and the delivery into the declared layout;
- the operators of torch by the time spent in themselves, on the board with CUDA, with the floating
  point operations of matrix products; with CUDA the kernels, too;
- the roof: the rate of a large float32 matrix product, and the bandwidth of a large copy, measured
  here in the same process. Time at the roof of the products alone, over the time of the prediction,
  is how much of the arithmetic limit is reached.

Writes profile-SITES.json, a Chrome trace trace-SITES.json (open it in perfetto.dev), and prints
Markdown tables for docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from vcmbench.device import HEADLINE_CUTOFF_ANG
from vcmbench.models import load_model
from vcmbench.release import find_release
from vcmbench.scores.timing import Stopwatch, jittered
from vcmbench.throughput.ladder import choose_copies, supercell

ROWS = 12
PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm")
ROOF_SIZE = {"cpu": 2048, "cuda": 8192}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}


def best(work: Callable[[], object], synchronise: Callable[[], None], repeats: int = 5) -> float:
    """Shortest time of a few, s."""
    times = []
    for _ in range(repeats):
        synchronise()
        begin = time.perf_counter()
        work()
        synchronise()
        times.append(time.perf_counter() - begin)
    return min(times)


def roofs(accelerator: str, synchronise: Callable[[], None]) -> dict[str, float]:
    """Measured limits of the machine: float32 products with the flags in force, and copies."""
    size = ROOF_SIZE[accelerator]
    a = torch.randn(size, size, device=accelerator)
    product_s = best(lambda: a @ a, synchronise)
    b = torch.empty(COPY_BYTES[accelerator] // 4, device=accelerator)
    c = torch.ones_like(b)
    copy_s = best(lambda: b.copy_(c), synchronise)
    return {
        "flop_per_s": 2 * size**3 / product_s,
        "bytes_per_s": 2 * COPY_BYTES[accelerator] / copy_s,
    }


def rows(found: profile, device: DeviceType, time_name: str) -> list[dict[str, object]]:
    """Events of one device by the time spent in themselves, most first."""
    events = [e for e in found.key_averages() if e.device_type == device]
    return [
        {
            "name": event.key[:80],
            "calls": event.count,
            "seconds": getattr(event, time_name) / 1e6,
            "flop": event.flops if event.key in PRODUCTS else None,
        }
        for event in sorted(events, key=lambda e: -getattr(e, time_name))
        if getattr(event, time_name) > 0
    ]


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--dataset", default="vcm-demo")
    parser.add_argument("--sites", default="300,5000")
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, default=Path("results/profile"))
    arguments = parser.parse_args()
    accelerator: str = arguments.accelerator
    synchronise = torch.cuda.synchronize if accelerator == "cuda" else lambda: None
    release = find_release(arguments.dataset)
    unit = release.device(release.device_ids("test")[0]).structure
    model = load_model(arguments.model, accelerator=arguments.accelerator).model
    watch = Stopwatch(model, synchronise)
    roof = roofs(accelerator, synchronise)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for target in map(int, arguments.sites.split(",")):
        structure = supercell(unit, choose_copies(unit.n_sites, target), "profile")
        structures = jittered(structure, 0)
        watch.time(next(structures), HEADLINE_CUTOFF_ANG)
        timed = watch.time(next(structures), HEADLINE_CUTOFF_ANG)
        activities = [ProfilerActivity.CPU]
        if accelerator == "cuda":
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities, with_flops=True) as found:
            watch.time(next(structures), HEADLINE_CUTOFF_ANG)
        # An operator's time on the board is that of the kernels it launched.
        time_name = "self_cpu_time_total" if accelerator == "cpu" else "self_device_time_total"
        operators = rows(found, DeviceType.CPU, time_name)
        flop = sum(float(str(row["flop"] or 0)) for row in operators)
        report = {
            "model": arguments.model,
            "accelerator": torch.cuda.get_device_name() if accelerator == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "sites": structure.n_sites,
            "seconds": timed.seconds,
            "stages_s": timed.stages_s,
            "busy_s": sum(float(str(row["seconds"])) for row in operators),
            "product_flop": flop,
            "of_arithmetic_limit": flop / roof["flop_per_s"] / timed.seconds,
            "roof": roof,
            "operators": operators[:40],
            "kernels": rows(found, DeviceType.CUDA, time_name)[:40],
        }
        text = json.dumps(report, indent=2) + "\n"
        (arguments.output / f"profile-{structure.n_sites}.json").write_text(text)
        found.export_chrome_trace(str(arguments.output / f"trace-{structure.n_sites}.json"))
        sys.stdout.write(markdown(report))


def markdown(report: dict) -> str:
    """Tables of one size."""
    roof, seconds = report["roof"], report["seconds"]
    lines = [
        f"\n### {report['model']}, {report['sites']:,} sites, {report['accelerator']}\n",
        f"{seconds:.4g} s; products {report['product_flop'] / 1e9:.4g} Gflop, "
        f"{report['of_arithmetic_limit']:.1%} of the limit of {roof['flop_per_s'] / 1e12:.3g} "
        f"Tflop/s; copies {roof['bytes_per_s'] / 1e9:.4g} GB/s; operators busy for "
        f"{report['busy_s'] / seconds:.0%} of the time\n",
        "| stage | s | share |\n|---|---|---|",
        *(
            f"| {name} | {value:.4g} | {value / seconds:.0%} |"
            for name, value in (report["stages_s"] or {}).items()
        ),
        "\n| operator | calls | s | share | Gflop/s |\n|---|---|---|---|---|",
    ]
    lines += [row_text(row, seconds) for row in report["operators"][:ROWS]]
    if report["kernels"]:
        lines += ["\n| kernel | calls | s | share | Gflop/s |\n|---|---|---|---|---|"]
        lines += [row_text(row, seconds) for row in report["kernels"][:ROWS]]
    return "\n".join(lines) + "\n"


def row_text(row: dict, seconds: float) -> str:
    """One line of a table."""
    rate = "–" if not row["flop"] else f"{row['flop'] / row['seconds'] / 1e9:.4g}"
    share = row["seconds"] / seconds
    return f"| `{row['name']}` | {row['calls']} | {row['seconds']:.4g} | {share:.0%} | {rate} |"


if __name__ == "__main__":
    main()
