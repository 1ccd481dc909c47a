"""Files prepared for a model's engine at packing time, and their cache."""
