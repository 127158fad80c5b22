"""What is installed, by its hashes; what is known against it; and a list of it all.

`python -m requirements` writes the files of hashes from `constraints.txt`, `python -m
requirements.audit` asks for advisories.
"""
