"""A small HTTP server with Range support that can be told to misbehave."""
import hashlib
import json
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves `files` (path -> bytes) at `url`. `requests` records (path, Range header or None).

    ranges: honour Range and If-Range requests
    cuts: for each following request, the bytes of body after which the connection is closed
    refusal: (status, B2 error code) sent instead of any file
    headers: extra headers for every file
    """

    def __init__(self, files=()):
        self.files = dict(files)
        self.ranges, self.cuts, self.refusal = True, [], None
        self.headers, self.etags, self.requests = {}, True, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer._answer(self)

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size, daemon_threads = 64, True

            def handle_error(self, request, address):
                """A client that hangs up is what many of the tests are about."""

        self._server = Server(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self._server.server_port}'

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(.01,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler):
        path = urllib.parse.unquote(urllib.parse.urlsplit(handler.path).path).lstrip('/')
        wanted = handler.headers.get('Range')
        self.requests.append((path, wanted))
        if self.refusal or path not in self.files:
            status, code = self.refusal or (404, 'not_found')
            body = json.dumps({'status': status, 'code': code, 'message': 'the reason'}).encode()
            handler.send_response(status)
            handler.send_header('Content-Length', len(body))
            handler.end_headers()
            handler.wfile.write(body)
            return

        body = self.files[path]
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        start, status = 0, 200
        if wanted and self.ranges and handler.headers.get('If-Range', etag) == etag:
            start = int(re.fullmatch(r'bytes=(\d+)-', wanted)[1])
            status = 206 if start < len(body) else 416
        handler.send_response(status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        if self.etags:
            handler.send_header('ETag', etag)
        if status == 206:
            handler.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
        handler.send_header('Content-Length', len(body) - start)
        handler.end_headers()
        cut = self.cuts.pop(0) if self.cuts else None
        handler.wfile.write(body[start:][:cut])
