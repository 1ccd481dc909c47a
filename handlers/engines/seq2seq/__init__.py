"""Sequence-to-sequence generation: the selection of an engine, and the engines `native` and `torch`.

The native engine consists of networks for T5, BART and related models, caches that are allocated once per batch,
greedy search and beam search.
"""
