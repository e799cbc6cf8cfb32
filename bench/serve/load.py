#!/usr/bin/env python3
"""A server under load: what every scenario must hold, measured. README.md beside this file says what is asked of each.

usage: load.py --crumb build/release/crumb -m model.crumb [--scale 0.05] [--only soak,loris] [--strict] [-o result.json]

`--scale 1` is the whole of each (about 30 minutes, most of it the soak of 86,400 requests); less shortens the counts,
not what is asked. Bounds on time are printed and kept in the result; they decide the exit code only with --strict,
for they say something on an idle machine only. Exit code 1: something that does not depend on time did not hold.
"""
import argparse
import concurrent.futures
import datetime
import json
import os
import platform
import random
import resource
import selectors
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests", "cli"))

COMPLETIONS = "/v1/completions"


class Result(dict):
    """What a scenario measured. `hold`: must be so anywhere; `bound`: on an idle machine."""

    def __init__(self, **fields):
        super().__init__(fields)
        self["failed"], self["grown"], self["slow"] = [], [], []

    def hold(self, name, value, ok):
        self[name] = value
        if not ok:
            self["failed"].append(name)

    def memory(self, name, value, most):
        """Bytes: must be so but under a sanitizer, which keeps what is freed."""
        self[name], self[name + "_bound"] = value, most
        if value > most:
            self["grown"].append(name)

    def bound(self, name, value, most):
        self[name], self[name + "_bound"] = round(value, 4), most
        if value > most:
            self["slow"].append(name)


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def body_of(i, tokens=24, length=None, **fields):
    """Greedy or sampled, each with a prompt of its own."""
    length = length or 5 + i * 37 % 150
    prompt = [3 + (i * 31 + k * (7 + i % 5)) % 250 for k in range(length)]
    return {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "temperature": 0 if i % 2 else 1.2, "seed": i,
            **fields}


def endless(i):
    """More texts than a test has time for, so that what asked for them is still there when it is counted."""
    one = body_of(i, 1000, length=5)
    return dict(one, prompt=[one["prompt"]] * 128)


def text_of(events):
    return "".join(e["choices"][0]["text"] for e in events if e != "[DONE]" and e["choices"])


class Rest:
    """Descriptors, threads and work that must be back where they were."""

    def __init__(self, server):
        server.post(COMPLETIONS, body_of(0, 2))
        self.server, self.descriptors, self.threads = server, server.descriptors(), server.threads()

    def check(self, result):
        from serve_support import wait_until
        idle = wait_until(lambda: self.server.metric("crumb_requests_in_flight") == 0)
        result.hold("idle_again", idle, idle)
        back = wait_until(lambda: self.server.descriptors() <= self.descriptors + 1)
        result.hold("descriptors_left", self.server.descriptors() - self.descriptors, back)
        threads = self.server.threads() - self.threads
        result.hold("threads_left", threads, threads == 0)


