"""Start of a front end, and its restart with the models that it served."""
