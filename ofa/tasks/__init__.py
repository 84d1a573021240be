"""Tasks: labels, loss and metric of networks.

A user-defined task subclasses ``Task`` and is registered, or is an entry point of its package.
"""

from __future__ import annotations

from ofa.errors import RecipeError
from ofa.registry import Registry
from ofa.tasks.classification import Classification
from ofa.tasks.multi_label import MultiLabel
from ofa.tasks.task import Divergence, Task

__all__ = ["CLASSIFICATION", "MULTI_LABEL", "TASKS", "Divergence", "Task"]

CLASSIFICATION: Task = Classification()
MULTI_LABEL: Task = MultiLabel()
TASKS: Registry[Task] = Registry(
    "task",
    group="ofa.tasks",
    error=RecipeError,
    entries={task.name: task for task in (CLASSIFICATION, MULTI_LABEL)},
    valid=lambda entry: isinstance(entry, Task),
    must_be="an object of a class that inherits from ofa.tasks.Task",
)
"""Tasks that recipes may name."""
