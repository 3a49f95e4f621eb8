"""Reading a domain definition. Pure."""

from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from infra.errors import DomainXmlError


def _root(xml: str) -> Element:
    try:
        return fromstring(xml, forbid_dtd=True)
    except (ParseError, DefusedXmlException) as error:
        raise DomainXmlError("A domain definition cannot be read.", evidence=repr(error)) from error


def is_live(xml: str) -> bool:
    """Whether this is the definition of a running domain: only those carry libvirt's number."""
    return _root(xml).get("id") is not None


def agent_connected(xml: str) -> bool:
    """Whether the live definition shows an open guest agent channel."""
    return any(
        target.get("name") == "org.qemu.guest_agent.0" and target.get("state") == "connected"
        for target in _root(xml).iterfind("devices/channel/target")
    )
