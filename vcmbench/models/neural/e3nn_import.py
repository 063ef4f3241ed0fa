"""e3nn, imported the way that versions before 0.5 need."""

import torch

from vcmbench.errors import VcmbenchError

# Their constants file holds slices, which torch.load has refused since 2.6.
torch.serialization.add_safe_globals([slice])

try:
    from e3nn import nn, o3
except ImportError as error:
    raise VcmbenchError(
        f"this network needs e3nn ({error}): pip install 'vcmbench[models]'"
    ) from None

__all__ = ["nn", "o3"]
