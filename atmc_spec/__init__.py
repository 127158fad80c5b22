"""What a caller may ask of the method: typed, ranged, with defaults.

The service and the workers read specs by these models, and nothing of them is written twice: the
JSON Schema that a worker publishes is generated from them, too. Neither PyTorch nor NumPy is
imported.

A name is imported when it is first asked for (what there is, stands in ``__init__.pyi``), so that
the solver has the errors, the names and the defaults where pydantic is not installed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
