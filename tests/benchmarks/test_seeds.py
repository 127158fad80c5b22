"""Tables of several seeds are joined if they are of one kind, and say who is ahead."""

import copy
from typing import Any

import pytest

from benchmarks.seeds import joined, markdown


def _table(seed: int, **worst: float) -> dict[str, Any]:
    rows = [
        {
            "name": f"{method}-0.05",
            "method": method,
            "bits": 32,
            "density": 1.0 if method == "da" else 0.05,
            "nominal_ratio": 0.05,
            "file_bytes": 20_000 + seed,
            "worst_case": {"clean_accuracy": 0.9, "worst_accuracy": share},
        }
        for method, share in worst.items()
    ]
    return {"settings": {"seed": seed, "epochs": 3, "robust": f"{seed}"}, "rows": rows}


def test_each_system_has_its_mean_and_interval_and_the_best_is_ahead() -> None:
    found = joined([_table(0, da=0.8, ap=0.6, atmc=0.7), _table(1, da=0.6, ap=0.5, atmc=0.5)])
    assert found["seeds"] == [0, 1]
    dense, ap, atmc = found["rows"]
    assert atmc["worst_accuracy"] == pytest.approx(0.6)
    # Student's t of one degree of freedom is 12.706.
    assert atmc["interval"] == pytest.approx([0.6 - 1.2706, 0.6 + 1.2706], abs=1e-4)
    assert atmc["of_dense"] == pytest.approx((0.7 / 0.8 + 0.5 / 0.6) / 2)
    assert (ap["ahead"], atmc["ahead"], "ahead" in dense) == (False, True, False)
    assert atmc["file_bytes"] == 20_000.5
    text = markdown(found["rows"])
    assert "| ATMC | 0.05 | 32 | 20.0 KB | 0.900 | **0.600**" in text
    assert text.count("\n") == 5


def test_tables_of_different_kinds_are_refused() -> None:
    one = _table(0, da=0.8, ap=0.6)
    longer, other, bare = (copy.deepcopy(one) for _ in range(3))
    longer["settings"]["epochs"] = 4
    other["rows"].pop()
    del bare["rows"][0]["worst_case"]
    for second, message in ((longer, "settings"), (other, "same rows"), (bare, "worst case")):
        with pytest.raises(ValueError, match=message):
            joined([one, second])
