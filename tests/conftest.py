"""Settings of all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from threadpoolctl import threadpool_limits

# A shell that runs tests in the background has them and all their children ignore Ctrl-C, which some of them are about.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Times on shared machines say nothing about a test, and a run in CI must not find what the next one does not.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=40, print_blob=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Networks and matrices of tests are so small that threads mostly wait for each other, for seconds on a busy machine.

    Processes that tests start have one thread too.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True, scope="session")
def a_pipe_has_no_width() -> None:
    """The width of whoever runs the tests is not that of the commands' output, which has none unless a test says so."""
    os.environ.pop("COLUMNS", None)


@pytest.fixture(autouse=True)
def no_waiting_for_disks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests write need not survive that the power fails, but for the tests of faults, which are about that."""
    if "faults" not in request.path.parts:
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
