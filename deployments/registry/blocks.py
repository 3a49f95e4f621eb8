"""The receivers of alerts as Prefect's own notification blocks: addresses and tokens are kept encrypted there.

All of them go through apprise. Prefect's block for webhooks would not: if its receiver refuses, the server's log shows
the address, and no event says that the alert was not taken.
"""

import re
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.notifications import MicrosoftTeamsWebhook, SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument

from deployments.registry.changes import Changes
from infra.config.alerts import Receiver, ReceiverKind
from infra.config.models import Config
from infra.config.secrets import resolve
from infra.errors import ConfigError
from tasks.pages import every

_NOBODY = UUID(int=0)
_SCHEMES = {"http": "json", "https": "jsons"}


def block_prefix(host: str) -> str:
    """What the blocks of a host begin with: Prefect takes lower case letters, digits and dashes."""
    return f"vmborg--{re.sub(r'[^a-z0-9]+', '-', host.lower()).strip('-')}--"


def put_blocks(client: SyncPrefectClient, config: Config, changes: Changes) -> dict[str, UUID]:
    """A block for each receiver of the configuration; the others of this host go. Returns their ids by receiver.

    Raises ConfigError (an address or token cannot be read).
    """
    prefix = block_prefix(config.hypervisor.name)
    documents = every(client.read_block_documents)
    found = {document.name: document for document in documents if (document.name or "").startswith(prefix)}
    ids: dict[str, UUID] = {}
    for name, receiver in config.alerts.receivers.items():
        there = found.pop(f"{prefix}{name}", None)
        # Prefect has no block for apprise as such; that of Slack hands every other address to apprise as it is.
        kind = MicrosoftTeamsWebhook if receiver.kind is ReceiverKind.TEAMS else SlackWebhook
        ids[name] = _put(f"{prefix}{name}", kind, _address(name, receiver), there=there, changes=changes)
    for name, document in found.items():
        changes.remove(f"receiver {name}", lambda document=document: client.delete_block_document(document.id))
    return ids


def _put(name: str, kind: type[Block], address: str, *, there: BlockDocument | None, changes: Changes) -> UUID:
    saved: list[UUID] = [there.id] if there else []

    def write() -> None:
        saved[:] = [_saved(kind.model_validate({"url": address}).save(name, overwrite=True))]

    found = (there.block_type.slug if there.block_type else "", there.data.get("url")) if there else None
    changes.put(f"receiver {name}", wanted=(kind.get_block_type_slug(), address), found=found, write=write)
    return saved[0] if saved else _NOBODY


def _saved(block_id: object) -> UUID:
    if not isinstance(block_id, UUID):
        raise TypeError("Prefect's synchronous call returned no block id")
    return block_id


def _address(name: str, receiver: Receiver) -> str:
    url = resolve(receiver.url, what=f"the address of the receiver {name!r}")
    if receiver.kind is not ReceiverKind.WEBHOOK:
        return url
    token = resolve(receiver.token, what=f"the token of the receiver {name!r}") if receiver.token else ""
    return webhook_address(url, token)


def webhook_address(url: str, token: str) -> str:
    """A webhook as apprise writes it: what is posted is JSON with title and text. Raises ConfigError.

    In apprise's own query, `+` begins a header, `-` a parameter of the request, `:` another name of a field.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ConfigError(
            "The address of a webhook must begin with http:// or https://.",
            evidence="it begins otherwise",
            remedy="Correct it, or say `kind: apprise` for an address of apprise's.",
        )
    query = [(f"-{key}", value) for key, value in parse_qsl(parts.query, keep_blank_values=True)]
    query += [("+Authorization", f"Bearer {token}")] if token else []
    query += [(":message", "text")]
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, parts.path, urlencode(query, quote_via=quote), ""))
