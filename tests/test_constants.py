"""No test and no development tool changes a constant: numbers that they need are fields of policies."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: `setattr(module, "NAME", …)`, `setattr("module.NAME", …)` and `module.NAME = …`.
PATCHED = re.compile(
    r'setattr\(\s*[^()"]+,\s*"[A-Z][A-Z_]+"'
    r'|setattr\(\s*"[a-z_.]+\.[A-Z][A-Z_]+"'
    r"|^\s*[a-z_]+(\.[a-z_]+)*\.[A-Z][A-Z_]{2,} = ",
    re.MULTILINE,
)


def test_no_constant_is_patched() -> None:
    paths = {*ROOT.glob("tests/**/*.py"), *ROOT.glob("worker/dev/**/*.py")} - {Path(__file__)}

    patched = [
        f"{path.relative_to(ROOT)}: {found[0].strip()}"
        for path in sorted(paths)
        for found in PATCHED.finditer(path.read_text())
    ]

    assert [] == patched, "hand a policy to the constructor instead"


def test_a_patched_constant_is_found_in_any_form() -> None:
    forms = (
        'monkeypatch.setattr(module, "WAIT_S", 1)',
        'monkeypatch.setattr("module.WAIT_S", 1)',
        "module.part.WAIT_S = 1",
    )

    assert all(PATCHED.search(form) for form in forms)
