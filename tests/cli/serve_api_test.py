"""serve: what the endpoints answer."""
import base64
import json
import re
import struct
import unittest

from serve_support import ServeTest

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def user(text):
    return [{"role": "user", "content": text}]


class Api(ServeTest):
    options = ("-np", "3", "-c", "512")

    def chat(self, **fields):
        body = {"messages": user("Say something"), "max_tokens": 20, "temperature": 0, "ignore_eos": True, **fields}
        status, answer = self.server.post(CHAT, body)
        self.assertEqual(status, 200, answer)
        return answer

    def complete(self, prompt, **fields):
        body = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True, **fields}
        status, answer = self.server.post(COMPLETIONS, body)
        self.assertEqual(status, 200, answer)
        return answer

    def test_chat_is_what_run_says(self):
        answer = self.chat()
        text = self.json_of("run", "Say something", "-m", self.crumb, "-n", "20", "--temp", "0", "--ignore-eos",
                            "--json")["text"]
        self.assertEqual(answer["choices"][0]["message"], {"role": "assistant", "content": text, "refusal": None})
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")
        self.assertEqual(answer["object"], "chat.completion")
        self.assertEqual(answer["model"], "tiny")
        self.assertEqual(answer["usage"]["completion_tokens"], 20)
        self.assertEqual(answer["usage"]["total_tokens"], answer["usage"]["prompt_tokens"] + 20)
        self.assertEqual(answer["timings"]["predicted_n"], 20)
        self.assertEqual([self.chat()["choices"][0]["message"]["content"] for _ in range(4)], [text] * 4)

    def test_seeds(self):
        def text(**fields):
            return self.chat(temperature=1.5, top_k=0, min_p=0, **fields)["choices"][0]["message"]["content"]
        self.assertEqual(text(seed=7), text(seed=7))
        self.assertNotEqual(text(seed=7), text(seed=8))
        drawn = self.chat(temperature=1.5)
        again = self.chat(temperature=1.5, seed=drawn["x_crumb"]["seed"])
        self.assertEqual(drawn["choices"], again["choices"])

    def test_choices(self):
        many = self.chat(n=3, temperature=1.5, seed=4)
        self.assertEqual([c["index"] for c in many["choices"]], [0, 1, 2])
        for i, choice in enumerate(many["choices"]):
            self.assertEqual(choice["message"], self.chat(temperature=1.5, seed=4 + i)["choices"][0]["message"])
        self.assertEqual(many["usage"]["completion_tokens"], 60)
        self.assertEqual(many["usage"]["prompt_tokens"], self.chat()["usage"]["prompt_tokens"])

    def test_stream_is_the_whole(self):
        whole = self.chat(n=2, temperature=1.2, seed=3, logprobs=True, top_logprobs=2)
        events = self.server.stream(CHAT, {
            "messages": user("Say something"), "max_tokens": 20, "temperature": 1.2, "seed": 3, "n": 2,
            "ignore_eos": True, "logprobs": True, "top_logprobs": 2, "stream_options": {"include_usage": True}})
        self.assertEqual(events.pop(), "[DONE]")
        usage = events.pop()
        self.assertEqual(usage["choices"], [])
        self.assertEqual(usage["usage"]["completion_tokens"], 40)
        self.assertEqual(len({e["id"] for e in events}), 1)
        for event in events:
            self.assertEqual(event["object"], "chat.completion.chunk")
            self.assertIsNone(event["usage"])
        for index in (0, 1):
            chunks = [e["choices"][0] for e in events if e["choices"][0]["index"] == index]
            self.assertEqual(chunks[0]["delta"], {"role": "assistant", "content": ""})
            self.assertEqual(chunks[-1]["delta"], {})
            self.assertEqual([c["finish_reason"] for c in chunks], [None] * (len(chunks) - 1) + ["length"])
            self.assertEqual("".join(c["delta"].get("content", "") for c in chunks),
                             whole["choices"][index]["message"]["content"])
            entries = [e for c in chunks if c["logprobs"] for e in c["logprobs"]["content"]]
            self.assertEqual(entries, whole["choices"][index]["logprobs"]["content"])
        plain = self.server.stream(CHAT, {"messages": user("x"), "max_tokens": 2})
        self.assertNotIn("usage", plain[0])

    def test_stop_texts(self):
        text = self.complete("abc", max_tokens=40)["choices"][0]["text"]
        stop = next(text[i:i + 2] for i in range(3, len(text) - 1) if "\0" not in text[i:i + 2])
        cut = self.complete("abc", max_tokens=40, stop=["never seen", stop])["choices"][0]
        self.assertEqual(cut["text"], text[:text.index(stop)])
        self.assertEqual(cut["finish_reason"], "stop")
        events = self.server.stream(COMPLETIONS, {"prompt": "abc", "max_tokens": 40, "temperature": 0,
                                                  "ignore_eos": True, "stop": stop})
        self.assertEqual("".join(e["choices"][0]["text"] for e in events[:-1]), cut["text"])

    def test_chat_logprobs(self):
        answer = self.chat(logprobs=True, top_logprobs=5)["choices"][0]
        entries = answer["logprobs"]["content"]
        self.assertEqual(len(entries), 20)
        for entry in entries:
            self.assertEqual(entry["top_logprobs"][0]["logprob"], entry["logprob"], "greedy: the same bits")
            self.assertEqual(len(entry["top_logprobs"]), 5)
            self.assertEqual(bytes(entry["bytes"]).decode(errors="replace"), entry["token"])
        joined = b"".join(bytes(e["bytes"]) for e in entries).decode(errors="replace")
        self.assertEqual(joined, answer["message"]["content"])

    def test_echo_and_logprobs_as_the_harness_reads_them(self):
        ids = [10, 20, 30, 40, 50]
        body = {"model": "x", "prompt": [ids, ids[:2]], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234,
                "echo": True}
        status, answer = self.server.post(COMPLETIONS, body)
        self.assertEqual(status, 200, answer)
        for choice, prompt in zip(answer["choices"], (ids, ids[:2])):
            logprobs = choice["logprobs"]
            for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                self.assertEqual(len(logprobs[name]), len(prompt) + 1)
            self.assertIsNone(logprobs["token_logprobs"][0])
            self.assertIsNone(logprobs["top_logprobs"][0])
            self.assertEqual(logprobs["token_logprobs"][-1], max(logprobs["top_logprobs"][-1].values()))
            for token, logprob, top in list(zip(logprobs["tokens"], logprobs["token_logprobs"],
                                                logprobs["top_logprobs"]))[1:]:
                self.assertEqual(top[token], logprob)
        # A prefix gives the same numbers, in a batch or alone.
        alone = self.complete(ids, max_tokens=1, logprobs=1, echo=True)["choices"][0]
        self.assertEqual(alone["logprobs"], answer["choices"][0]["logprobs"])
        self.assertEqual(answer["choices"][1]["logprobs"]["token_logprobs"][:2],
                         alone["logprobs"]["token_logprobs"][:2])

    def test_logprobs_are_those_of_eval(self):
        texts = [[3 + (i * 17 + k * k * 5) % 290 for k in range(2 + 31 * i)] for i in range(6)]
        given = self.write("ids.jsonl", "".join(json.dumps({"id": str(i), "ids": ids}) + "\n" for i, ids in enumerate(texts)))
        self.expect(0, "eval", "logprobs", "-m", self.crumb, "--input", given, "-o", self.path("logprobs.jsonl"), "-q")
        with open(self.path("logprobs.jsonl"), encoding="utf-8") as file:
            want = [json.loads(line)["log_p"] for line in file]
        answer = self.complete(texts, max_tokens=1, logprobs=1, echo=True)
        for choice, expected in zip(answer["choices"], want):
            got = choice["logprobs"]["token_logprobs"][1:-1]
            self.assertEqual(len(got), len(expected))
            for a, b in zip(got, expected):
                self.assertAlmostEqual(a, b, delta=1e-5)

    def test_echoed_text_and_offsets(self):
        choice = self.complete("ab cd é", max_tokens=3, logprobs=0, echo=True)["choices"][0]
        self.assertTrue(choice["text"].startswith("ab cd é"))
        self.assertEqual(choice["text"], "ab cd é" + self.complete("ab cd é", max_tokens=3)["choices"][0]["text"])
        offsets = choice["logprobs"]["text_offset"]
        self.assertEqual(offsets[0], 0)
        self.assertEqual(offsets, sorted(offsets))
        nothing = self.complete("ab cd", max_tokens=0, logprobs=1, echo=True)["choices"][0]
        self.assertEqual(nothing["text"], "ab cd")
        self.assertEqual(nothing["finish_reason"], "length")
        self.assertEqual(self.complete("ab", max_tokens=0)["choices"][0]["text"], "")

    def test_batches_of_prompts(self):
        answer = self.complete(["ab", "cd"], n=2, temperature=1.2, seed=1)
        self.assertEqual([c["index"] for c in answer["choices"]], [0, 1, 2, 3])
        for index, (prompt, seed) in enumerate((("ab", 1), ("ab", 2), ("cd", 1), ("cd", 2))):
            alone = self.complete(prompt, temperature=1.2, seed=seed)
            self.assertEqual(answer["choices"][index]["text"], alone["choices"][0]["text"])

    def test_biases(self):
        ids = self.server.post("/tokenize", {"content": "e"})[1]["tokens"]
        answer = self.complete("abc", logit_bias={str(ids[0]): 100}, max_tokens=5)
        self.assertEqual(answer["choices"][0]["text"], "eeeee")

    def test_the_context_ends_an_answer(self):
        answer = self.chat(max_tokens=None)
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")
        self.assertEqual(answer["usage"]["total_tokens"], 513, "the last token is not read")
        error = self.expect_refused(400, COMPLETIONS, {"prompt": "xy" * 400}, "prompt")
        self.assertEqual(error["code"], "context_length_exceeded")
        self.assertIn("512", error["message"])
        self.assertIn("800", error["message"])

    def test_a_cached_prefix(self):
        prompt = [3 + i * 7 % 290 for i in range(300)]
        cold = self.complete(prompt, cache_prompt=False)
        self.complete(prompt)
        warm = self.complete(prompt)
        self.assertEqual(cold["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
        self.assertEqual(warm["usage"]["prompt_tokens_details"]["cached_tokens"], 299)
        self.assertEqual(warm["choices"], cold["choices"])

    def test_embeddings(self):
        status, both = self.server.post("/v1/embeddings", {"input": ["ab cd", "ef"]})
        self.assertEqual(status, 200, both)
        self.assertEqual([d["index"] for d in both["data"]], [0, 1])
        vector = both["data"][0]["embedding"]
        self.assertEqual(len(vector), 64)
        self.assertAlmostEqual(sum(x * x for x in vector), 1, places=5)
        packed = self.server.post("/v1/embeddings", {"input": "ab cd", "encoding_format": "base64"})[1]
        raw = base64.b64decode(packed["data"][0]["embedding"])
        self.assertEqual(list(struct.unpack("<64f", raw)), [struct.unpack("<f", struct.pack("<f", x))[0] for x in vector])
        self.assertNotEqual(vector, both["data"][1]["embedding"])
        self.expect_refused(400, "/v1/embeddings", {"input": []}, "input")
        self.expect_refused(400, "/v1/embeddings", {"input": "a", "dimensions": 5}, "dimensions")

    def test_tokenizers_two_dialects(self):
        text = "ab <|im_end|> é"
        llama = self.server.post("/tokenize", {"content": text})[1]["tokens"]
        vllm = self.server.post("/tokenize", {"prompt": text, "add_special_tokens": False})[1]
        self.assertEqual(llama, vllm["tokens"])
        self.assertEqual(vllm["count"], len(llama))
        plain = self.server.post("/tokenize", {"content": text, "parse_special": False})[1]["tokens"]
        self.assertGreaterEqual(len(plain), len(llama) + 3, "plain text")
        pieces = self.server.post("/tokenize", {"content": "ab", "with_pieces": True})[1]["tokens"]
        self.assertEqual("".join(p["piece"] for p in pieces), "ab")
        for ids in (llama, plain):
            back = self.server.post("/detokenize", {"tokens": ids})[1]
            self.assertEqual(back, {"content": text, "prompt": text})
        info = self.server.get("/tokenizer_info")[1]
        for name in ("eos_token", "bos_token", "pad_token", "chat_template"):
            self.assertIn(name, info)
        self.expect_refused(400, "/tokenize", {}, "content")
        self.expect_refused(400, "/tokenize", {"content": "a", "prompt": "a"}, "content")
        self.expect_refused(400, "/detokenize", {"tokens": [300]}, "tokens[0]")

    def test_control_tokens_are_text_in_a_chat(self):
        def count(text):
            return self.chat(messages=user(text), max_tokens=1)["usage"]["prompt_tokens"]
        self.assertGreaterEqual(count("a<|im_end|>") - count("a"), 3)
        self.expect_refused(400, CHAT, {"messages": [{"role": "user<|im_end|>", "content": "x"}]}, "messages[0].role")

    def test_what_it_says_of_itself(self):
        models = self.server.get("/v1/models")[1]["data"]
        self.assertEqual([m["id"] for m in models], ["tiny"])
        self.assertEqual(models[0]["meta"]["n_ctx"], 512)
        self.assertEqual(self.server.get("/v1/models/tiny"), (200, models[0]))
        self.assertEqual(self.server.get("/v1/models/other")[0], 404)
        self.assertEqual(self.server.get("/health"), (200, {"status": "ok"}))
        self.assertEqual(self.server.get("/props")[1]["total_slots"], 3)
        self.assertNotIn(self.folder, json.dumps(self.server.get("/props")[1]), "no path of this machine")
        slots = self.server.get("/slots")[1]
        self.assertEqual([s["id"] for s in slots], [0, 1, 2])
        document = self.server.get("/openapi.json")[1]
        for path, verbs in document["paths"].items():
            if "get" in verbs and "{" not in path:
                self.assertEqual(self.server.request("GET", path)[0], 200, path)

    def test_metrics_are_exact(self):
        names = ["crumb_generated_tokens_total", "crumb_prompt_tokens_total", "crumb_prompt_tokens_cached_total",
                 "crumb_time_to_first_token_seconds_count", "crumb_inter_token_seconds_count"]
        before = [self.server.metric(n) for n in names]
        usages = [self.complete([5, 6, 7, 8, 9], max_tokens=9)["usage"] for _ in range(3)]
        after = [self.server.metric(n) for n in names]
        change = dict(zip(names, (b - a for a, b in zip(before, after))))
        cached = sum(u["prompt_tokens_details"]["cached_tokens"] for u in usages)
        self.assertEqual(list(change.values()), [27, 15 - cached, cached, 3, 24])
        text = self.server.request("GET", "/metrics")[2].decode()
        for line in text.splitlines():
            self.assertRegex(line, r'^(# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [-+.\de]+|\w+_bucket\{le="\+Inf"\} \d+)$')
        self.assertEqual(len(re.findall(r"^# TYPE \w+ histogram$", text, re.M)), 3)

    SCHEMA = {"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3}},
        "required": ["name", "age", "tags"], "additionalProperties": False}

    def formatted(self, schema, **fields):
        kind = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
        return self.chat(response_format=kind if schema is not None else {"type": "json_object"}, **fields)["choices"][0]

    def test_answers_held_to_a_schema(self):
        for seed in range(8):
            choice = self.formatted(self.SCHEMA, temperature=2, top_k=0, min_p=0, top_p=1, seed=seed, max_tokens=80)
            self.assertEqual(choice["finish_reason"], "stop")
            value = json.loads(choice["message"]["content"])
            self.assertEqual(list(value), ["name", "age", "tags"])
            self.assertTrue(isinstance(value["name"], str) and len(value["name"]) <= 8)
            self.assertTrue(isinstance(value["age"], int) and 0 <= value["age"] <= 150)
            self.assertTrue(1 <= len(value["tags"]) <= 3 and set(value["tags"]) <= {"a", "b"})
        # Within the fewest tokens, and cut nowhere.
        self.assertIsInstance(json.loads(self.formatted(self.SCHEMA, max_tokens=33)["message"]["content"]), dict)
        for seed in range(5):
            value = json.loads(self.formatted(None, temperature=2, seed=seed, max_tokens=60)["message"]["content"])
            self.assertIsInstance(value, dict)
        text = self.complete("abc", response_format={"type": "json_object"}, max_tokens=40)["choices"][0]["text"]
        self.assertIsInstance(json.loads(text), dict)

    def test_a_streamed_schema_is_the_same(self):
        fields = {"temperature": 1.5, "seed": 3, "max_tokens": 80}
        whole = self.formatted(self.SCHEMA, **fields)["message"]["content"]
        events = self.server.stream(CHAT, {"messages": user("Say something"), "ignore_eos": True, **fields,
                                           "response_format": {"type": "json_schema", "json_schema": {"schema": self.SCHEMA}}})
        self.assertEqual("".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1]), whole)

    def test_schemas_that_cannot_be_kept_to(self):
        for schema, pointer in (({"type": "string", "pattern": "(?=a)"}, "/pattern"), ({"$ref": "#"}, "''"),
                                ({"type": "object", "properties": {"a": {"not": {}}}}, "/properties/a/not")):
            kind = {"type": "json_schema", "json_schema": {"schema": schema}}
            error = self.expect_refused(400, CHAT, {"messages": user("x"), "response_format": kind},
                                        "response_format.json_schema.schema")
            self.assertIn(pointer, error["message"])
        kind = {"type": "json_schema", "json_schema": {"schema": self.SCHEMA}}
        self.expect_refused(400, CHAT, {"messages": user("x"), "response_format": kind, "max_tokens": 20}, "max_tokens")

    def test_refusals(self):
        good = {"messages": user("x"), "max_tokens": 1}
        for fields, param in (({"temperature": -1}, "temperature"), ({"messages": []}, "messages"),
                              ({"n": 4}, "n"), ({"max_tokens": 2.5}, "max_tokens"),
                              ({"logit_bias": {"99999": 1}}, "logit_bias.99999")):
            self.expect_refused(400, CHAT, {**good, **fields}, param)
        for data in (b"", b"{", b"\xff", b'{"a":1e400}', b"[" * 100000, b'{"messages":[{"role":"user","content":"\\ud800"}]}'):
            self.expect_refused(400, CHAT, data)
        keys = b"{" + b",".join(b'"k%d":%d' % (i, i) for i in range(50000)) + b"}"
        self.expect_refused(400, CHAT, keys)
        # A body at the limit, nothing but text: refused for its length in tokens.
        for text in ("A" * 1000000, "\U0001F600" * 200000, " " * 1000000):
            body = json.dumps({"messages": user(text)}, ensure_ascii=False).encode()
            self.expect_refused(400, CHAT, body, "messages")
        self.assertEqual(self.server.get("/health")[0], 200)

    def test_no_prompt_in_the_log(self):
        self.chat(messages=user("xylophone-7"))
        self.expect_refused(400, CHAT, b'{"xylophone-7')
        self.server.request("GET", "/none\x1b?xylophone-7".replace("\x1b", "%1b"))
        self.assertIn("/v1/chat/completions 200", self.server.log)
        self.assertNotIn("xylophone", self.server.log)


if __name__ == "__main__":
    unittest.main()
