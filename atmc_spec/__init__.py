"""What a caller may ask of a job: the spec's fields with their types, ranges and defaults.

The service and the workers read specs by these models. Each rule is written once: the JSON Schema
that a worker publishes is generated from the models, too. Neither PyTorch nor NumPy is imported.

A name (``__init__.pyi`` lists them) is imported when it is first used. So the solver can use the
errors, the names and the defaults even where pydantic is not installed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
