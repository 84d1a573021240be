"""The reader of pages: which blocks there are, what they are called, and which commands stand in them."""

from __future__ import annotations

import pytest

from tests.documented.fences import LANGUAGES, PAGES, Fence, commands, page_of, read_fences, spans

PAGE = """
Some words with `ofa space` and `--set
a=1` in them.

```sh
ofa train digits -o run   # a comment; with 'quotes'
ofa search --set 'a="#b"' \\
    --workers 2 # more
# nothing but a comment

```

```text
done
```

with `digits.toml`, a [recipe](docs/recipes.md):

```toml
epochs = 1
```

- A list:

  ```python title="mine/nets.py"
  def one():
      return 1
  ```
"""


def test_blocks_have_a_language_a_name_and_a_place() -> None:
    blocks = read_fences("page.md", PAGE)
    assert [(block.line, block.language, block.name, block.follows) for block in blocks] == [
        (5, "sh", "", False),
        (13, "text", "", True),
        (19, "toml", "digits.toml", False),
        (25, "python", "mine/nets.py", False),
    ]
    assert blocks[3].text == "def one():\n    return 1\n"
    assert blocks[0].place == "page.md:5"


def test_commands_are_joined_and_lose_their_comments() -> None:
    assert commands(read_fences("page.md", PAGE)[0]) == ("ofa train digits -o run", "ofa search --set 'a=\"#b\"' --workers 2")


def test_spans_of_prose_are_whole() -> None:
    assert list(spans(PAGE)) == ["ofa space", "--set a=1", "digits.toml"]


def test_a_block_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"page\.md:2 does not"):
        read_fences("page.md", "a\n```sh\nofa")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_says_what_it_is(page: str) -> None:
    wrong = [block.place for block in read_fences(page, page_of(page)) if block.language not in LANGUAGES]
    assert wrong == [], f"a block begins with ``` and one of {', '.join(LANGUAGES)}"
    unnamed = [block.place for block in read_fences(page, page_of(page)) if block.language == "toml" and not block.name]
    assert unnamed == [], 'a block of TOML says which file it is: ```toml title="NAME"'


def test_a_plain_fence_has_no_language() -> None:
    assert read_fences("page.md", "```\na\n```\n") == (Fence("page.md", 1, "", "", "a\n"),)
