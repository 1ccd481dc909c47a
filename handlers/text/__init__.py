"""Text to tokens and back: cleaning, tokenisation, generation parameters, batches of equal parameters."""
