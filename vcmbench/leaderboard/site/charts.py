"""Charts as inline SVG: styled by the page, dark or light, and described for screen readers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

WIDTH: Final = 520
HEIGHT: Final = 340
LEFT, RIGHT, TOP, BOTTOM = 76, 30, 14, 56

LETTER: Final = 9
"""Width of a letter of a label on a narrow screen, where letters are largest."""

FINE: Final = 200
"""A logarithmic axis over less than this factor counts 1, 2, 5, 10, a longer one decades."""

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Series(NamedTuple):
    """A curve.

    Attributes
    ----------
    label : str
        Name in the legend.
    style : str
        CSS class: ``reference``, ``first``, ``second`` or ``model``.
    points : sequence of (x, y)
        Along the curve; what lies beyond an axis is drawn at its end.
    key : str
        Name of the model, for a script that shows some of many.
    has_dots : bool
        Whether each point is marked: where the curve only joins what was measured.
    """

    label: str
    style: str
    points: Sequence[tuple[float, float]]
    key: str = ""
    has_dots: bool = False


class Mark(NamedTuple):
    """A point with its name."""

    label: str
    x: float
    y: float
    on_front: bool


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes
    ----------
    label : str
        Quantity and unit; may be markup.
    low, high : float
        Range.
    logarithmic : bool
        Whether it counts decades.
    """

    label: str
    low: float
    high: float
    logarithmic: bool = False

    @classmethod
    def over(
        cls,
        label: str,
        values: Iterable[float],
        *,
        logarithmic: bool = False,
        lowest: float | None = None,
    ) -> Axis:
        """Axis that holds all values, or those above `lowest`."""
        known = [v for v in values if math.isfinite(v) and not (logarithmic and v <= 0)]
        if lowest is not None:
            known = [max(v, lowest) for v in known]
        low, high = (min(known), max(known)) if known else (1.0, 10.0)
        if logarithmic:
            return cls(label, *_logarithmic_range(low, high), True)
        return cls(label, low, high if high > low else low + 1.0)

    def fraction(self, value: float) -> float:
        """Position of a value between both ends, from 0 to 1."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def ticks(self) -> list[tuple[float, str]]:
        """Values and their texts."""
        if self.logarithmic:
            if self.high / self.low <= FINE:
                fine = _one_two_five(self.low, self.high)
                return [(v, f"{v:.6g}") for v in fine if self.low <= v <= self.high]
            low, high = round(math.log10(self.low)), round(math.log10(self.high))
            step = -(-(high - low) // 7)
            exponents = range(low, high + 1, step)
            return [(10.0**e, f"10{str(e).translate(_SUPERSCRIPT)}") for e in exponents]
        values = map(float, MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(self.low, self.high))
        inside = [v for v in values if self.low - 1e-12 <= v <= self.high + 1e-12]
        return [(v, f"{v:.6g}".replace("-", "−")) for v in inside]


def _one_two_five(low: float, high: float) -> list[float]:
    """Numbers 1, 2, 5, 10, … from below `low` to above `high`."""
    exponents = range(math.floor(math.log10(low)) - 1, math.floor(math.log10(high)) + 2)
    return [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 2, 5)]


def _logarithmic_range(low: float, high: float) -> tuple[float, float]:
    """Range that ends at 1, 2 or 5 if it is short, else at decades."""
    numbers = _one_two_five(low, high)
    first = max(v for v in numbers if v < low * (1 - 1e-9))
    last = min(v for v in numbers if v > high * (1 + 1e-9))
    if last / first <= FINE:
        return first, last
    return 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))


def curves(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> Markup:
    """Draw curves over common axes.

    Parameters
    ----------
    title : str
        What it shows: the text that is read aloud.
    x, y : Axis
        The axes.
    series : sequence of Series
        Drawn in this order; the reference best comes first.
    """
    paths = [
        Markup('<path class="curve {}" data-model="{}" d="{}"><title>{}</title></path>').format(
            item.style, item.key, _path(x, y, item.points), item.label
        )
        for item in series
    ]
    dots = [
        Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(
            item.style, *_place(x, y, *point)
        )
        for item in series
        if item.has_dots
        for point in item.points
    ]
    return _svg(title, x, y, [*paths, *dots])


def scatter(title: str, x: Axis, y: Axis, marks: Sequence[Mark]) -> Markup:
    """Draw named points, and the front of those that no other beats on both axes.

    Larger is better along x, smaller along y.
    """
    parts = []
    front = sorted((m for m in marks if m.on_front), key=lambda m: m.x)
    if len(front) > 1:
        steps = [(front[0].x, front[0].y)]
        for before, after in itertools.pairwise(front):
            steps += [(before.x, after.y), (after.x, after.y)]
        parts.append(Markup('<path class="front" d="{}"/>').format(_path(x, y, steps)))
    taken = [_around(*_place(x, y, mark.x, mark.y)) for mark in marks]
    for mark in marks:
        px, py = _place(x, y, mark.x, mark.y)
        side, base, box = _label_place(px, py, mark.label, taken)
        taken.append(box)
        parts.append(
            Markup(
                '<g class="mark{}"><circle cx="{:.1f}" cy="{:.1f}" r="6"/>'
                '<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text></g>'
            ).format(
                " on-front" if mark.on_front else "",
                px,
                py,
                px + 9 * side,
                base,
                "start" if side > 0 else "end",
                mark.label,
            )
        )
    return _svg(title, x, y, parts)


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    @property
    def is_inside(self) -> bool:
        above_axis = self.top >= 0 and self.bottom <= HEIGHT - BOTTOM
        return self.left >= LEFT and self.right <= WIDTH and above_axis


def _around(px: float, py: float) -> _Box:
    return _Box(px - 6, py - 6, px + 6, py + 6)


def _label_place(
    px: float, py: float, label: str, taken: Sequence[_Box]
) -> tuple[int, float, _Box]:
    """Side of the mark (1: right) and base line where a label fits and meets no other."""
    width, height = LETTER * len(label), 1.6 * LETTER
    found = []
    lines = (base for row in range(6) for base in (py - 9 - row * height, py + 20 + row * height))
    for base in lines:
        for side in (1, -1):
            start = px + 9 if side > 0 else px - 9 - width
            box = _Box(start, base - height + 4, start + width, base + 4)
            found.append((side, base, box))
    free = (f for f in found if f[2].is_inside and not any(map(f[2].meets, taken)))
    return next(free, found[0])


def bar(fraction: float) -> Markup:
    """Draw a bar for a table's cell, `fraction` of the longest one."""
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" aria-hidden="true" preserveAspectRatio="none">'
        '<rect width="{:.1f}" height="10"/></svg>'
    ).format(100 * fraction)


