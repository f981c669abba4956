"""The status page: one self-contained document, readable without a script, a mouse or a wide screen."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from worker.metrics import SUCCEEDED, Totals
from worker.monitoring.status import CheckResult, ConnectorStatus, QueueStatus, Status

_STYLE: Final = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b2430;--soft:#566273;--line:#dfe4ea;
--good:#0b6b3a;--good-bg:#e2f5ea;--bad:#a61b1b;--bad-bg:#fdeaea;--warn:#7a4b00;--warn-bg:#fdf1d8;--bar:#3867c8}
@media(prefers-color-scheme:dark){:root{--page:#11151b;--card:#1a2029;--ink:#e6eaf0;--soft:#9fabba;
--line:#2c3541;--good:#6fd89c;--good-bg:#12331f;--bad:#ff9d96;--bad-bg:#421a1a;--warn:#f2c063;
--warn-bg:#3a2c0c;--bar:#7ba4f5}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
.wrap{max-width:72rem;margin:0 auto;padding:1.5rem 1.25rem 2rem}
header{display:flex;flex-wrap:wrap;align-items:center;gap:.4rem 1rem;margin-bottom:1.25rem}
h1{font-size:1.35rem;line-height:1.2;margin:0;letter-spacing:-.01em}
header p{margin:0;color:var(--soft)}
header .state{margin-left:auto}
h2{font-size:.95rem;margin:0;padding:.85rem 1rem .55rem}
.grid{display:grid;grid-template-columns:repeat(6,minmax(0,1fr));gap:1rem}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;overflow:hidden;min-width:0}
.third{grid-column:span 2}.half{grid-column:span 3}.full{grid-column:1/-1}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.4rem 1rem;border-top:1px solid var(--line)}
thead th{color:var(--soft);font-size:.8rem;font-weight:600;white-space:nowrap}
tbody th{font-weight:600;overflow-wrap:break-word}
td{overflow-wrap:break-word}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.soft{color:var(--soft)}
.empty{margin:0;padding:.4rem 1rem .9rem;color:var(--soft)}
.tag{display:inline-block;padding:.05rem .55rem;border-radius:99px;font-size:.82rem;font-weight:600;
white-space:nowrap}
.good{color:var(--good);background:var(--good-bg)}
.bad{color:var(--bad);background:var(--bad-bg)}
.warn{color:var(--warn);background:var(--warn-bg)}
.state .tag{font-size:.95rem;padding:.2rem .8rem}
.codes{display:flex;flex-wrap:wrap;gap:.1rem .9rem;margin:0;padding:0;list-style:none}
.slots{white-space:nowrap}
svg.bar{display:block;width:100%;min-width:4.5rem;height:.4rem;margin:.3rem 0 .35rem;border-radius:99px;
background:var(--line)}
svg.bar rect{fill:var(--bar)}
footer{display:flex;flex-wrap:wrap;align-items:center;gap:.4rem 1.25rem;margin-top:1.25rem;color:var(--soft);
font-size:.88rem}
a{color:inherit;text-underline-offset:.15em}
button{font:inherit;color:var(--ink);background:var(--card);border:1px solid var(--line);border-radius:6px;
padding:.1rem .7rem;cursor:pointer}
a:focus-visible,button:focus-visible,.scroll:focus-visible{outline:2px solid var(--bar);outline-offset:2px}
#lost{margin:0 0 1rem;padding:.6rem 1rem;border-radius:10px}
[hidden]{display:none!important}
@media(max-width:60rem){.third,.half{grid-column:1/-1}}
@media(max-width:34rem){.wrap{padding:1rem .75rem 1.5rem}header .state{margin-left:0}
thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
tr{display:block;border-top:1px solid var(--line);padding:.45rem 1rem}
tbody th,td,td.n{display:flex;gap:1rem;border:0;padding:.1rem 0;text-align:left}
tbody th{display:block}
td>div{flex:1;min-width:0}
td::before{content:attr(data-label);flex:0 0 6.5rem;color:var(--soft);font-size:.85rem}
td:empty{display:none}}
"""

