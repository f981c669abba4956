"""The worker's process: settings, connectors, logs, and the exit code."""

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, Final

from loguru import logger

from connectors.registry import installed_names, load
from connectors.sdk.runtime.infrastructure import HoldPolicy
from connectors.sdk.runtime.lease import LeasePolicy
from worker.credentials.vault_config import VaultAuthError
from worker.logs.masking import Redactor
from worker.logs.setup import configure_logging
from worker.service import Worker
from worker.settings import EXIT_CONFIG, SettingError, Settings, load_settings, unknown_names

#: Exit code if the secret id looks intercepted (EX_NOPERM of sysexits.h).
EXIT_INTERCEPTED = 77
#: Seconds that tasks get to end once they are cancelled, when all else has ended.
CANCEL_S: Final = 1.0
#: New objects at which the collector looks for cycles: some MB, and 0.1 s of jobs. Python's own 700 are ten jobs.
YOUNG_OBJECTS: Final = 10_000


def main() -> None:
    """Run a worker, and exit with its code."""
    try:
        sys.exit(run_worker())
    except KeyboardInterrupt:
        sys.exit(130)


def run_worker(*, lease_policy: LeasePolicy | None = None, hold_policy: HoldPolicy | None = None) -> int:
    """Run a worker to its end, and return the exit code: 0, 77 or 78."""
    try:
        settings = load_settings()
        check_installed(settings)
        redactor = Redactor()
        logs = configure_logging(settings.log_level, settings.log_format, redactor=redactor)
    except SettingError as error:
        print(f"connectors: {error}", file=sys.stderr)
        return EXIT_CONFIG
    code, is_hung = 0, False
    try:
        registry = load(settings.enabled)
        for name in unknown_names(registry.connectors.values(), installed=installed_names()):
            logger.warning("unknown setting", name=name, next="`connectors config` lists the settings")
        worker = Worker(
            settings,
            registry,
            redactor,
            lease_policy=lease_policy,
            hold_policy=hold_policy,
            log_info=logs.info,
        )
        collect_garbage_less_often()
        is_hung = run_to_end(worker.run())
    except (SettingError, VaultAuthError) as error:
        code = EXIT_CONFIG if isinstance(error, SettingError) else EXIT_INTERCEPTED
        logger.error("worker cannot run", reason=str(error))
        logs.flush()
        print(f"connectors: {error}", file=sys.stderr)
    logs.stop()
    if is_hung or any(
        not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()
    ):
        # A synchronous action still blocks its thread, or a task goes on: the interpreter would wait for them.
        sys.stdout.flush()
        os._exit(code)
    return code


def run_to_end(coroutine: Coroutine[Any, Any, None]) -> bool:
    """Run a coroutine, and return whether tasks ignore their cancellation: `asyncio.run` would wait for those for good.

    A loop that they keep stays open; its process is to be left at once.
    """
    runner, is_hung = asyncio.Runner(), True
    try:
        try:
            runner.run(coroutine)
        finally:
            is_hung = runner.run(_cancel_tasks())
    finally:
        if not is_hung:
            runner.close()
    return is_hung


async def _cancel_tasks() -> bool:
    """Cancel all tasks but this one, and return whether some go on."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    return bool(tasks) and bool((await asyncio.wait(tasks, timeout=CANCEL_S))[1])


def collect_garbage_less_often() -> None:
    """Look for cycles once in so many new objects, and never at what was loaded: jobs leave few (12 µs a job)."""
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)


def check_installed(settings: Settings) -> None:
    """Check that every enabled connector is installed.

    Raises:
        SettingError: one is not installed.
    """
    installed = installed_names()
    for name in settings.enabled:
        if name not in installed:
            raise SettingError(
                f"CONNECTORS_ENABLED names {name!r}, which is not installed; "
                f"installed are {', '.join(sorted(installed))}"
            )
