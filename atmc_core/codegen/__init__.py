"""A network as one C file without dependencies, with its zeros left out."""

from atmc_core.codegen.compiler import Compiled, NoCompiler, compile_c
from atmc_core.codegen.refusal import NotCovered
from atmc_core.codegen.source import c_source

__all__ = ["Compiled", "NoCompiler", "NotCovered", "c_source", "compile_c"]
