"""Model archives: packing missing ones, reading manifests, linking files."""
