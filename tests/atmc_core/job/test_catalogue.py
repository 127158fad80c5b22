"""The catalogue that a worker publishes is complete and valid."""

from typing import get_args

import jsonschema

from atmc_core.job.catalogue import catalogue
from atmc_core.report import schema as report_schema
from atmc_spec import AttackName


def test_the_catalogue_describes_every_architecture() -> None:
    entries = {(entry.kind, entry.name): entry.document for entry in catalogue()}
    lenet = entries["architecture", "lenet"]
    assert lenet["tensors"]["fc2.weight"] == {"shape": ["num_classes", 500], "optional": False}
    assert lenet["compressible"] == ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"]
    counter = entries["architecture", "resnet18"]["tensors"]["bn1.num_batches_tracked"]
    assert counter == {"shape": [], "optional": True}
    jsonschema.Draft202012Validator.check_schema(entries["method", "atmc"]["spec_schema"])
    attacks = {name for kind, name in entries if kind == "attack"}
    assert attacks == set(get_args(AttackName))
    options = entries["attack", "pgd"]["options_schema"]["properties"]["evaluation"]
    assert set(options["properties"]) == {"pgd_steps", "pgd_restarts"}
    assert entries["schema", "report"] == report_schema()
    assert "target" not in entries["method", "evaluate"]["spec_schema"]["properties"]
