"""nginx with TLS in front of a Prefect server, set up by the very text of docs/security.md."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.process import run
from tests.guests import wait_for
from tests.integration.dumps.servers import answers, free_port, server

DOCS = Path(__file__).parents[2] / "docs/security.md"
_MAIN = """
daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/error.log info;
events {{}}
http {{ access_log {root}/access.log; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi; include {root}/site.conf; }}
"""


@dataclass(frozen=True, slots=True)
class TlsProxy:
    """Where it listens, and the certificate by which it is known."""

    root: Path
    port: int

    @property
    def api(self) -> str:
        """The value of PREFECT_API_URL."""
        return f"https://127.0.0.1:{self.port}/api"

    @property
    def certificate(self) -> Path:
        """The value of PREFECT_API_SSL_CERT_FILE."""
        return self.root / "prefect.pem"

    @property
    def key(self) -> Path:
        """The certificate's private key."""
        return self.root / "prefect.key"


def _documented(proxy: TlsProxy, upstream: int) -> str:
    """The configuration of the docs with our addresses and files; every one of theirs must be there."""
    text = DOCS.read_text(encoding="utf-8")
    found = re.search(r"```nginx\n(.*?)```", text, re.DOTALL)
    assert found, "docs/security.md shows no configuration of nginx"
    site = found.group(1)
    for theirs, ours in {
        "listen 443 ssl": f"listen 127.0.0.1:{proxy.port} ssl",
        "http://127.0.0.1:4200": f"http://127.0.0.1:{upstream}",
        "/etc/ssl/certs/prefect.pem": str(proxy.certificate),
        "/etc/ssl/private/prefect.key": str(proxy.key),
    }.items():
        assert theirs in site
        site = site.replace(theirs, ours)
    return site


def _certify(proxy: TlsProxy) -> None:
    """A certificate that vouches for itself, for 127.0.0.1."""
    template = proxy.root / "template"
    template.write_text('cn = "prefect"\nip_address = 127.0.0.1\ntls_www_server\nsigning_key\nexpiration_days = 2\n')
    run(["certtool", "--generate-privkey", "--key-type", "ecdsa", "--outfile", str(proxy.key)], timeout=60)
    signing = ["--load-privkey", str(proxy.key), "--template", str(template), "--outfile", str(proxy.certificate)]
    run(["certtool", "--generate-self-signed", *signing], timeout=60)


@contextmanager
def tls_proxy(root: Path, upstream: int) -> Iterator[TlsProxy]:
    """A proxy to this port of loopback."""
    proxy = TlsProxy(root, free_port())
    _certify(proxy)
    (root / "site.conf").write_text(_documented(proxy, upstream), encoding="utf-8")
    main = root / "nginx.conf"
    main.write_text(_MAIN.format(root=root), encoding="utf-8")
    with server(["nginx", "-p", str(root), "-c", str(main), "-e", str(root / "error.log")], root / "nginx.out"):
        wait_for(lambda: answers(proxy.port), timeout=20, what="nginx")
        yield proxy
