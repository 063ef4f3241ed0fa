"""T of two-terminal systems against ASE, sisl, dense inverses and closed forms, all relative."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from scipy.linalg import LinAlgError
from transport_toys import Chain, dense_transmission, make_chain

from vcmbench.transport.arrays import HOST, TorchArrays
from vcmbench.transport.layers import cut_layers
from vcmbench.transport.negf import Contact, Device

ENERGY = 0.1
RELATIVE = 1e-9
# (barrier layers, barrier height in eV): T falls from above 1 to below 1e-12.
BARRIERS = [(2, 0.0), (4, 4.0), (7, 5.0), (8, 6.0)]


def solve(chain: Chain, energy: float, eta: float, width: int = 4) -> np.ndarray:
    """T in every possible meeting window."""
    h, s = chain.csr()
    layers = cut_layers(abs(h) + abs(s), chain.n, chain.n, width)
    n_starts = int(np.searchsorted(layers.edges, layers.back[-1], side="right"))
    device = Device(h, s, layers, range(n_starts))
    return device.transmission(energy, *chain.contacts(energy, eta))


@pytest.fixture(params=[float, complex], ids=["real", "complex"])
def dtype(request):
    return request.param


@pytest.fixture(params=BARRIERS, ids=str)
def chain(request, dtype):
    n_barrier, height = request.param
    return make_chain(n=4, n_barrier=n_barrier, height=height, dtype=dtype)


def test_agrees_with_ase(chain):
    calculators = pytest.importorskip("ase.transport.calculators")
    eta = 1e-8
    leads = {}
    for name, layer in (("1", chain.left), ("2", chain.right)):
        leads[f"h{name}"] = np.block([[layer.h00, layer.h01], [layer.h01.conj().T, layer.h00]])
        leads[f"s{name}"] = np.block([[layer.s00, layer.s01], [layer.s01.conj().T, layer.s00]])
    # ASE couples lead and device at E + i eta, we at E: give it the coupling E S - H as one matrix.
    n, n_device = chain.n, len(chain.h)
    couplings = {f"{m}c{i}": np.zeros((n, n_device), complex) for m in "hs" for i in (1, 2)}
    couplings["hc1"][:, :n] = chain.left.h01 - ENERGY * chain.left.s01
    couplings["hc2"][:, -n:] = (chain.right.h01 - ENERGY * chain.right.s01).conj().T
    calculator = calculators.TransportCalculator(
        h=chain.h,
        s=chain.s,
        energies=[ENERGY],
        eta=1e-300,
        eta1=eta,
        eta2=eta,
        **leads,
        **couplings,
    )
    calculator.initialize()
    for self_energy in calculator.selfenergies:
        self_energy.conv = 1e-14
    assert solve(chain, ENERGY, eta) == pytest.approx(
        calculator.get_transmission()[0], rel=RELATIVE, abs=0
    )


def test_torch_agrees_with_lapack_in_every_window(chain):
    torch = pytest.importorskip("torch")
    h, s = chain.csr()
    layers = cut_layers(abs(h) + abs(s), chain.n, chain.n, 4)
    n_starts = int(np.searchsorted(layers.edges, layers.back[-1], side="right"))
    contacts = chain.contacts(ENERGY, 1e-8)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for name in devices:
        device = Device(h, s, layers, range(n_starts), TorchArrays(name))
        for _ in range(2):  # The matrices are used again at the next energy.
            found = device.transmission(ENERGY, *contacts)
            assert found == pytest.approx(solve(chain, ENERGY, 1e-8), rel=RELATIVE, abs=0)


def test_agrees_with_sisl(chain, dtype):
    sisl = pytest.importorskip("sisl")
    btd = pytest.importorskip("sisl_toolbox.btd")
    # sisl couples lead and device at E + i eta, which differs in first order of eta.
    eta = 1e-11

    def hamiltonian(n_atoms, entries):
        n_shifts = 1 + 2 * (len(entries) > 1)
        geometry = sisl.Geometry(
            [[x, 0, 0] for x in range(n_atoms)],
            sisl.Atom(1, [1.1] * chain.n),
            lattice=sisl.Lattice([n_atoms, 9, 9], nsc=[n_shifts, 1, 1]),
        )
        matrix = sisl.Hamiltonian(geometry, orthogonal=False, dtype=np.dtype(dtype))
        for shift, (h, s) in entries.items():
            for i, j in np.argwhere((h != 0) | (s != 0)):
                pair = (h[i, j], s[i, j])
                matrix[i, j, (shift, 0, 0)] = pair if dtype is complex else np.real(pair)
        return matrix

    def electrode(layer, direction):
        to_next = (layer.h01, layer.s01)
        to_previous = tuple(block.conj().T for block in to_next)
        bulk = hamiltonian(1, {0: (layer.h00, layer.s00), 1: to_next, -1: to_previous})
        return btd.BlochElectrode(sisl.RecursiveSI(bulk, direction, eta=eta), name=direction)

    n_atoms = len(chain.h) // chain.n
    green = btd.DeviceGreen(
        hamiltonian(n_atoms, {0: (chain.h, chain.s)}),
        [(electrode(chain.left, "-A"), [0]), (electrode(chain.right, "+A"), [n_atoms - 1])],
        eta=0.0,
    )
    expected = green.transmission(ENERGY, "-A", "+A")
    assert solve(chain, ENERGY, eta) == pytest.approx(expected, rel=RELATIVE, abs=0)


@pytest.mark.parametrize("eta", [1e-11, 0.0], ids=["decimation", "modes"])
def test_agrees_with_kwant(chain, eta):
    """Scattering states without any broadening; kwant 1.5 needs NumPy 1."""
    kwant = pytest.importorskip("kwant")
    # An orthogonal basis at this energy: E S − H = E − (H − E (S − 1)).
    h = chain.h - ENERGY * (chain.s - np.eye(len(chain.s)))

    def effective(layer):
        on = layer.h00 - ENERGY * (layer.s00 - np.eye(chain.n))
        return on, layer.h01 - ENERGY * layer.s01

    lattice = kwant.lattice.chain(1, norbs=chain.n)
    system = kwant.Builder()
    n_cells = len(h) // chain.n
    blocks = h.reshape(n_cells, chain.n, n_cells, chain.n).swapaxes(1, 2)
    for i in range(n_cells):
        system[lattice(i)] = blocks[i, i]
        if i:
            system[lattice(i - 1), lattice(i)] = blocks[i - 1, i]
    for layer, step, first in ((chain.left, -1, 0), (chain.right, 1, n_cells - 1)):
        lead = kwant.Builder(kwant.TranslationalSymmetry([step]))
        lead[lattice(0)], lead[lattice(0), lattice(1)] = effective(layer)
        system.attach_lead(lead, origin=lattice(first))
    matrix = kwant.smatrix(system.finalized(), ENERGY)
    # The error of the decimation is linear in its broadening.
    found = solve(chain, ENERGY, eta)
    assert found == pytest.approx(matrix.transmission(1, 0), rel=RELATIVE, abs=0)


@pytest.mark.parametrize("width", [1, 3, 4, 7, 50])
def test_agrees_with_the_dense_inverse_in_every_window_for_any_layers(chain, width):
    expected = dense_transmission(chain.h, chain.s, ENERGY, *chain.contacts(ENERGY, 1e-8))
    assert solve(chain, ENERGY, 1e-8, width) == pytest.approx(expected, rel=RELATIVE, abs=0)


def test_range_of_transmissions_is_covered():
    values = [
        solve(make_chain(n=4, n_barrier=n, height=height, dtype=kind), ENERGY, 1e-8)[0]
        for n, height in BARRIERS
        for kind in (float, complex)
    ]
    assert max(values) > 1
    assert min(values) < 1e-12


def test_factor_is_exact_where_gamma_by_subtraction_is_lost():
    chain = make_chain(n=4, n_barrier=8, height=6.0)
    left, right = chain.contacts(ENERGY, 1e-8)
    a = ENERGY * chain.s - chain.h
    n, sigma = chain.n, left.sigma
    for start in range(0, len(a) - n, n):
        here, there = slice(start, start + n), slice(start + n, start + 2 * n)
        sigma = a[there, here] @ np.linalg.solve(a[here, here] - sigma, a[here, there])
    amplitude = np.linalg.solve(a[-n:, -n:] - sigma - right.sigma, right.factor)
    gamma = 1j * (sigma - sigma.conj().T)
    subtracted = np.trace(amplitude.conj().T @ gamma @ amplitude).real
    values = solve(chain, ENERGY, 1e-8)
    assert values.max() < 1e-12
    assert np.ptp(values) < 1e-12 * values[0]
    assert abs(subtracted / values[0] - 1) > 1e-6


def test_analytic_impurity_chain():
    """One level off by u in a chain with hopping t: T = 1 / (1 + (u / 2 t sin k)^2)."""
    t, u, n = -1.3, 0.7, 9
    h = t * (np.eye(n, k=1) + np.eye(n, k=-1))
    h[n // 2, n // 2] = u
    s = scipy.sparse.eye_array(n).tocsr()
    h = scipy.sparse.csr_array(h.astype(complex))
    device = Device(h, s, cut_layers(abs(h) + abs(s), 1, 1, 2))
    for energy in (-2.1, 0.0, 0.4, 1.9):
        k = np.arccos(energy / (2 * t))
        # Retarded: the imaginary part of t exp(ik) is negative on the band for either sign of t.
        sigma = np.array([[t * np.exp(1j * k)]])
        contact = Contact(sigma, np.sqrt(-2 * sigma.imag).astype(complex))
        expected = 1 / (1 + (u / (2 * t * np.sin(k))) ** 2)
        found = device.transmission(energy, contact, contact)
        assert found == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize("shift", [-3.0, 20.0])
def test_gauge_shift_by_overlap_leaves_t_unchanged(chain, shift):
    layers = [
        layer._replace(h00=layer.h00 + shift * layer.s00, h01=layer.h01 + shift * layer.s01)
        for layer in (chain.left, chain.right)
    ]
    shifted = Chain(chain.h + shift * chain.s, chain.s, *layers)
    assert solve(shifted, ENERGY + shift, 1e-8) == pytest.approx(
        solve(chain, ENERGY, 1e-8), rel=RELATIVE, abs=0
    )


def test_gauge_shift_by_the_identity_does_change_t():
    chain = make_chain(n=4, n_barrier=4, height=4.0)
    wrong = chain._replace(h=chain.h + 3.0 * np.eye(len(chain.h)))
    assert abs(np.log10(solve(wrong, ENERGY, 1e-8)[0] / solve(chain, ENERGY, 1e-8)[0])) > 0.1


def test_the_upper_triangle_is_enough(chain):
    h, s = chain.csr()
    layers = cut_layers(abs(h) + abs(s), chain.n, chain.n, 3)
    upper_h, upper_s = (scipy.sparse.triu(m).tocsr() for m in (h, s))
    upper = cut_layers(abs(upper_h) + abs(upper_s), chain.n, chain.n, 3)
    for name in ("edges", "reach", "back"):
        np.testing.assert_array_equal(getattr(upper, name), getattr(layers, name))
    contacts = chain.contacts(ENERGY, 1e-8)
    found = Device(upper_h, upper_s, upper).transmission(ENERGY, *contacts)
    assert found == pytest.approx(solve(chain, ENERGY, 1e-8)[0], rel=RELATIVE, abs=0)


def test_fronts_hold_every_coupling():
    """Random patterns of uneven range: no entry lies outside the strips of either sweep."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        n, n_contact = 60, 9
        pattern = np.eye(n, dtype=bool)
        for i in range(n):
            pattern[i, i : i + rng.integers(1, 14)] = True
        pattern |= pattern.T
        layers = cut_layers(scipy.sparse.csr_array(pattern), n_contact, n_contact, 4)
        pattern[:n_contact, :n_contact] = pattern[-n_contact:, -n_contact:] = True
        for layout, wanted in ((layers, pattern), (layers.mirrored(), pattern[::-1, ::-1])):
            held = np.zeros_like(pattern)
            for start, stop, reach in zip(
                layout.edges[:-1], layout.edges[1:], layout.reach, strict=True
            ):
                held[start:stop, start:reach] = True
            assert not (wanted & ~(held | held.T)).any()


def test_thin_layers_cost_less_than_one_interaction_range():
    n, reach = 600, 100
    i = np.arange(n)
    pattern = scipy.sparse.csr_array(abs(i[:, None] - i) < reach)
    cost = [cut_layers(pattern, reach, reach, width).flops.sum() for width in (25, reach)]
    assert cost[0] < 0.8 * cost[1]


def test_singular_layer_is_told_by_torch_as_by_lapack():
    pytest.importorskip("torch")
    for arrays in (HOST, TorchArrays("cpu")):
        with pytest.raises(LinAlgError):
            arrays.solve(arrays.zeros(2, 2), arrays.zeros(2, 1))
