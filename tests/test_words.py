"""The words that were retired stay out: tests/retired_words.txt names each with the word to use."""

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("retired_words.txt")
#: Text that is not ours to word, or that tells what was: locks, others' schemas, the change log.
NOT_OURS = re.compile(
    r"requirements\.txt$|asyncapi-3\.1\.0\.json$|^CHANGELOG\.md$|^tests/(retired_words\.txt|test_words\.py)$"
)
#: Letters of a test's name: about 70.
MOST_LETTERS = 72
#: Verbs that a docstring of the product does not begin with: they say too little.
VAGUE_VERBS = re.compile(r"(Give|Say|Make|Let|Tell)s?")
#: The words of a text or an identifier: `snake_case`, `CamelCase` and `header-name` are several.
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@dataclass(frozen=True)
class Retired:
    """The retired words with the words to use, and the lines that may keep one."""

    use: dict[str, str] = field(default_factory=dict)
    allowed: set[tuple[str, str]] = field(default_factory=set)

    def found_in(self, line: str) -> str | None:
        """Return the first retired word of a line."""
        words = _words(line)
        return next((word for word in self.use if f" {word} " in words), None)

    def allows(self, path: str, line: str) -> bool:
        return any(path == at and part in line for at, part in self.allowed)


def read_list(text: str) -> Retired:
    retired = Retired()
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        if line.startswith("allow "):
            path, _, part = line.removeprefix("allow ").partition(": ")
            retired.allowed.add((path, part))
        else:
            words, _, use = line.partition(" -> ")
            retired.use.update({_words(word).strip(): use for word in words.split(", ")})
    return retired


def _words(line: str) -> str:
    return f" {' '.join(word.lower() for word in WORD.findall(line))} "


def _tracked_lines() -> Iterator[tuple[str, int, str]]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for path in listed.stdout.splitlines():
        if not NOT_OURS.search(path) and (ROOT / path).is_file():
            yield path, 0, path
            for number, line in enumerate((ROOT / path).read_text(errors="replace").splitlines(), start=1):
                yield path, number, line


def _docstring_beginnings() -> Iterator[tuple[str, int, str]]:
    """Return the first word of each docstring of the product."""
    for path in sorted(
        path for name in ("connectors", "worker", "schemas") for path in (ROOT / name).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                words = (ast.get_docstring(node) or "").split()
                if words:
                    yield str(path.relative_to(ROOT)), getattr(node, "lineno", 1), words[0]


def test_no_retired_word_is_used() -> None:
    retired = read_list(LIST.read_text())

    faults = [
        f"{path}:{number}: {word!r} -> {retired.use[word]}"
        for path, number, line in _tracked_lines()
        if (word := retired.found_in(line)) and not retired.allows(path, line)
    ]

    assert not faults, "\n".join(faults)


def test_a_tests_name_is_a_plain_fact_of_about_seventy_letters() -> None:
    named = re.compile(r"def (test_\w+)\(")

    faults = [
        f"{path}:{number}: {len(found[1])} letters: {found[1]}"
        for path, number, line in _tracked_lines()
        if path.startswith("tests/") and (found := named.search(line)) and len(found[1]) > MOST_LETTERS
    ]

    assert not faults, "\n".join(faults)


def test_a_docstring_begins_with_a_verb_of_the_field() -> None:
    faults = [
        f"{path}:{line}: begins with {first!r}; say Return, Create, Return whether, Close, Run"
        for path, line, first in _docstring_beginnings()
        if VAGUE_VERBS.fullmatch(first)
    ]

    assert not faults, "\n".join(faults)


def test_a_class_name_stands_for_one_idea() -> None:
    """The sandboxes speak their providers' own words."""
    found: dict[str, set[str]] = {}
    for path in sorted(
        path for name in ("connectors", "worker", "schemas") for path in (ROOT / name).rglob("*.py")
    ):
        if "sandbox" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name, set()).add(str(path.relative_to(ROOT)))

    assert {} == {name: paths for name, paths in found.items() if len(paths) > 1}


@pytest.mark.parametrize("line", ["in hand", "IN_HAND_S", "_InHand", "job-in-hand", "It is in hand."])
def test_a_retired_word_is_found_in_any_form(line: str) -> None:
    assert "in hand" == read_list("in hand -> in flight").found_in(line)


@pytest.mark.parametrize("line", ["hands in", "in the hand", "inhand", "hand"])
def test_other_words_are_not_taken_for_it(line: str) -> None:
    assert read_list("in hand -> in flight").found_in(line) is None


def test_an_allowed_line_may_keep_its_word() -> None:
    retired = read_list("lane -> queue\nallow a.py: a bus lane")

    assert retired.allows("a.py", "# a bus lane in the street")
    assert not retired.allows("b.py", "# a bus lane in the street")
