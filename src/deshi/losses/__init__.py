"""Losses of hidden states against the item table, and the fused pass over positions and catalogue."""

from deshi.losses.base import Loss
from deshi.losses.bce import BCE
from deshi.losses.fused_pass import ChunkLoss
from deshi.losses.gbce import GBCE
from deshi.losses.random_stream import RandomStream
from deshi.losses.sampled_softmax import SampledSoftmax
from deshi.losses.softmax import Softmax

__all__ = ["BCE", "GBCE", "ChunkLoss", "Loss", "RandomStream", "SampledSoftmax", "Softmax"]
