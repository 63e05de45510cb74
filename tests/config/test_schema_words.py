"""The words of messages about the configuration."""

from __future__ import annotations

import pytest
from configs import PLAIN

from eqprop.run.text import brief, flatten, nearest, one_line, show


class TestWords:
    KEYS = (*PLAIN, *(key for key, _ in flatten(PLAIN)))

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("dynamcis.dt", "dynamics.dt"),
            ("dynamics.td", "dynamics.dt"),
            ("dynamics.n_relaxx", "dynamics.n_relax"),
            ("dt", "dynamics.dt"),
            ("optimiser", "optimizer"),
            ("Optimizer.LR", "optimizer.lr"),
            ("trainer.batch_size", "dataset.batch_size"),
            ("optimizer.something_else", None),
            ("zzz", None),
            ("trainer.eval", "trainer.eval_every"),
            ("tra", "trainer"),
            ("tr", None),
        ],
    )
    def test_nearest(self, name: str, meant: str | None) -> None:
        assert nearest(name, self.KEYS) == meant

    def test_show(self) -> None:
        assert [show(v) for v in (None, True, 1.5, "a")] == ["null", "true", "1.5", "'a'"]

    def test_one_line_and_brief(self) -> None:
        assert one_line("a\n\tb\x1b[0m") == "a b\\x1b[0m"
        assert len(brief("x" * 1000)) == 60
        assert len(one_line("x" * 1000)) == 1000
        assert one_line("x" * 1000, 300) == "x" * 299 + "…"
