"""Text to tokens and back: cleaning, tokenization, generation parameters, batches of equal parameters."""
