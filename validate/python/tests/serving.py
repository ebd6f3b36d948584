"""An issuer's server on this machine, with the moods of real ones."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from issuing import Issuer

DISCOVERY = "/.well-known/openid-configuration"


class Server:
    """Serves discovery and key set of `issuer`, and counts requests."""

    def __init__(self, algorithm="ES256", start=True):
        self.requests = []
        self.delay_s = 0.0
        self.status = 200
        self.max_age = 300
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.requests.append(self.path)
                time.sleep(server.delay_s)
                documents = {
                    DISCOVERY: {"issuer": server.url, "jwks_uri": f"{server.url}/jwks.json"},
                    "/jwks.json": {"keys": server.keys},
                }
                document = documents.get(self.path)
                body = json.dumps(document).encode()
                self.send_response(404 if document is None else server.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", f"max-age={server.max_age}")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.http.daemon_threads = True
        # Whoever gave up waiting has closed its end.
        self.http.handle_error = lambda *_: None
        self.http.server_bind()
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.issuer = Issuer(int(time.time()) - 60, algorithm, self.url)
        self.keys = [self.issuer.member]
        if start:
            self.start()

    def start(self):
        """Listens; until then connections are refused."""
        self.http.server_activate()
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def rotate(self):
        """A new key beside the old one."""
        self.issuer = Issuer(int(time.time()) - 60, issuer=self.url)
        self.keys = [*self.keys, self.issuer.member]

    def fetched(self):
        """How often the key set was fetched."""
        return self.requests.count("/jwks.json")

    def close(self):
        self.http.shutdown()
        self.http.server_close()
