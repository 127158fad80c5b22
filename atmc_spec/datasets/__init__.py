"""What the files of a data set are, as far as first bytes, names and array headers tell.

The API looks this far, and the job looks first: both decide by these functions, so they agree.
Nothing here imports pydantic, NumPy or PyTorch, and nothing opens a file.
"""
