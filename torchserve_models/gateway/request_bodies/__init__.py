"""Read, decompress and parse request bodies within bounds on memory and time."""
