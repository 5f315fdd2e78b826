"""The configurations that ship with deshi (YAML) and the code that puts them together.

A folder is a group (``student``), a file in it a choice (``student=gru4rec``), and the files beside the folders are
the stages' own. Whoever wants a choice of their own writes a YAML file and names its folder with ``--config-dir``.
"""
