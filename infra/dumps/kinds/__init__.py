"""Every kind of source. A new one is a file beside these and a line in `AnySource`."""

from typing import Annotated

from pydantic import Field

from infra.dumps.kinds.command import Command
from infra.dumps.kinds.files import Files
from infra.dumps.kinds.mariadb import MariaDB, MySQL
from infra.dumps.kinds.mongodb import MongoDB
from infra.dumps.kinds.postgresql import PostgreSQL
from infra.dumps.kinds.redis import Redis
from infra.dumps.kinds.sqlite import SQLite

AnySource = Annotated[
    PostgreSQL | MariaDB | MySQL | SQLite | Redis | MongoDB | Command | Files, Field(discriminator="kind")
]

__all__ = ["AnySource", "Command", "Files", "MariaDB", "MongoDB", "MySQL", "PostgreSQL", "Redis", "SQLite"]