def _svg(title: str, x: Axis, y: Axis, content: Sequence[Markup]) -> Markup:
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            WIDTH, HEIGHT, title
        )
    ]
    for value, text in x.ticks():
        px = _place(x, y, value, y.low)[0]
        parts.append(
            Markup(
                '<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
                '<text class="tick" x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>'
            ).format(px, TOP, HEIGHT - BOTTOM, HEIGHT - BOTTOM + 19, text)
        )
    for value, text in y.ticks():
        py = _place(x, y, x.low, value)[1]
        parts.append(
            Markup(
                '<line class="grid" x1="{1}" x2="{2}" y1="{0:.1f}" y2="{0:.1f}"/>'
                '<text class="tick" x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
            ).format(py, LEFT, WIDTH - RIGHT, LEFT - 7, py + 4, text)
        )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        Markup(
            '<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>'
            '<text class="axis" transform="translate(18 {}) rotate(-90)" '
            'text-anchor="middle">{}</text>'
        ).format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 11, x.label, middle, y.label)
    )
    return Markup("").join([*parts, *content, Markup("</svg>")])


def _place(x: Axis, y: Axis, value_x: float, value_y: float) -> tuple[float, float]:
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return LEFT + width * x.fraction(value_x), HEIGHT - BOTTOM - height * y.fraction(value_y)


def _path(x: Axis, y: Axis, points: Sequence[tuple[float, float]]) -> str:
    """Path through the points; one below a logarithmic axis lies on its lower end."""
    placed = (_place(x, y, *point) for point in points)
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in placed)
