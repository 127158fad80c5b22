"""A new job on the page: what is wrong is said before anything is sent, what it weighs foreseen."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.api import files
from tests.api.conftest import Service, wait_until
from tests.api.page.conftest import Visiting


def test_a_new_job_says_what_is_wrong_before_anything_is_sent(
    local: Service, visit: Visiting, tmp_path: Path
) -> None:
    model, data, cut = (tmp_path / name for name in ("m.safetensors", "d.npz", "cut.safetensors"))
    model.write_bytes(files.safetensors_file())
    data.write_bytes(files.npz_file())
    cut.write_bytes(files.safetensors_file()[:-8])
    seen = visit(local)
    page = seen.go("new")
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.method) if r.method != "GET" else None)
    page.get_by_role("button", name="Send the job").click()
    seen.sees("Before it can be sent")
    page.locator("#model").set_input_files(cut)
    seen.sees("The file is not whole")
    page.locator("#model").set_input_files(model)
    seen.sees("38,160 weights can be compressed")
    assert page.get_by_label("Architecture").input_value() == files.ARCHITECTURE
    page.locator("#dataset").set_input_files(data)
    page.get_by_label("Density", exact=True).fill("1.5")
    seen.sees("density is at most 1")
    page.get_by_label("Density, slider").fill("150")
    seen.sees("non-zeros of 38,160 weights")
    before = page.locator(".figures").inner_text()
    page.get_by_label("Density, slider").fill("120")
    wait_until(lambda: page.locator(".figures").inner_text() != before)
    page.get_by_label("Epsilon", exact=True).fill("8/0")
    seen.sees("epsilon is above 0")
    page.get_by_role("button", name="Send the job").click()
    assert sent == []
    page.get_by_label("Epsilon", exact=True).fill("8/255")
    page.get_by_label("Name", exact=True).fill("from the page")
    page.get_by_role("button", name="Send the job").click()
    page.get_by_role("heading", name="from the page").wait_for()
    (job,) = local.http.get("/jobs").json()["data"]
    assert (job["name"], job["spec"]["threat"]["epsilon"]) == ("from the page", "8/255")
    assert job["spec"]["target"]["bits"] == 4


WRONG: list[dict[str, Any]] = [
    {"target": {"density": 0, "bits": 4}},
    {"target": {"density": 0.1, "bits": 9}},
    {"target": {"density": 0.1, "k": 5, "bits": 4}},
    {"threat": {"norm": "l1", "epsilon": 0.1}},
    {"threat": {"norm": "linf", "epsilon": "8:255"}},
    {"training": {"robust_epochs": -1}},
    {"training": {"time_budget_s": 60}},
    {"evaluation": {"attacks": []}},
    {"evaluation": {"attacks": ["fgsm", "fgsm"]}},
    {"accept": {"robust_accuracy": 2}},
    {"seed": "one"},
]


def test_the_page_calls_wrong_what_the_service_refuses(local: Service, visit: Visiting) -> None:
    seen = visit(local)
    page = seen.go("jobs")
    schema = local.http.get("/methods/atmc").json()["spec_schema"]
    specs = [files.SPEC, *(files.SPEC | change for change in WRONG)]
    found = page.evaluate(
        """async ([specs, schema]) => {
            const script = document.querySelector('script[src]').src;
            const { problemsOf } = await import(script.replace('app.js', 'check.js'));
            return specs.map((spec) => problemsOf(spec, schema));
        }""",
        [specs, schema],
    )
    assert found[0] == []
    for spec, problems in zip(specs[1:], found[1:], strict=True):
        refused = local.send_job(spec)
        assert refused.status_code == 422, spec
        assert problems, (spec, refused.text)
        param = json.loads(refused.text)["param"] or ""
        # The page tells the very field, or the part of the spec that it stands in.
        assert any(p["path"].split(".")[0] == param.split(".")[0] for p in problems), (
            spec,
            problems,
            param,
        )


def test_the_predicted_size_is_near_what_was_measured(local: Service, visit: Visiting) -> None:
    # Non-zeros, bits, those of small tensors, and bytes of docs/results.md, of LeNet's 430,500
    # weights; 16 is what a job takes that names none.
    measured: list[tuple[int, int, int | None, int]] = [
        (33_062, 4, 32, 35_128),
        (15_974, 4, 32, 19_428),
        (15_974, 4, None, 17_777),
        (7_442, 4, 32, 10_956),
        (43_050, 8, 32, 63_091),
    ]
    page = visit(local).go("jobs")
    predicted = page.evaluate(
        """async (rows) => {
            const script = document.querySelector('script[src]').src;
            const { fileBytes } = await import(script.replace('app.js', 'predict.js'));
            const others = { small: 730, layers: 4 };
            return rows.map(([k, bits, small]) => {
                const target = small ? { k, bits, small_tensor_bits: small } : { k, bits };
                return fileBytes(target, 430500, others).bytes;
            });
        }""",
        measured,
    )
    for (_, _, _, real), guess in zip(measured, predicted, strict=True):
        assert guess == pytest.approx(real, rel=0.1)
