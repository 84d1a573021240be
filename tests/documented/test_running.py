"""How a page is run: files first, then its blocks in their order; what does not end as documented fails, and says where."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ofa.tasks import TASKS
from tests.documented.fences import read_fences
from tests.documented.running import Page
from tests.documented.small import kind_of, small_command

PAGE = """
```sh
ofa space my_spaces:tiny        # a module that stands below
cat words.toml | tr a-z A-Z
```

```text
...
LENGTH   =   3
```

```toml title="words.toml"
length = 3
```

```python title="my_spaces.py"
from ofa.families import get_space


def tiny():
    return get_space("ofa-mbv3-tiny")
```

```python
import tomllib

from ofa.tasks import TASKS, Classification

length = tomllib.load(open("words.toml", "rb"))["length"]
TASKS.register("of-a-page", Classification())
```

```python
print(length + 1)
```

```text
4
```
"""


def run(text: str, folder: Path) -> None:
    Page(folder).read(read_fences("page.md", text))


def test_blocks_run_in_one_folder_and_leave_nothing_in_this_process(tmp_path: Path) -> None:
    run(PAGE, tmp_path)
    assert "of-a-page" not in TASKS
    assert "my_spaces" not in sys.modules
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("```sh\nofa space ofa-mbv3-none\n```", "page.md:1: 'ofa space ofa-mbv3-none' .* ended with 1, not 0"),
        ("\n```sh\ncat nothing | wc -l && false\n```", "page.md:2: .* ended with 1"),
        ("```sh\necho 4\n```\n\n```text\n5\n```", "page.md:5: '5' must follow"),
    ],
)
def test_what_ends_otherwise_fails_where_it_stands(wrong: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=f"(?s){said}"):
        run(wrong, tmp_path)


def test_numbers_of_smaller_sizes_are_not_compared(tmp_path: Path) -> None:
    run("```sh\necho ofa-mbv3-w1.0 has 5.4e20 networks\n```\n\n```text\nofa-mbv3-tiny has 1 networks\n```", tmp_path)


def test_a_smaller_command_has_its_options_as_they_stand() -> None:
    documented = "ofa predictor fit run --nets 60 -o run.predictor"
    assert small_command(documented) == "ofa predictor fit run --nets 12 -o run.predictor --rounds 0"
    assert small_command("ofa devices list") == "ofa devices list"
    added = small_command("ofa train small-budget --set data=photos/ -o run")
    assert added.startswith("ofa train small-budget --set data=photos/ -o run --set ")


def test_only_whole_beginnings_are_kinds() -> None:
    assert (kind_of("make"), kind_of("make test"), kind_of("makers")) == ("make", "make", None)
    assert kind_of("python benchmarks/zoo.py") == "python benchmarks/"
