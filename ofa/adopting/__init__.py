"""Adoption of a trained network: which sizes can shrink, which are coupled, and the traced program that runs with any of them."""
