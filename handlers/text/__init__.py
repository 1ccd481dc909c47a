"""Text before and after the network: cleaning, tokenization, generation parameters and batches."""
