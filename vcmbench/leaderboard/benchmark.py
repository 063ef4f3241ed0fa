"""What a release asks of a submission: the public test devices and the hidden ones."""

from __future__ import annotations

from typing import NamedTuple

from vcmbench.errors import bad_input
from vcmbench.release import Release

TEST_PART = "test"


class Benchmark(NamedTuple):
    """Devices that a submission predicts.

    Attributes
    ----------
    public : tuple of str
        Devices of the test part whose Hamiltonian is public.
    hidden : tuple of str
        Devices whose Hamiltonian is withheld, of whatever part.
    """

    public: tuple[str, ...]
    hidden: tuple[str, ...]

    @classmethod
    def of(cls, release: Release) -> Benchmark:
        """Devices of a release, its public half if there are two.

        Raises
        ------
        VcmbenchError
            If it has no public test device: then nothing can be claimed.
        """
        entries = release.manifest.devices
        hidden = tuple(name for name, entry in entries.items() if entry.complete_digest)
        public = tuple(n for n in release.device_ids(TEST_PART) if n not in hidden)
        if not public:
            raise bad_input(release.label, TEST_PART, found="no public device", expected="some")
        return cls(public, hidden)

    @property
    def devices(self) -> tuple[str, ...]:
        """All of them."""
        return self.public + self.hidden
