"""Ranked lists and item vectors of DLLM2Rec, BIGRec, LLaRA and iLoRA, aligned with a bundle."""

from deshi.soft_labels.foreign._readers import Imported, bigrec, dllm2rec, llara

__all__ = ["Imported", "bigrec", "dllm2rec", "llara"]
