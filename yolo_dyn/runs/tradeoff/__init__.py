"""Accuracy against training time: the scores IES and RCS of the FMDConv paper."""
