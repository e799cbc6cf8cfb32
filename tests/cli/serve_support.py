"""A running `crumb serve` and small clients for it, over plain sockets."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

from support import BINARY, CliTest, clean_environment


class Server:
    """crumb serve on a free port; `log` is what it wrote to stderr so far."""

    def __init__(self, folder, *args, env=None, preexec_fn=None):
        self.process = subprocess.Popen([BINARY, "serve", "--port", "0", *args], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=preexec_fn,
                                        env=clean_environment(folder, **(env or {})))
        self.lines, self.port = [], None
        listening = threading.Event()

        def read():
            for line in self.process.stderr:
                self.lines.append(line.decode(errors="replace"))
                found = re.match(r"listening http://.*:(\d+)$", self.lines[-1].rstrip())
                if found:
                    self.port = int(found[1])
                    listening.set()
            listening.set()

        self.reader = threading.Thread(target=read, daemon=True)
        self.reader.start()
        if not listening.wait(60) or self.port is None:
            self.process.kill()
            raise RuntimeError("the server did not start: " + "".join(self.lines))

    @property
    def log(self):
        return "".join(self.lines)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self.reader.join(10)
        self.process.stderr.close()
        return code

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def request(self, method, path, body=None, headers=None):
        """(status, headers in lower case, bytes)"""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            given = dict(headers or {})
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
            if body is not None and "Content-Type" not in given:
                given["Content-Type"] = "application/json"
            client.request(method, path, body=body, headers={k: v for k, v in given.items() if v is not None})
            answer = client.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            client.close()

    def post(self, path, body, **headers):
        status, _, data = self.request("POST", path, body, headers)
        return status, json.loads(data)

    def get(self, path):
        status, _, data = self.request("GET", path)
        return status, json.loads(data)

    def stream(self, path, body):
        """The JSON of every event; the last is the text [DONE]."""
        status, headers, data = self.request("POST", path, dict(body, stream=True))
        assert status == 200, data
        assert headers["content-type"] == "text/event-stream" and headers["cache-control"] == "no-cache", headers
        events = [e for e in data.decode().split("\n\n") if e and not e.startswith(":")]
        assert all(e.startswith("data: ") for e in events), events
        return [e[6:] if e[6:] == "[DONE]" else json.loads(e[6:]) for e in events]

    def raw(self, data, timeout=20):
        """All that comes back until the server closes, or until `timeout`."""
        with self.connect() as connection:
            connection.settimeout(timeout)
            connection.sendall(data)
            return read_all(connection)

    def metric(self, name):
        text = self.request("GET", "/metrics")[2].decode()
        return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)[1])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def resident(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def read_all(connection):
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except (TimeoutError, ConnectionResetError):
        pass
    return data


def status_of(answer):
    """The status of a raw answer, None if there is none."""
    return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.1 ") else None


def open_stream(server, path, body):
    """A socket on which a stream was asked for and its first bytes have come."""
    connection = server.connect()
    data = json.dumps(dict(body, stream=True)).encode()
    connection.sendall(b"POST " + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                       b"Content-Length: " + str(len(data)).encode() + b"\r\n\r\n" + data)
    return connection


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


class ServeTest(CliTest):
    """One server for the tests of a class; `options` are further arguments."""
    options = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.prepare()
        cls.server = Server(cls.folder, "-m", cls.crumb, *cls.options)

    @classmethod
    def prepare(cls):
        """Before the server starts; may set cls.crumb to another model."""

    @classmethod
    def tearDownClass(cls):
        code = cls.server.stop()
        super().tearDownClass()
        if code != 0:
            raise AssertionError(f"the server ended with {code}: {cls.server.log[-2000:]}")

    def expect_refused(self, status, path, body, param=None, **headers):
        got, answer = self.server.post(path, body, **headers)
        self.assertEqual(got, status, answer)
        error = answer["error"]
        self.assertEqual(sorted(error), ["code", "message", "param", "type"])
        self.assertTrue(error["message"])
        if param is not None:
            self.assertEqual(error["param"], param, error)
        return error
