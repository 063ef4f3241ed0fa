"""Plot of an oxide's radial distributions."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vcmbench.build.quality import RadialDistribution
from vcmbench.plots import COLOURS


def rdf_png(rdf: RadialDistribution) -> bytes:
    """Draw g(r) of Hf-O, O-O and Hf-Hf; the content of a PNG file.

    Parameters
    ----------
    rdf : RadialDistribution
        Curves to draw.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for (pair, g), colour in zip(rdf.g.items(), COLOURS, strict=False):
        axes.plot(rdf.r_ang, g, label=pair, color=colour)
    axes.axhline(1, color="0.7", linewidth=0.8)
    axes.set(xlabel="r (Å)", ylabel="g(r)", xlim=(1, rdf.r_ang[-1]), ylim=(0, None))
    axes.legend()
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()
