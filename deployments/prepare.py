"""Make the template of the embedded Prefect database, migrated once.

`make setup` runs it: python -m deployments.prepare.
"""

import asyncio
import os
import sys

from deployments.embedded import TEMPLATE


def main() -> int:
    """Create the template unless this version of Prefect has one already. Returns the exit code."""
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    making = TEMPLATE.with_name("prefect.making.db")
    os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{making}"
    TEMPLATE.parent.mkdir(parents=True, exist_ok=True)

    import prefect  # noqa: PLC0415 - the environment has to be set before Prefect reads it

    stamp = TEMPLATE.with_suffix(".version")
    if TEMPLATE.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == prefect.__version__:
        return 0
    from prefect.server.database import provide_database_interface  # noqa: PLC0415 - as above

    for leftover in (making, *making.parent.glob(f"{making.name}-*")):
        leftover.unlink(missing_ok=True)

    async def migrate() -> None:
        database = provide_database_interface()
        await database.create_db()
        engine = await database.engine()
        await engine.dispose()

    asyncio.run(migrate())
    _fold_write_ahead_log(str(making))
    making.rename(TEMPLATE)
    stamp.write_text(prefect.__version__, encoding="utf-8")
    return 0


def _fold_write_ahead_log(path: str) -> None:
    import sqlite3  # noqa: PLC0415 - only here

    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
