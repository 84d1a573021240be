"""Adopting a trained network: which of its sizes can shrink, which must shrink together, and the program that computes with any of them."""
