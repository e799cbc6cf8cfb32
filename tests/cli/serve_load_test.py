"""serve: many at a time: each text as alone, bounded queues, clients that leave, signals."""
import concurrent.futures
import json
import random
import signal
import time
import unittest

from serve_support import ServeTest, Server, open_stream, read_all, wait_until
from support import BINARY, CliTest

COMPLETIONS = "/v1/completions"
LONG = {"prompt": ["a"] * 16, "max_tokens": 1000, "ignore_eos": True}  # far longer than the time between two signals


def body_of(i, tokens=24, **fields):
    """Greedy or sampled, each with a prompt of its own."""
    prompt = [3 + (i * 31 + k * (7 + i % 5)) % 290 for k in range(5 + i * 37 % 150)]
    return {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "temperature": 0 if i % 2 else 1.2, "seed": i,
            **fields}


def text_of(events):
    return "".join(e["choices"][0]["text"] for e in events if e != "[DONE]" and e["choices"])


class Load(ServeTest):
    options = ("-np", "4", "-c", "1024", "--queue", "64")

    def alone(self, body):
        status, answer = self.server.post(COMPLETIONS, dict(body, cache_prompt=False))
        self.assertEqual(status, 200, answer)
        return answer["choices"][0]["text"]

    def idle(self):
        return wait_until(lambda: not any(s["is_processing"] for s in self.server.get("/slots")[1]))

    def test_64_streams_on_4_slots(self):
        want = [self.alone(body_of(i)) for i in range(64)]
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            got = list(pool.map(lambda i: self.server.stream(COMPLETIONS, body_of(i)), range(64)))
        self.assertEqual([text_of(events) for events in got], want)
        self.assertTrue(all(events[-1] == "[DONE]" for events in got))

    def test_a_full_queue(self):
        base = self.server.descriptors()
        # 128 texts each: none ends while they are counted.
        endless = dict(body_of(1, 900), prompt=[[3, 4, 5]] * 128)
        streams = [open_stream(self.server, COMPLETIONS, endless) for _ in range(92)]
        refused = []
        for stream in streams:
            stream.settimeout(0.05)
        # 4 run and 64 wait; the other 24 hear so at once.
        def look():
            for stream in streams:
                if stream in refused:
                    continue
                try:
                    if stream.recv(12) == b"HTTP/1.1 503":
                        refused.append(stream)
                except TimeoutError:
                    pass
            return len(refused) >= 24
        self.assertTrue(wait_until(look))
        self.assertEqual(len(refused), 24)
        self.assertIn(b"retry-after: 1", refused[0].recv(1000))
        self.assertEqual(self.server.get("/health")[0], 200)
        for stream in streams:
            stream.close()
        self.assertTrue(wait_until(lambda: self.server.metric("crumb_requests_in_flight") == 0))
        self.assertEqual(self.server.post(COMPLETIONS, body_of(1, 2))[0], 200)
        self.assertTrue(wait_until(lambda: self.server.descriptors() <= base + 1))

    def test_leaving_at_any_moment(self):
        keeps = body_of(1, 700)
        want = self.alone(keeps)
        base, threads = self.server.descriptors(), self.server.threads()
        chance = random.Random(5)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            neighbour = pool.submit(self.server.stream, COMPLETIONS, keeps)
            for i in range(60):
                # A long prompt or a short one, cut while it is read, written, or waits.
                long = dict(body_of(i, 500), prompt=[3 + (k * k + i) % 290 for k in range(chance.choice((5, 400, 500)))])
                streams = [open_stream(self.server, COMPLETIONS, long) for _ in range(chance.choice((1, 2, 7)))]
                if chance.random() < 0.5:
                    streams[0].recv(1)
                else:
                    time.sleep(chance.random() * 0.02)
                for stream in streams:
                    stream.close()
            self.assertEqual(text_of(neighbour.result()), want)
        self.assertTrue(wait_until(lambda: self.server.metric("crumb_requests_in_flight") == 0))
        self.assertTrue(self.idle())
        self.assertTrue(wait_until(lambda: self.server.descriptors() <= base + 1))
        self.assertEqual(self.server.threads(), threads)

    def test_a_long_prompt_beside_a_stream(self):
        """Steps that read carry the stream's row too: it never waits for a whole prompt."""
        keeps = body_of(3, 400)
        want = self.alone(keeps)
        long = {"prompt": [3 + k * k % 290 for k in range(1000)], "max_tokens": 1, "cache_prompt": False}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            stream = pool.submit(self.server.stream, COMPLETIONS, keeps)
            prompts = [pool.submit(self.server.post, COMPLETIONS, long) for _ in range(3)]
            self.assertEqual(text_of(stream.result()), want)
            self.assertEqual({p.result()[0] for p in prompts}, {200})

    @unittest.skipIf("asan" in BINARY or "tsan" in BINARY, "a sanitizer keeps what is freed")
    def test_memory_stays(self):
        def some(n):
            for i in range(n):
                self.server.post(COMPLETIONS, body_of(i % 7, 1 + i % 8))
        some(300)
        before, descriptors = self.server.resident(), self.server.descriptors()
        some(1200)
        self.assertLessEqual(self.server.resident() - before, 2 << 20)
        self.assertLessEqual(self.server.descriptors(), descriptors + 1)


class Signals(CliTest):
    def start(self, *args):
        return Server(self.folder, "-m", self.crumb, "-np", "2", "-q", *args)

    def open(self, server, body):
        stream = open_stream(server, COMPLETIONS, body)
        self.addCleanup(stream.close)
        return stream

    def test_streams_end_in_peace(self):
        server = self.start()
        want = server.post(COMPLETIONS, body_of(1, 600))[1]["choices"][0]["text"]
        running = [self.open(server, body_of(1, 600)) for _ in range(2)]
        for stream in running:
            stream.recv(1)
        waiting = self.open(server, body_of(2))
        idle = server.connect()
        self.addCleanup(idle.close)
        self.assertTrue(wait_until(lambda: server.metric("crumb_queue_length") == 1))
        server.process.send_signal(signal.SIGTERM)
        self.assertIn(b"503", read_all(waiting)[:20])
        self.assertEqual(read_all(idle), b"", "idle connections are closed")
        for stream in running:
            data = read_all(stream).decode()
            self.assertIn("data: [DONE]", data)
            events = [json.loads(line[6:]) for line in data.splitlines() if line.startswith("data: {")]
            self.assertEqual(text_of(events), want)
        self.assertEqual(server.stop(), 0)
        with self.assertRaises(OSError):
            server.connect()

    def test_the_second_signal_ends_at_once(self):
        server = self.start()
        stream = self.open(server, LONG)
        stream.recv(1)
        for _ in range(2):
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        self.assertEqual(server.stop(), 0)
        data = read_all(stream)
        self.assertIn(b"200 OK", data[:20])
        self.assertNotIn(b"[DONE]", data)

    def test_a_time_for_the_rest(self):
        server = self.start("--shutdown-timeout", "0")
        stream = self.open(server, LONG)
        stream.recv(1)
        server.process.send_signal(signal.SIGINT)
        self.assertEqual(server.stop(), 0)
        data = read_all(stream)
        self.assertIn(b"200 OK", data[:20])
        self.assertNotIn(b"[DONE]", data)

    def test_idle_signals(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            server = self.start()
            server.process.send_signal(signal.SIGHUP)
            self.assertEqual(server.get("/health")[0], 200)
            server.process.send_signal(number)
            self.assertEqual(server.process.wait(20), 0)
            server.stop()


if __name__ == "__main__":
    unittest.main()
