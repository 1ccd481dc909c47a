"""Inputs, requests, results and progress of the command `predict`."""