class Keeper:
    """One client over connections that are kept."""

    def __init__(self, server):
        self.server, self.connection = server, None

    def post(self, body):
        self.ask(body)
        return self.answer()

    def ask(self, body):
        data = json.dumps(body).encode()
        head = (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: " + str(len(data)).encode() + b"\r\n\r\n")
        if self.connection is None:
            self.connection = self.server.connect()
        self.connection.sendall(head + data)

    def answer(self):
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.piece()
        head, _, rest = answer.partition(b"\r\n\r\n")
        lower = head.lower()
        length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
        while len(rest) < length:
            rest += self.piece()
        if b"connection: close" in lower:
            self.close()
        return int(head.split(b" ")[1]), rest

    def piece(self):
        data = self.connection.recv(1 << 16)
        if not data:
            raise ConnectionError("the server closed")
        return data

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def first_token(server, body):
    """Seconds until the first byte of a streamed answer's body."""
    from serve_support import open_stream
    start = time.perf_counter()
    with open_stream(server, COMPLETIONS, body) as stream:
        data = b""
        while b"data: " not in data:
            piece = stream.recv(4096)
            if not piece:
                raise ConnectionError("no answer")
            data += piece
        seconds = time.perf_counter() - start
        while b"[DONE]" not in data:
            piece = stream.recv(65536)
            if not piece:
                break
            data = data[-10:] + piece
    return seconds


# ---- scenarios: each gets a server, the scale and a random source

def streams(server, scale, _):
    """64 at a time on 4 slots; 92 at a time where 68 find a place."""
    from serve_support import open_stream, status_of, wait_until
    result, rest = Result(), Rest(server)
    n = 64
    start = time.perf_counter()
    want = [server.post(COMPLETIONS, dict(body_of(i), cache_prompt=False))[1]["choices"][0]["text"] for i in range(n)]
    alone = time.perf_counter() - start
    for _ in range(max(1, round(3 * scale))):
        start = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(n) as pool:
            got = list(pool.map(lambda i: text_of(server.stream(COMPLETIONS, body_of(i))), range(n)))
        result["speed_to_alone"] = round(alone / (time.perf_counter() - start), 3)
        differ = sum(a != b for a, b in zip(want, got))
        result.hold("texts_that_differ", differ, differ == 0)
    admitted = [open_stream(server, COMPLETIONS, endless(i)) for i in range(68)]
    full = wait_until(lambda: server.metric("crumb_requests_in_flight") == 68)
    result.hold("find_a_place", int(server.metric("crumb_requests_in_flight")), full)
    seconds, codes = [], []
    for i in range(68, 92):
        start = time.perf_counter()
        with open_stream(server, COMPLETIONS, endless(i)) as refused:
            head = refused.recv(4096)
        seconds.append(time.perf_counter() - start)
        codes.append((status_of(head), b"\r\nretry-after:" in head))
    still = int(server.metric("crumb_requests_in_flight"))
    for stream in admitted:
        stream.close()
    result.hold("refused_of_92", codes.count((503, True)), codes == [(503, True)] * 24 and still == 68)
    result.bound("refusal_p50_s", statistics.median(seconds), 0.05)
    rest.check(result)
    return result


def take_turns(server, total):
    """8 clients ask for the same again and again, all on this thread: what each got, and the most that one of them
    got while another waited for a single answer."""
    keepers, got, overtaken = [Keeper(server) for _ in range(8)], [0] * 8, 0
    with selectors.DefaultSelector() as selector:

        def ask(i):
            keepers[i].ask(body_of(i, 16, length=20))
            selector.register(keepers[i].connection, selectors.EVENT_READ, (i, list(got)))

        for i in range(8):
            ask(i)
        while sum(got) < total:
            for key, _ in selector.select():
                i, then = key.data
                selector.unregister(key.fileobj)
                status, answer = keepers[i].answer()
                if status != 200:
                    raise RuntimeError(f"{status}: {answer[:200]}")
                got[i] += 1
                overtaken = max(overtaken, *(got[k] - then[k] for k in range(8) if k != i))
                ask(i)
    for keeper in keepers:
        keeper.close()
    return got, overtaken


def fairness(server, scale, _):
    """8 equal clients; a long prompt beside a stream."""
    result, rest = Result(), Rest(server)
    result["answers"], overtaken = take_turns(server, max(200, round(16000 * scale)))
    ratio = min(result["answers"]) / max(result["answers"])
    result.hold("slowest_to_fastest", round(ratio, 3), ratio >= 0.9)
    # One answer that was under way, one of a question that stood before, one that ended in the same step.
    result.hold("most_overtaken", overtaken, overtaken <= 3)
    keeps = body_of(3, 400)
    want = server.post(COMPLETIONS, dict(keeps, cache_prompt=False))[1]["choices"][0]["text"]
    long = {"prompt": [3 + k * k % 250 for k in range(800)], "max_tokens": 1, "cache_prompt": False}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        stream = pool.submit(server.stream, COMPLETIONS, keeps)
        codes = {pool.submit(server.post, COMPLETIONS, long).result()[0] for _ in range(3)}
        same = codes == {200} and text_of(stream.result()) == want
        result.hold("stream_beside_prompts", same, same)
    rest.check(result)
    return result


def leave(server, result, count, chance):
    """Clients that ask and go."""
    from serve_support import open_stream
    while result["left"] < count:
        where = chance.choice(("queued", "read", "written", "done"))
        tokens, length = (2, 5) if where == "done" else (500, 400 if where == "read" else 20)
        body = body_of(result["left"], tokens, length=length, cache_prompt=where != "read")
        leavers = [open_stream(server, COMPLETIONS, body) for _ in range(8 if where == "queued" else 1)]
        if where == "read":
            time.sleep(chance.random() * 0.02)
        elif where == "written":
            leavers[0].recv(1)
            time.sleep(chance.random() * 0.03)
        elif where == "done":
            data = b""
            while b"[DONE]" not in data:
                piece = leavers[0].recv(65536)
                if not piece:
                    raise ConnectionError(f"no whole answer: {data[-300:]}")
                data += piece
        for leaver in leavers:
            leaver.close()
        result["left"] += len(leavers)


def storm(server, scale, chance):
    """Clients leave while they wait, are read, are written to, and behind the last byte."""
    result, rest = Result(left=0, neighbours=0), Rest(server)
    keeps = body_of(1, 700)
    want = server.post(COMPLETIONS, dict(keeps, cache_prompt=False))[1]["choices"][0]["text"]
    ended = threading.Event()

    def neighbour():
        changed = 0
        while not ended.is_set() or not result["neighbours"]:
            changed += text_of(server.stream(COMPLETIONS, keeps)) != want
            result["neighbours"] += 1
        return changed

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        beside = pool.submit(neighbour)
        try:
            leave(server, result, max(40, round(1000 * scale)), chance)
        finally:
            ended.set()
        changed = beside.result()
    result.hold("neighbours_changed", changed, changed == 0)
    rest.check(result)
    return result


def release(server, scale, chance):
    """All slots write; one client leaves; a client that waits gets its first token."""
    from serve_support import open_stream
    idle = statistics.median(first_token(server, body_of(9, 1, length=10, cache_prompt=False)) for _ in range(9))
    result, freed, rest = Result(idle_first_token_s=round(idle, 4)), [], Rest(server)
    slots, wanted, tries = len(server.get("/slots")[1]), max(10, round(100 * scale)), 0
    while len(freed) < wanted and tries < 20 * wanted:
        busy = [open_stream(server, COMPLETIONS, body_of(tries * 7 + k, 8000, length=20)) for k in range(slots)]
        for stream in busy:
            stream.recv(1)
        probe = open_stream(server, COMPLETIONS, body_of(tries, 1, length=10, cache_prompt=False))
        time.sleep(0.02 + 0.02 * chance.random())
        probe.setblocking(False)
        try:
            void = bool(probe.recv(1))  # one of the texts had ended already
        except BlockingIOError:
            void = False
        probe.settimeout(60)
        start = time.perf_counter()
        busy[tries % slots].close()
        if not void and probe.recv(1):
            freed.append(time.perf_counter() - start)
        for stream in busy + [probe]:
            stream.close()
        tries += 1
    result["tries"] = tries
    result.hold("measured", len(freed), len(freed) == wanted)
    if freed:
        result["freed_p50_s"] = round(statistics.median(freed), 4)
        result["freed_max_s"] = round(max(freed), 4)
        result.bound("freed_p95_s", quantile(freed, 0.95), round(0.25 + 3 * idle, 4))
    rest.check(result)
    return result


def loris(server, scale, _):
    """200 heads that come a byte in five seconds, and one good client."""
    result, rest = Result(), Rest(server)
    good = body_of(5, 2, length=10)

    def after_a_pause():
        time.sleep(0.05)
        return first_token(server, good)

    alone = statistics.median(after_a_pause() for _ in range(15))
    memory, n = server.resident(), 200
    slow = [server.connect() for _ in range(n)]
    start = time.perf_counter()
    for connection in slow:
        connection.sendall(b"G")
        connection.setblocking(False)
    beside, open_ = [], set(range(n))
    closed_after = 0.0
    while time.perf_counter() - start < 60 and open_:
        beside.append(after_a_pause())
        for i in list(open_):
            try:
                answer = slow[i].recv(4096)
                if answer == b"":
                    open_.discard(i)
                    closed_after = time.perf_counter() - start
            except BlockingIOError:
                pass
            except OSError:
                open_.discard(i)
        if len(beside) % 25 == 0:
            for i in open_:
                try:
                    slow[i].send(b"E")
                except OSError:
                    pass
    result.hold("left_open", len(open_), not open_)
    result.memory("memory_grown", server.resident() - memory, 16 << 20)
    result.bound("closed_after_s", closed_after, 15)
    result["first_token_alone_s"] = round(alone, 4)
    result.bound("first_token_ratio", statistics.median(beside) / alone, 1.5)
    for connection in slow:
        connection.close()
    rest.check(result)
    return result


def soak(server, scale, _):
    """86,400 requests of 1 to 8 tokens by four clients: a day of one a second."""
    n, clients = max(1000, round(86400 * scale)), 4
    names = ("crumb_generated_tokens_total", "crumb_prompt_tokens_total", "crumb_prompt_tokens_cached_total")
    result, rest = Result(requests=n), Rest(server)
    before = [server.metric(name) for name in names]
    times, sums, lock, memory = [0.0] * n, [0, 0], threading.Lock(), [0]
    counter = iter(range(n))

    def client():
        keeper = Keeper(server)
        while True:
            with lock:
                i = next(counter, None)
            if i is None:
                break
            start = time.perf_counter()
            status, answer = keeper.post(body_of(i, 1 + i % 8, length=4 + i % 13))
            times[i] = time.perf_counter() - start
            if status != 200:
                raise RuntimeError(f"{status}: {answer[:200]}")
            with lock:
                sums[0] += 1 + i % 8
                sums[1] += 4 + i % 13
            if i == n // 20:
                memory[0] = server.resident()
        keeper.close()

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        for future in [pool.submit(client) for _ in range(clients)]:
            future.result()
    seconds = time.perf_counter() - start
    result["requests_a_second"] = round(n / seconds, 1)
    result.bound("whole_day_s", seconds / n * 86400, 1200)
    drift = server.resident() - memory[0]
    result.memory("memory_drift", drift, 2 << 20)
    tenth = max(1, n // 10)
    result["p99_s"] = [round(quantile(times[:tenth], 0.99), 4), round(quantile(times[-tenth:], 0.99), 4)]
    result.bound("p99_last_to_first", result["p99_s"][1] / result["p99_s"][0], 1.2)
    generated, read, cached = (server.metric(name) - b for name, b in zip(names, before))
    result.hold("counters_exact", [generated, read + cached], generated == sums[0] and read + cached == sums[1])
    rest.check(result)
    return result


def memory(server, scale, _):
    """No more memory is to be had: requests are answered, the server lives on."""
    result, codes = Result(), {}
    with open(f"/proc/{server.process.pid}/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    texts = [{"prompt": "ab " * 250000, "max_tokens": 1},
             {"messages": [{"role": "user", "content": "x " * 400} for _ in range(1000)]},
             body_of(1, 4)]
    for room in (0, 1 << 20, 4 << 20, 16 << 20):
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (size + room, resource.RLIM_INFINITY))
        for i in range(max(6, round(60 * scale))):
            body = texts[i % 3]
            try:
                status, _ = server.post("/v1/chat/completions" if "messages" in body else COMPLETIONS, body)
            except OSError:
                status = "closed"  # no memory for as much as an answer
            except ValueError as error:
                status = type(error).__name__
            codes[str(status)] = codes.get(str(status), 0) + 1
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    result["codes"] = codes
    alive = server.process.poll() is None
    result.hold("alive", alive, alive)
    if alive:
        status = server.post(COMPLETIONS, body_of(2, 4))[0]
        result.hold("serves_again", status, status == 200)
    odd = [c for c in codes if c not in ("200", "400", "503", "closed")]
    result.hold("other_answers", odd, not odd)
    result.hold("said_so", codes.get("503", 0), codes.get("503", 0) > 0)
    return result


def restarts(start_server, scale, _):
    """Start, serve, stop: by both signals, idle and at work."""
    import signal
    from serve_support import open_stream
    result, ready = Result(), []
    for i in range(max(4, round(20 * scale))):
        begin = time.perf_counter()
        server = start_server()
        ready.append(time.perf_counter() - begin)
        busy = open_stream(server, COMPLETIONS, body_of(i, 40)) if i % 2 else None
        if busy:
            busy.recv(1)
        server.process.send_signal(signal.SIGINT if i % 4 > 1 else signal.SIGTERM)
        code = server.process.wait(40)
        if busy:
            data = b""
            while piece := busy.recv(65536):
                data += piece
            busy.close()
            if b"[DONE]" not in data:
                result["failed"].append("stream cut")
        if code != 0:
            result["failed"].append(f"exit code {code}")
        server.stop()
    result["starts"] = len(ready)
    result.bound("ready_p50_s", statistics.median(ready), 0.5)
    return result


SCENARIOS = {f.__name__: f for f in (streams, fairness, storm, release, loris, soak, memory, restarts)}
CONTEXTS = {release: "8192"}  # texts that last


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.machine(), "cores": len(os.sched_getaffinity(0)),
            "system": platform.release(), "load_before": round(os.getloadavg()[0], 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--crumb", default=os.environ.get("CRUMB_BINARY"), help="the binary (or CRUMB_BINARY)")
    parser.add_argument("-m", "--model", help="a small model: the protocol is what is loaded")
    parser.add_argument("--make-model", help="or the program make_tiny, which makes one")
    parser.add_argument("--scale", type=float, default=1.0, help="of the counts (1)")
    parser.add_argument("-t", "--threads", type=int, default=1, help="of the engine (1: the model is small)")
    parser.add_argument("--only", default=",".join(SCENARIOS), help="scenarios, by comma")
    parser.add_argument("--strict", action="store_true", help="bounds on time decide too")
    parser.add_argument("--sanitized", action="store_true", help="memory is not judged: what is freed is kept")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("-o", "--output", help="the result as JSON")
    given = parser.parse_args()
    if bool(given.model) == bool(given.make_model):
        parser.error("either --model or --make-model is needed")
    os.environ["CRUMB_BINARY"] = os.path.abspath(given.crumb)
    os.environ.setdefault("CRUMB_MAKE_TINY", "")
    from serve_support import Server

    result = {"schema": "crumb.serve-load/1", "date": datetime.date.today().isoformat(), "machine": machine(),
              "model": os.path.basename(given.model or "tiny.gguf"), "scale": given.scale, "scenarios": {}}
    failed, slow = [], []
    with tempfile.TemporaryDirectory(prefix="crumb-load-") as folder:
        model = given.model
        if given.make_model:
            model = os.path.join(folder, "tiny.gguf")
            subprocess.run([given.make_model, model, "2", "64", "8192"], check=True)

        def start_server(context="1024"):
            return Server(folder, "-m", model, "-np", "4", "-c", context, "-q", "--queue", "64", "-t",
                          str(given.threads))

        for name in given.only.split(","):
            run, begin, chance = SCENARIOS[name], time.perf_counter(), random.Random(given.seed)
            if run is restarts:
                out = run(start_server, given.scale, chance)
            else:
                server = start_server(CONTEXTS.get(run, "1024"))
                out = run(server, given.scale, chance)
                code = server.stop()
                if code != 0:
                    out["failed"].append(f"exit code {code}")
            out["seconds"] = round(time.perf_counter() - begin, 1)
            result["scenarios"][name] = out
            failed += [f"{name}: {what}" for what in out["failed"] + ([] if given.sanitized else out["grown"])]
            slow += [f"{name}: {what}" for what in out["slow"]]
            print(f"{name}: {json.dumps(out)}", flush=True)
    if given.output:
        with open(given.output, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.write("\n")
    for line in failed:
        print("failed: " + line)
    for line in slow:
        print("beyond its bound: " + line)
    sys.exit(1 if failed or (given.strict and slow) else 0)


if __name__ == "__main__":
    main()