# Replaces the page's content every few seconds; if scripts are off, the browser reloads it instead.
_SCRIPT: Final = """
(()=>{
const button=document.getElementById("pause"),lost=document.getElementById("lost");
let paused=false;
button.hidden=false;
button.onclick=()=>{paused=!paused;button.textContent=paused?"Resume updates":"Pause updates";};
const update=async()=>{
 if(!paused&&!document.hidden){
  const limit=new AbortController(),timer=setTimeout(()=>limit.abort(),4000);
  try{
   const response=await fetch("/",{cache:"no-store",signal:limit.signal});
   const fresh=new DOMParser().parseFromString(await response.text(),"text/html");
   if(!response.ok||!fresh.getElementById("live"))throw 0;
   for(const id of["live","state","at"]){
    const now=document.getElementById(id),next=fresh.getElementById(id);
    if(now.innerHTML!==next.innerHTML)now.innerHTML=next.innerHTML;
   }
   document.title=fresh.title;lost.hidden=true;
  }catch{
   lost.hidden=false;document.title="No response \\u2013 connectors worker";
  }finally{clearTimeout(timer);}
 }
 setTimeout(update,3000);
};
setTimeout(update,3000);
})();
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


#: Sent with the page: its own style and script by hash, requests to its own origin, nothing else.
HEADERS: Final = (
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; connect-src 'self'; "
        "img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


def render(status: Status | None, checks: Sequence[CheckResult], totals: Totals) -> str:
    """Return the page.

    Args:
        status: None if the worker's loop does not respond; a check says so.
    """
    state = _state(status, checks)
    connectors, queues = (status.connectors, status.queues) if status is not None else ((), ())
    sections = (
        _checks(checks),
        _connectors(connectors),
        _queues(queues),
        _jobs(totals.jobs),
        _counts("Replies", "Outcome", totals.replies, "third", keep_zeros=True),
        _counts("Retries", "Code", totals.retries, "third"),
        _counts("Dead letters", "Reason", totals.dead_letters, "third"),
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{state[1]} – connectors worker</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
<noscript><meta http-equiv="refresh" content="5"></noscript>
</head>
<body>
<div class="wrap">
<header>
<h1>connectors worker</h1>
<p>{_identity(status)}</p>
<div class="state" id="state" role="status">{_tag(*state)}</div>
</header>
<p id="lost" class="bad" role="alert" hidden>The worker does not respond. This is its last known state.</p>
<main id="live"><div class="grid">
{"".join(sections)}
</div></main>
<footer>
<span id="at">As of {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC{_uptime(status)}</span>
<button id="pause" type="button" hidden>Pause updates</button>
<a href="/metrics">Metrics</a> <a href="/readyz">Readiness</a> <a href="/healthz">Health</a>
</footer>
</div>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _state(status: Status | None, checks: Sequence[CheckResult]) -> tuple[str, str]:
    if status is not None and status.draining:
        return "warn", "Draining"
    return ("good", "Ready") if all(check.ok for check in checks) else ("bad", "Not ready")


def _identity(status: Status | None) -> str:
    if status is None:
        return "version unknown: the worker does not respond"
    name = f" on {escape(status.name)}" if status.name else ""
    return f"version {escape(status.version)}{name}"


def _uptime(status: Status | None) -> str:
    return "" if status is None else f", up {_duration(status.uptime_s)}"


def _checks(checks: Sequence[CheckResult]) -> str:
    rows = [
        (
            _name(check.name.replace("_", " ")),
            _cell(_tag(*(("good", "ok") if check.ok else ("bad", "failing")))),
            _cell(escape(check.reason or "")),
        )
        for check in checks
    ]
    return _section("Readiness", ("Check", "State", "Detail"), rows, "half")


def _connectors(connectors: Iterable[ConnectorStatus]) -> str:
    rows = []
    for connector in connectors:
        state = _tag("good", "loaded") if connector.fault is None else _tag("bad", "broken")
        detail = f"<br>{escape(connector.fault)}" if connector.fault is not None else ""
        rows.append(
            (
                _name(connector.name),
                _cell(escape(connector.version) or "–"),
                _cell(state + detail),
                _number(connector.actions if connector.fault is None else None),
            )
        )
    return _section("Connectors", ("Connector", "Version", "State", "#Actions"), rows, "half")


def _queues(queues: Iterable[QueueStatus]) -> str:
    rows = []
    for queue in queues:
        used, total = queue.slots_used, queue.slots_used + queue.slots_free
        state = _tag("good", "consuming") if queue.fault is None else _tag("bad", "not consuming")
        detail = f"<br>{escape(queue.fault)}" if queue.fault is not None else ""
        rows.append(
            (
                _name(queue.name),
                _cell(state + detail),
                _cell(f'<span class="slots">{used:,} of {total:,}</span>{_bar(used, total)}'),
            )
        )
    return _section("Queues", ("Queue", "State", "Slots used"), rows, "full")


def _jobs(jobs: Mapping[str, Mapping[str, int]]) -> str:
    rows = []
    for connector, outcomes in sorted(jobs.items()):
        failures = {code: count for code, count in outcomes.items() if code != SUCCEEDED and count}
        by_count = sorted(failures.items(), key=lambda one: (-one[1], one[0]))
        codes = "".join(f"<li>{_breakable(code)} <b>{count:,}</b></li>" for code, count in by_count)
        rows.append(
            (
                _name(connector),
                _number(outcomes.get(SUCCEEDED, 0)),
                _number(sum(failures.values())),
                _cell(f'<ul class="codes">{codes}</ul>' if codes else '<span class="soft">none</span>'),
            )
        )
    return _section(
        "Jobs since start", ("Connector", "#Succeeded", "#Failed", "Failures by code"), rows, "full"
    )


def _counts(
    title: str, heading: str, counts: Mapping[str, int], width: str, *, keep_zeros: bool = False
) -> str:
    shown = sorted(
        ((name, count) for name, count in counts.items() if count or keep_zeros), key=lambda one: -one[1]
    )
    rows = [(_name(name), _number(count)) for name, count in shown]
    return _section(title, (heading, "#Count"), rows, width)


def _section(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], width: str) -> str:
    """Return one table; a heading that begins with `#` is over numbers."""
    if not rows:
        return f'<section class="{width}"><h2>{title}</h2><p class="empty">None.</p></section>\n'
    heads = "".join(
        f'<th scope="col" class="n">{text[1:]}</th>'
        if text.startswith("#")
        else f'<th scope="col">{text}</th>'
        for text in headings
    )
    labels = [text.lstrip("#") for text in headings]
    body = "".join(f"<tr>{''.join(map(_labelled, cells, labels))}</tr>\n" for cells in rows)
    return (
        f'<section class="{width}"><h2>{title}</h2>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody></table></div></section>\n"
    )


def _labelled(cell: str, label: str) -> str:
    # On a phone the headings are out of sight, and each cell brings its own.
    return cell.replace("<td", f'<td data-label="{label}"', 1)


def _name(text: str) -> str:
    return f'<th scope="row">{_breakable(text)}</th>'


def _breakable(text: str) -> str:
    # A long name may break where its parts meet, and not inside a word.
    return re.sub(r"(?<=[._])(?=\w)", "<wbr>", escape(text))


def _cell(markup: str) -> str:
    return f"<td><div>{markup}</div></td>" if markup else "<td></td>"


def _number(number: int | None) -> str:
    return f'<td class="n">{"–" if number is None else f"{number:,}"}</td>'


def _tag(kind: str, text: str) -> str:
    return f'<span class="tag {kind}">{text}</span>'


def _bar(part: int, whole: int) -> str:
    # A style attribute would need a looser policy; a drawing's width does not.
    percent = 100 * min(part, whole) / whole if whole else 0
    return (
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{percent:.1f}" height="8"/></svg>'
    )


def _duration(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days} d {h} h"
    if hours:
        return f"{h} h {m} min"
    return f"{m} min {s} s" if minutes else f"{s} s"
