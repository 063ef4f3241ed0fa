"""Physical constants, CODATA 2018; the only place where a conversion is typed."""

from __future__ import annotations

from typing import Final

HARTREE_EV: Final = 27.211386245988
"""Hartree energy in eV."""

BOHR_ANG: Final = 0.529177210903
"""Bohr radius in Å."""

BOLTZMANN_EV_PER_K: Final = 8.617333262e-5
"""Boltzmann constant in eV/K."""

CONDUCTANCE_QUANTUM_S: Final = 7.748091729e-5
"""Conductance quantum G0 = 2e²/h in siemens."""

MEV_PER_EV: Final = 1.0e3
"""meV in one eV."""
