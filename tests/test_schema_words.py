"""The configuration's JSON schema, and the words of messages about it."""

from __future__ import annotations

import json

import pytest
from configs import PLAIN

from eqprop.config.schema import KNOWN, Config, all_keys, json_schema
from eqprop.run.text import brief, nearest, one_line, show


class TestJsonSchema:
    def test_it_is_json_and_lists_every_key(self) -> None:
        schema = json_schema()
        json.dumps(schema)
        assert set(schema["properties"]) == set(Config.model_fields)

    @pytest.mark.parametrize("group", [group for group in KNOWN if "." not in group])
    def test_a_group_has_its_targets(self, group: str) -> None:
        *ours, foreign = json_schema(group)["anyOf"]
        assert [part["properties"]["_target_"]["const"] for part in ours] == list(KNOWN[group])
        assert foreign["properties"]["_target_"]["not"]["enum"] == list(KNOWN[group])

    def test_a_group_without_targets(self) -> None:
        assert "epochs" in json_schema("trainer")["properties"]


class TestWords:
    KEYS = all_keys(PLAIN)

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
        ],
    )
    def test_nearest(self, name: str, meant: str | None) -> None:
        assert nearest(name, self.KEYS) == meant

    def test_show(self) -> None:
        assert [show(v) for v in (None, True, 1.5, "a")] == ["null", "true", "1.5", "'a'"]

    def test_one_line_and_brief(self) -> None:
        assert one_line("a\n\tb\x1b[0m") == "a b\\x1b[0m"
        assert len(brief("x" * 1000)) == 60
