"""Model archives: packing what is missing, reading manifests, second names of files."""
