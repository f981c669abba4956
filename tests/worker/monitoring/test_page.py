"""The status page: what it shows, escaped, well-formed and accessible."""

from html.parser import HTMLParser

import pytest

from worker.metrics import Metrics
from worker.monitoring import ConnectorStatus, QueueStatus, Status
from worker.monitoring.page import render
from worker.monitoring.status import CheckResult

FULL = Status(
    version="1.2.3",
    uptime_s=273_900,
    connectors=(
        ConnectorStatus("dummy", "0.1.0", 5),
        ConnectorStatus("acme", "2.0", 0, fault="cannot import <acme_sdk>"),
    ),
    queues=(
        QueueStatus("connectors.jobs.dummy", 3, 97),
        QueueStatus("connectors.jobs.http", 0, 100, fault="paused: the vault is sealed"),
    ),
    name="worker-7",
)


class Outline(HTMLParser):
    """What a page is made of, and whether its tags match."""

    VOID = frozenset({"meta", "link", "br", "wbr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page() -> Outline:
    metrics = Metrics(version="1.2.3")
    metrics.job_finished("dummy", "echo", "succeeded", 0.1)
    metrics.job_finished("dummy", "echo", "TIMEOUT", 0.1)
    metrics.retried("dummy", "TIMEOUT")
    metrics.dead_lettered("OUTCOME_UNKNOWN")
    metrics.replied("returned")
    checks = [CheckResult("broker", None), CheckResult("credentials", "the vault is sealed")]
    return Outline(render(FULL, checks, metrics.totals()))


@pytest.mark.parametrize(
    "shown",
    [
        "Not ready",
        "version 1.2.3 on worker-7",
        "up 3 d 4 h",
        "broker",
        "the vault is sealed",
        "acme",
        "broken",
        "cannot import <acme_sdk>",
        "connectors.jobs.dummy",
        "3 of 100",
        "paused: the vault is sealed",
        "TIMEOUT 1",
        "OUTCOME_UNKNOWN",
        "returned",
    ],
)
def test_the_page_shows_the_worker(page: Outline, shown: str) -> None:
    assert shown in page.text


def test_the_page_is_well_formed_and_accessible(page: Outline) -> None:
    assert page.open == []
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("title")
    assert len(page.all("h1")) == 1
    assert all(heading.get("scope") in {"col", "row"} for heading in page.all("th"))
    assert page.all("meta")[1] == {"name": "viewport", "content": "width=device-width,initial-scale=1"}


def test_the_page_loads_nothing_from_elsewhere(page: Outline) -> None:
    addresses = [
        str(attributes[name])
        for _, attributes in page.tags
        for name in ("src", "href", "action", "data", "srcset")
        if name in attributes
    ]

    assert set(addresses) == {"data:,", "/metrics", "/readyz", "/healthz"}
    assert not [attributes for _, attributes in page.tags if "style" in attributes]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_everything_on_the_page_is_escaped() -> None:
    evil = "<script>alert(1)</script>\"'&"
    status = Status(
        evil, 1, (ConnectorStatus(evil, evil, 1, evil),), (QueueStatus(evil, 1, 1, fault=evil),), evil
    )
    metrics = Metrics(version="1")
    metrics.job_finished(evil, evil, evil, 1)
    for count in (metrics.replied, metrics.dead_lettered):
        count(evil)
    metrics.retried(evil, evil)

    page = Outline(render(status, [CheckResult(evil, evil)], metrics.totals()))

    assert page.open == []
    assert len(page.all("script")) == 1
    assert evil in page.text


def test_a_draining_worker_is_shown_as_draining() -> None:
    page = Outline(
        render(Status("1", 1, draining=True), [CheckResult("a", None)], Metrics(version="1").totals())
    )

    assert "Draining" in page.text


def test_a_worker_that_does_nothing_yet_has_a_page() -> None:
    page = Outline(render(None, [CheckResult("event_loop", "blocked")], Metrics(version="1").totals()))

    assert "Not ready" in page.text
    assert page.open == []
