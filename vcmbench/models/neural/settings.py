"""Shapes of the networks, as a ``train.yml`` gives them."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from vcmbench.documents import Document


class So2LocalSettings(Document):
    """Shape of the network."""

    l_max: int = Field(default=4, ge=0, le=8)
    """Highest degree of the features; blocks between d shells hold orders up to 4."""
    channels: PositiveInt = 24
    """Channels of each degree."""
    layers: int = Field(default=1, ge=0)
    """Rounds of messages after the density of the neighbours."""
    message_cutoff_ang: PositiveFloat = 5.0
    """Range of the messages, Å."""
    block_cutoff_ang: PositiveFloat = 8.0
    """Range of the blocks that the network adds to Slater–Koster, Å."""
    n_splines: PositiveInt = 10
    """Radial functions of the messages and of the blocks."""
    hidden: PositiveInt = 64
    """Channels of each order in the messages and in front of the blocks."""


class TensorProductSettings(Document):
    """Shape of the network."""

    l_max: int = Field(default=3, ge=1, le=6)
    """Highest degree of the features and of the harmonics."""
    channels: PositiveInt = 16
    """Channels of each degree."""
    layers: PositiveInt = 2
    """Rounds of messages."""
    message_cutoff_ang: PositiveFloat = 5.0
    """Range of the messages, Å."""
    block_cutoff_ang: PositiveFloat = 8.0
    """Range of the blocks that the network adds to Slater–Koster, Å."""
    n_splines: PositiveInt = 8
    """Radial functions."""
    kind_channels: PositiveInt = 4
    """Numbers that tell a pair of species to the networks of the distance."""
    radial_hidden: PositiveInt = 32
    """Width of the networks of the distance."""


class MaceSettings(Document):
    """Shape of the network."""

    l_max: int = Field(default=2, ge=1, le=4)
    """Highest degree of the features; blocks have no higher order, but for Slater–Koster's."""
    l_max_edge: int = Field(default=3, ge=1, le=6)
    """Highest degree of the harmonics of edges."""
    channels: PositiveInt = 24
    """Channels of each degree in each layer."""
    layers: PositiveInt = 2
    """Rounds of messages."""
    correlation: int = Field(default=2, ge=1, le=4)
    """Neighbours in a term of the many-body expansion."""
    message_cutoff_ang: PositiveFloat = 5.0
    """Range of the messages, Å."""
    block_cutoff_ang: PositiveFloat = 8.0
    """Range of the blocks that the network adds to Slater–Koster, Å."""
    n_bessel: PositiveInt = 8
    """Radial functions of the backbone."""
    n_splines: PositiveInt = 10
    """Radial functions of the blocks."""
    hidden: PositiveInt = 64
    """Channels of each order in front of the blocks."""
