"""Stand-in until the command line is there."""
import asyncio
import sys

def main() -> None:
    from connectors.registry import load
    from worker.logs import configure_logging
    from worker.masking import Redactor
    from worker.service import Worker
    from worker.settings import SettingError, load_settings
    try:
        s = load_settings(); r = Redactor(); configure_logging(s.log_level, s.log_format, redactor=r)
        asyncio.run(Worker(s, load(s.enabled), r).run())
    except SettingError as e:
        print(e, file=sys.stderr); raise SystemExit(78)
