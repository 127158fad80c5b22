"""The report of a job: a JSON document of figures, and a page and a model card made from it."""

from atmc_core.report.builder import Findings, build
from atmc_core.report.files import write
from atmc_core.report.schema import REPORT_VERSION, schema

__all__ = ["REPORT_VERSION", "Findings", "build", "schema", "write"]
