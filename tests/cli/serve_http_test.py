"""serve: bytes on the wire: limits, one reading of every message, who may ask."""
import json
import os
import socket
import time
import unittest

from serve_support import ServeTest, Server, read_all, status_of, wait_until
from support import CliTest

CHAT = "/v1/chat/completions"
HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"


def post(fields, body=b"", path=b"/tokenize"):
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + JSON + fields + b"\r\n" + body


class Wire(ServeTest):
    def status(self, data):
        return status_of(self.server.raw(data))

    def test_lawful_requests(self):
        body = b'{"content":"ab"}'
        length = b"Content-Length: %d\r\n" % len(body)
        close = b"Connection: close\r\n"
        self.assertEqual(self.status(post(length + close, body)), 200)
        self.assertEqual(self.status(post(b"content-length:%d\r\n" % len(body) + close, body)), 200)
        chunked = b"Transfer-Encoding: chunked\r\n" + close
        self.assertEqual(self.status(post(chunked, b"3\r\n" + body[:3] + b"\r\nD;x=y\r\n" + body[3:] + b"\r\n0\r\n\r\n")), 200)
        self.assertEqual(self.status(b"GET /health HTTP/1.0\r\n\r\n"), 200)
        head = self.server.raw(b"HEAD /health HTTP/1.1\r\n" + HOST + close + b"\r\n")
        self.assertEqual(status_of(head), 200)
        self.assertTrue(head.endswith(b"\r\n\r\n"))

    def test_bytes_one_by_one(self):
        with self.server.connect() as connection:
            for byte in post(b"Content-Length: 16\r\nConnection: close\r\n", b'{"content":"ab"}'):
                connection.sendall(bytes([byte]))
            self.assertEqual(status_of(read_all(connection)), 200)

    def test_pipelined_requests_are_answered_in_order(self):
        paths = [b"/health", b"/none", b"/v1/models"] * 20
        data = b"".join(b"GET " + p + b" HTTP/1.1\r\n" + HOST + b"\r\n" for p in paths)
        answer = self.server.raw(data + b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        codes = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
        self.assertEqual(codes, [200, 404, 200] * 20 + [200])

    def test_a_connection_ends_after_100_requests(self):
        one = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
        answer = self.server.raw(one * 120)
        self.assertEqual(answer.count(b"HTTP/1.1 200"), 100)
        self.assertEqual(answer.count(b"connection: close"), 1)

    def test_continue(self):
        with self.server.connect() as connection:
            connection.sendall(post(b"Content-Length: 16\r\nExpect: 100-continue\r\nConnection: close\r\n"))
            self.assertEqual(connection.recv(1000), b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.sendall(b'{"content":"ab"}')
            self.assertEqual(status_of(read_all(connection)), 200)
        self.assertEqual(self.status(post(b"Content-Length: 99999999\r\nExpect: 100-continue\r\n")), 413)
        self.assertEqual(self.status(post(b"Content-Length: 16\r\nExpect: tea\r\n")), 417)

    def test_two_readings_are_refused(self):
        body = b'{"content":"ab"}'
        for fields in (b"Content-Length: 16\r\nContent-Length: 16\r\n", b"Content-Length: 16\r\nContent-Length: 17\r\n",
                       b"Content-Length: 16, 16\r\n", b"Content-Length: 16\r\nTransfer-Encoding: chunked\r\n",
                       b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"Content-Length : 16\r\n",
                       b"Transfer-Encoding: gzip, chunked\r\n", b"Content-Length: -1\r\n", b"Content-Length: +16\r\n",
                       b"Content-Length: 0x10\r\n", b"Content-Length: 18446744073709551632\r\n", b"Host: localhost\r\n",
                       b"X: a\r\n b\r\n", b"X: \x00\r\n", b"X: a\rY: b\r\n", b"X\n"):
            self.assertEqual(self.status(post(fields, body)), 400, fields)
        chunked = b"Transfer-Encoding: chunked\r\n"
        for data in (b"x\r\n", b"-2\r\nab\r\n0\r\n\r\n", b"0x2\r\nab\r\n0\r\n\r\n", b"\r\n", b"2 \nab", b"2\r\nabc\r\n0\r\n\r\n"):
            self.assertEqual(self.status(post(chunked, data)), 400, data)
        self.assertEqual(self.status(post(chunked, b"2;" + b"x" * 20000)), 400)
        for data in (b"ffffffffffffffff\r\n", b"100001\r\n"):
            self.assertEqual(self.status(post(chunked, data)), 413, data)

    def test_what_is_no_request(self):
        for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /health\r\n\r\n", b"\r\n\r\n",
                     b"GET /health HTTP/1.1\n" + b"Host: localhost\n\n", b"get / HTTP/1.1\r\n\r\n",
                     b"GET  /health HTTP/1.1\r\n\r\n", b"GET /health HTTP/1.1\r\n\r\n", b"GET http://x/ HTTP/1.1\r\n" + HOST + b"\r\n",
                     b"CONNECT x:1 HTTP/1.1\r\n" + HOST + b"\r\n", b"\x00" * 100):
            begun = time.monotonic()
            self.assertEqual(self.status(data), 400, data)
            self.assertLess(time.monotonic() - begun, 5, data)
        self.assertIn(self.status(b"GET /health HTTP/3.7\r\n" + HOST + b"\r\n"), (400, 505))
        self.assertIn(self.status(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), (400, 505))

    def test_sizes(self):
        close = b"Connection: close\r\n"
        self.assertEqual(self.status(b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\n" + HOST + close + b"\r\n"), 404)
        self.assertEqual(self.status(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"), 414)
        self.assertEqual(self.status(b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 17000 + b"\r\n\r\n"), 431)
        self.assertEqual(self.status(b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 70 + b"\r\n"), 431)
        for length in (b"1048577", b"1000000000000000000"):
            self.assertEqual(self.status(post(b"Content-Length: " + length + b"\r\n")), 413)
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        self.assertEqual(self.status(post(b"Transfer-Encoding: chunked\r\n", piece * 20)), 413)
        self.assertEqual(self.status(post(b"Content-Length: 2\r\nContent-Encoding: gzip\r\n", b"{}")), 415)

    def test_paths_and_methods(self):
        self.assertEqual(self.server.get("/none")[0], 404)
        for path in ("/../etc/passwd", "/%2e%2e/etc/passwd", "/v1/models/../../x", "//", "/v1/models/"):
            self.assertEqual(self.status(b"GET " + path.encode() + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"),
                             404, path)
        for method, path, allow in (("GET", CHAT, "POST"), ("POST", "/health", "GET"), ("DELETE", "/v1/models", "GET"),
                                    ("OPTIONS", CHAT, "POST"), ("PATCH", "/metrics", "GET")):
            status, headers, data = self.server.request(method, path)
            self.assertEqual((status, headers["allow"]), (405, allow))
            self.assertEqual(json.loads(data)["error"]["code"], "method_not_allowed")

    def test_other_sites(self):
        good = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        ours = f"http://127.0.0.1:{self.server.port}"
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.1.2.3"):
            status, headers, _ = self.server.request("GET", "/health", headers={"Host": host})
            self.assertEqual(status, 403)
            self.assertEqual(self.server.request("POST", CHAT, good, {"Host": host})[0], 403)
        for origin in ("https://evil.example", "null", "http://localhost:1"):
            for method, body in (("POST", good), ("OPTIONS", None)):
                status, headers, _ = self.server.request(method, CHAT, body, {"Origin": origin})
                self.assertEqual(status, 403)
                self.assertFalse([h for h in headers if h.startswith("access-control")], headers)
        status, headers, _ = self.server.request("POST", CHAT, good, {"Origin": ours})
        self.assertEqual(status, 200)
        self.assertFalse([h for h in headers if h.startswith("access-control")], headers)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            self.assertEqual(self.server.request("POST", CHAT, good, {"Content-Type": kind})[0], 415)
        data = json.dumps(good).encode()
        self.assertEqual(self.status(b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + HOST +
                                     b"Content-Length: %d\r\n\r\n" % len(data) + data), 415)
        for path in ("/health", "/metrics", "/v1/models"):
            self.assertEqual(self.server.request("GET", path)[1].get("x-content-type-options"), "nosniff")


class Times(ServeTest):
    options = ("--header-timeout", "1", "--idle-timeout", "1", "--body-timeout", "7", "--send-timeout", "2",
               "--max-connections", "40", "--send-buffer", "20000", "-np", "2")

    def test_heads_bodies_and_silence(self):
        with self.server.connect() as slow, self.server.connect() as silent, self.server.connect() as idle:
            begun = time.monotonic()
            slow.sendall(b"GET /hea")
            idle.sendall(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
            self.assertIn(status_of(read_all(slow)), (408, None))
            self.assertEqual(read_all(silent), b"")
            self.assertEqual(status_of(read_all(idle)), 200)
            self.assertLess(time.monotonic() - begun, 5)
        with self.server.connect() as body:
            begun = time.monotonic()
            body.sendall(post(b"Content-Length: 10000\r\n", b'{"a":"'))
            self.assertEqual(status_of(read_all(body)), 408)
            passed = time.monotonic() - begun
            self.assertGreater(passed, 4, "a body has 5 s before its rate counts")
            self.assertLess(passed, 20)

    def test_many_slow_heads_cost_nobody(self):
        threads, begun = self.server.threads(), time.monotonic()
        many = [self.server.connect() for _ in range(30)]
        for connection in many:
            connection.sendall(b"GET /health HTTP/1.1\r\nX-")
        self.assertEqual(self.server.get("/health")[0], 200)
        self.assertEqual(self.server.post("/tokenize", {"content": "a"})[0], 200)
        self.assertEqual(self.server.threads(), threads)
        for connection in many:
            read_all(connection)
            connection.close()
        self.assertLess(time.monotonic() - begun, 15)

    def test_more_connections_than_allowed(self):
        many = [self.server.connect() for _ in range(40)]
        self.assertTrue(wait_until(lambda: self.server.descriptors() >= 40))
        answer = self.server.raw(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
        self.assertEqual(status_of(answer), 503)
        self.assertIn(b"retry-after", answer)
        for connection in many:
            connection.close()
        self.assertTrue(wait_until(lambda: status_of(self.server.raw(
            b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")) == 200))

    def test_a_reader_that_does_not_read(self):
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            slow.connect(("127.0.0.1", self.server.port))
            body = json.dumps({"prompt": "a", "max_tokens": 1000, "stream": True, "ignore_eos": True, "logprobs": 20,
                               "temperature": 0}).encode()
            slow.sendall(post(b"Content-Length: %d\r\n" % len(body), body, b"/v1/completions"))
            self.assertTrue(wait_until(lambda: any(s["is_processing"] for s in self.server.get("/slots")[1])))
            # Its stream fills what it may be ahead, stands still, and is given up.
            good = self.server.post("/v1/completions", {"prompt": "a", "max_tokens": 50})
            self.assertEqual(good[0], 200)
            self.assertTrue(wait_until(lambda: not any(s["is_processing"] for s in self.server.get("/slots")[1])))
            decoded = self.server.metric("crumb_requests_cancelled_total")
            self.assertGreaterEqual(decoded, 1)


class Keys(CliTest):
    def test_keys(self):
        keys = self.write("keys", "# two\nfirst-key-0001\nsecond-key-0002\n")
        server = Server(self.folder, "-m", self.crumb, "--api-key-file", keys, env={"CRUMB_API_KEY": "unused-key-0003"})
        try:
            def status(path, **headers):
                return server.request("GET", path, headers=headers)[0]
            self.assertEqual(status("/health"), 200)
            for path in ("/metrics", "/slots", "/props", "/v1/models", "/none"):
                self.assertEqual(status(path), 401, path)
            for good in ("Bearer first-key-0001", "bearer second-key-0002"):
                self.assertEqual(status("/v1/models", Authorization=good), 200)
            self.assertEqual(server.request("GET", "/v1/models", headers={"x-api-key": "first-key-0001"})[0], 200)
            answers = {server.request("GET", "/v1/models", headers={"Authorization": wrong} if wrong else {})[2]
                       for wrong in (None, "Bearer first-key-000", "Bearer first-key-00011", "Basic Zmlyc3Q=", "Bearer",
                                     "Bearer unused-key-0003")}
            self.assertEqual(len(answers), 1, "missing and wrong look the same")
            self.assertEqual(server.request("GET", "/v1/models")[1]["www-authenticate"], "Bearer")
            with open(f"/proc/{server.process.pid}/cmdline", "rb") as file:
                self.assertNotIn(b"first-key-0001", file.read())
        finally:
            self.assertEqual(server.stop(), 0)
        self.assertNotIn("first-key", server.log)
        server = Server(self.folder, "-m", self.crumb, env={"CRUMB_API_KEY": "from-environment"})
        try:
            self.assertEqual(server.request("GET", "/v1/models")[0], 401)
            self.assertEqual(server.request("GET", "/v1/models", headers={"x-api-key": "from-environment"})[0], 200)
        finally:
            self.assertEqual(server.stop(), 0)
        self.assertNotIn(b"secret", self.expect(0, "version", "-v", env={"CRUMB_API_KEY": "secret"}).stdout)

    def test_others_are_let_in_on_purpose_only(self):
        begun = time.monotonic()
        self.assertIn("--host", self.expect_error(2, "serve", "-m", self.crumb, "--host", "0.0.0.0"))
        self.assertLess(time.monotonic() - begun, 10)
        self.expect_error(2, "serve", "-m", self.crumb, "--host", "::")
        self.expect_error(2, "serve", "-m", self.crumb, "--host", "somewhere")
        self.expect_error(2, "serve", "-m", self.crumb, "--api-key-file", self.write("none", "# none\n"))
        self.expect_error(4, "serve", "-m", self.crumb, "--api-key-file", "/nonexistent")
        self.expect_error(2, "serve", "-m", self.crumb, "--port", "65536")
        self.expect_error(2, "serve", "-m", self.crumb, "-c", "100000", "--port", "0")
        self.expect_error(4, "serve", "-m", "/nonexistent.crumb", "--port", "0")
        server = Server(self.folder, "-m", self.crumb, "--host", "0.0.0.0", "--insecure-no-auth", "--allowed-host", "Pi.local")
        try:
            self.assertIn("warning", server.log)
            self.assertEqual(server.request("GET", "/v1/models", headers={"Host": "pi.local:8080"})[0], 200)
            self.assertEqual(server.request("GET", "/v1/models", headers={"Host": "other.local"})[0], 403)
        finally:
            self.assertEqual(server.stop(), 0)

    def test_the_sandbox(self):
        server = Server(self.folder, "-m", self.crumb)
        try:
            if "sandbox on" not in server.log:
                self.assertIn("no sandbox (missing: ", server.log)
                self.skipTest("no sandbox on this kernel or in this build")
            with open(f"/proc/{server.process.pid}/status", encoding="ascii") as file:
                status = file.read()
            self.assertIn("NoNewPrivs:\t1", status)
            self.assertIn("Seccomp:\t2", status)
            body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
            self.assertEqual(server.post(CHAT, body)[0], 200)
            self.assertGreater(server.metric("process_resident_memory_bytes"), 0)
            self.assertGreater(server.metric("process_open_fds"), 0)
        finally:
            self.assertEqual(server.stop(), 0)
        server = Server(self.folder, "-m", self.crumb, "--sandbox", "off")
        self.assertIn("sandbox off", server.log)
        self.assertEqual(server.stop(), 0)

    def test_systemd_is_told(self):
        path = self.path("notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(path)
            listener.settimeout(60)
            server = Server(self.folder, "-m", self.crumb, "-q", env={"NOTIFY_SOCKET": path})
            self.assertEqual(listener.recv(100), b"READY=1")
            self.assertEqual(server.get("/health")[0], 200)
            self.assertEqual(server.stop(), 0)

    def test_a_taken_port(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            error = self.expect_error(4, "serve", "-m", self.crumb, "--port", str(taken.getsockname()[1]))
            self.assertIn("cannot listen", error)

    def test_pages_that_may_ask(self):
        server = Server(self.folder, "-m", self.crumb, "--cors-origin", "https://app.example")
        try:
            status, headers, _ = server.request("OPTIONS", CHAT, headers={"Origin": "https://app.example"})
            self.assertEqual((status, headers["access-control-allow-origin"]), (204, "https://app.example"))
            body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
            for stream in (False, True):
                status, headers, _ = server.request("POST", CHAT, dict(body, stream=stream),
                                                    {"Origin": "https://app.example"})
                self.assertEqual((status, headers["access-control-allow-origin"]), (200, "https://app.example"))
            status, headers, _ = server.request("POST", CHAT, body, {"Origin": "https://other.example"})
            self.assertEqual(status, 403)
            self.assertNotIn("access-control-allow-origin", headers)
        finally:
            self.assertEqual(server.stop(), 0)

    def test_few_descriptors(self):
        def limit():
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
        server = Server(self.folder, "-m", self.crumb, "--header-timeout", "1", preexec_fn=limit)
        try:
            many = [server.connect() for _ in range(60)]
            with open(f"/proc/{server.process.pid}/stat", encoding="ascii") as file:
                ticks = sum(map(int, file.read().split()[13:15]))
            time.sleep(1)
            with open(f"/proc/{server.process.pid}/stat", encoding="ascii") as file:
                ticks = sum(map(int, file.read().split()[13:15])) - ticks
            self.assertLess(ticks / os.sysconf("SC_CLK_TCK"), 0.3, "it must not spin")
            for connection in many:
                connection.close()
            self.assertTrue(wait_until(lambda: server.get("/health")[0] == 200))
        finally:
            self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
