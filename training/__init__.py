"""Draw the data for the starter weights, and train them."""
