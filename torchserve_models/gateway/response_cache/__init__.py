"""The opt-in cache of predictions: keys, stored answers, registrations of models, and the route that nginx calls."""
