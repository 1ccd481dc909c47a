"""Our own generation for T5 and BART: networks with caches that are allocated once, greedy and beam search."""
