"""Networks as scorers."""

from __future__ import annotations

import numpy as np

from deshi.models.sasrec import SASRec
from deshi.models.scorers import SequentialScorer


def test_a_catalogue_of_one_item() -> None:
    """Its transposed table is contiguous as it is: the parameter itself, which no array can be made of."""
    vectors = SequentialScorer(SASRec(n_items=1, dim=8)).item_vectors()
    assert vectors.shape == (1, 8) and np.isfinite(vectors).all()
