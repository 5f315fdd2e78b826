"""The contract of terms over scores, for each of deshi's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deshi.distillation.cd import CD
from deshi.distillation.dllm2rec import DLLM2Rec, DLLM2RecReleased
from deshi.distillation.dro import DRO
from deshi.distillation.listwise import ListwiseKL
from deshi.distillation.margin_mse import MarginMSE
from deshi.distillation.rd import RD
from deshi.distillation.rrd import RRD
from deshi.distillation.term import ScoreTerm
from deshi.distillation.unkd import UnKD
from deshi.testing import TermContract, TermExample

TERMS: dict[str, Callable[[], ScoreTerm]] = {
    "listwise": ListwiseKL,
    "listwise-bucket": lambda: ListwiseKL(other_items="bucket", other_share=0.2, temperature=2.0),
    "dllm2rec": DLLM2Rec,
    "dllm2rec-robust": lambda: DLLM2Rec(top_k=4, alpha=0.5),
    "dllm2rec-released": lambda: DLLM2RecReleased(top_k=4, alpha=1.0),
    "dro": DRO,
    "rd": lambda: RD(decay=3.0),
    "rd-positions": lambda: RD(mu=None),
    "cd": CD,
    "cd-student": lambda: CD(guide="student", labels="ranks"),
    "rrd": RRD,
    "rrd-drawn": lambda: RRD(interesting=3, uninteresting=5),
    "unkd": UnKD,
    "unkd-groups": lambda: UnKD(groups=2, pairs=7),
    "margin-mse": MarginMSE,
}
DRAWING = {"dllm2rec", "dllm2rec-robust", "dllm2rec-released", "dro", "rrd", "rrd-drawn", "listwise-bucket"}
"""Terms whose gradient reaches items beyond the list."""

ROBUST = {"dro", "dllm2rec-robust", "dllm2rec-released"}
"""Terms with squared scores in exponents, which lose digits in float32 however they are computed."""


class TestTerms(TermContract):
    @pytest.fixture(params=TERMS)
    def example(self, request: pytest.FixtureRequest) -> TermExample:
        name = str(request.param)
        return TermExample(TERMS[name], name in DRAWING, (2e-3, 3e-5) if name in ROBUST else (1e-4, 1e-6))
