"""Evaluation: asking a model, the records of what it said, and the statistics that are read from them.

Nothing in this room imports the trainer; the statistics need numpy, scipy and pyarrow, and no torch.
"""
