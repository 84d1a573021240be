"""Recipes of tests: a few epochs of one phase on the digits."""

from __future__ import annotations


def digits_recipe(epochs: int, *settings: str, batch_size: int = 32) -> str:
    """A recipe as TOML.

    Args:
        epochs: of its one phase, in which all of the smallest space learns at 16 pixels.
        settings: further lines ahead of the phase.
        batch_size: images of a step.
    """
    return "\n".join(
        (
            'space = "ofa-mbv3-tiny"',
            'data = "digits"',
            f"batch_size = {batch_size}",
            *settings,
            "[[phases]]",
            'name = "full"',
            f"epochs = {epochs}",
            "learning_rate = 0.1",
            "resolutions = [16]\n",
        )
    )
