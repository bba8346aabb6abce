"""A conditioning vector beside the class, such as CLAP's of the target: where it comes from, how a network takes it.

NaN says that there is none, for a stem or after dropout; each network learns a null vector for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.errors import DataError


class Vector(nn.Module):
    """(B, dim), or None for all null -> (B, width), to be added to the class's embedding."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.zeros(dim))
        self.project = nn.Linear(dim, width, bias=False)

    def forward(self, vector: Tensor | None) -> Tensor:
        # NaN goes before it is projected: a weight's gradient would be 0 * NaN
        return self.project(self.null if vector is None else torch.where(vector.isnan(), self.null, vector))


@dataclass(frozen=True)
class Conditions:
    """Vectors (dim,) by example's id and stem's name."""

    dim: int
    vectors: dict[tuple[str, str], NDArray[np.float32]]

    @classmethod
    def read(cls, path: Path, dim: int) -> Self:
        """A Parquet file with a row a stem: `id`, `stem` (as in the example's json) and `vector`, a list of `dim`
        numbers, which are taken as they are. Raises DataError."""
        import pyarrow as pa  # a player needs none of it
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path, columns=["id", "stem", "vector"])
            keys = zip(table["id"].to_pylist(), table["stem"].to_pylist(), strict=True)
            rows = [np.array(row, np.float32) for row in table["vector"].to_pylist()]
        except (OSError, pa.ArrowException, ValueError, TypeError) as error:
            reason = str(error).split("\n")[0][:120]
            raise DataError(
                f"batches.conditions: {path} cannot be read ({reason}); give a Parquet file with the columns "
                "id, stem and vector"
            ) from None
        vectors = dict(zip(keys, rows, strict=True))
        for (example, stem), row in vectors.items():
            if row.shape != (dim,) or not np.isfinite(row).all():
                raise DataError(
                    f"batches.conditions: {path} has for stem {stem} of {example} not batches.condition_dim = {dim} "
                    f"finite numbers, but {np.array2string(row, threshold=4, edgeitems=2)} of shape {row.shape}"
                )
        return cls(dim, vectors)

    def of(self, example: str, stem: str) -> NDArray[np.float32]:
        """NaN where the file has none."""
        found = self.vectors.get((example, stem))
        return np.full(self.dim, np.nan, np.float32) if found is None else found
