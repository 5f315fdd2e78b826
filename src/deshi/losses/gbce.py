"""gBCE: binary cross-entropy that undoes the overconfidence which negative sampling brings."""

from __future__ import annotations

from deshi.losses.bce import BCE
from deshi.types import DeshiError


def gbce_beta(calibration: float, negatives: int, n_items: int) -> float:
    """The exponent on the target's probability: ``alpha * (t * (1 - 1 / alpha) + 1 / alpha)``.

    ``alpha = negatives / (n_items - 1)`` is the sampling rate, at most 1, and ``t`` the calibration: 0 gives 1
    (plain BCE), 1 gives alpha (fully calibrated probabilities).
    """
    if n_items < 2:
        raise DeshiError(f"gBCE got a catalogue of {n_items} items, expected at least 2.")
    alpha = min(1.0, negatives / (n_items - 1))
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)


class GBCE(BCE):
    """gBCE, the loss of gSASRec (Petrov & Macdonald, RecSys 2023, arXiv 2308.07192).

    BCE whose target probability is raised to the power of :func:`gbce_beta`. Negatives as in
    :class:`deshi.losses.bce.BCE`; the paper draws them for each position (``share=1``).

    Args:
        negatives: number of negatives a position.
        calibration: the paper's t, from 0 (plain BCE) to 1 (fully calibrated).
        share: number of neighbouring positions that share one set of negatives.
    """

    def __init__(self, negatives: int = 256, calibration: float = 0.75, share: int = 16) -> None:
        super().__init__(negatives, share)
        if not 0.0 <= calibration <= 1.0:
            raise DeshiError(f"GBCE got calibration={calibration}, expected a number from 0 to 1.")
        self.calibration = calibration

    def beta(self, n_items: int) -> float:
        """See :func:`gbce_beta`."""
        return gbce_beta(self.calibration, self.negatives, n_items)
