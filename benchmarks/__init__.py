"""Side-by-side benchmarks of this repository and alternative servers with the same weights and inputs."""
