"""The configurations that ship with deshi: one YAML file a choice.

A folder is a group (``student``), a file in it a choice (``student=gru4rec``), and the files beside the folders are
the stages' own. Whoever wants a choice of their own writes a YAML file and names its folder with ``--config-dir``.
"""
