"""run, and chat without a terminal: what goes where, seeds, commands, closed and full outputs."""
import json
import os
import subprocess
import unittest

from support import BINARY, CliTest, clean_environment


class Talk(CliTest):
    def test_only_the_answer_on_stdout(self):
        args = ["run", "Say something", "-m", self.crumb, "-s", "7", "-n", "20", "--ignore-eos"]
        answer = self.json_of(*args, "--json")
        done = self.expect(0, *args)
        self.assertEqual(done.stdout.decode().rstrip("\n"), answer["text"].rstrip("\n"))
        self.assertIn("seed 7", done.stderr.decode())
        self.assertEqual(self.expect(0, *args, "-q").stderr, b"")
        self.assertEqual(answer["finish_reason"], "length")
        self.assertEqual(len(answer["ids"]), 20)

    def test_same_seed_same_text(self):
        args = ["run", "Say something", "-m", self.crumb, "-n", "24", "--temp", "1.2", "--json", "--ignore-eos"]
        first = self.json_of(*args, "-s", "11")
        self.assertEqual(first["ids"], self.json_of(*args, "-s", "11")["ids"])
        self.assertEqual(first["ids"], self.json_of(*args, "-s", "11", "-t", "1", "--no-pin", "--mmap")["ids"])
        self.assertNotEqual(first["ids"], self.json_of(*args, "-s", "12")["ids"])
        drawn = self.json_of(*args)
        self.assertEqual(drawn["ids"], self.json_of(*args, "-s", str(drawn["seed"]))["ids"])

    def test_prompt_from_everywhere(self):
        options = ["-m", self.crumb, "-s", "1", "-n", "8", "--json"]
        given = self.json_of("run", "abc", *options)["ids"]
        self.assertEqual(given, self.json_of("run", *options, stdin=b"abc\n")["ids"])
        self.assertEqual(given, self.json_of("run", "-f", self.write("prompt", "abc\n"), *options)["ids"])
        self.assertEqual(given, self.json_of("run", *options, "--", "abc")["ids"])
        self.assertTrue(self.json_of("run", *options, "--", "--abc")["ids"])
        self.assertNotEqual(given, self.json_of("run", "abc", "--raw", *options)["ids"])
        self.assertNotEqual(given, self.json_of("run", "abc", "-sys", "xyz", *options)["ids"])
        self.assertTrue(self.json_of("run", "abc", "-m", self.crumb, "-c", "64", "-n", "-1", "--repeat-last-n", "-1",
                                     "--json")["ids"])
        self.expect_error(2, "run", "-m", self.crumb)

    def test_stop_text(self):
        args = ["run", "abc", "-m", self.crumb, "-s", "3", "-n", "40", "--temp", "0", "--json", "--ignore-eos", "--raw"]
        text = self.json_of(*args)["text"]
        stop = next(text[i:i + 2] for i in range(3, len(text) - 1) if "\0" not in text[i:i + 2])
        cut = self.json_of(*args, "--stop", stop, "--stop", "never seen")
        self.assertEqual(cut["text"], text[:text.index(stop)])
        self.assertEqual(cut["finish_reason"], "stop")

    def test_answers_held_to_a_schema(self):
        schema = json.dumps({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
                             "required": ["n"]})
        args = ["run", "abc", "-m", self.crumb, "--temp", "2", "-n", "40"]
        for given in (["-j", schema], ["-jf", self.write("schema.json", schema)], ["-j", schema, "--raw"]):
            value = json.loads(self.expect(0, *args, *given, "-s", "3").stdout)
            self.assertEqual(list(value), ["n"])
            self.assertIn(value["n"], range(10))
        self.assertIn("/format", self.expect_error(2, *args, "-j", '{"type":"string","format":"regex"}'))
        self.expect_error(2, *args, "-j", "{")
        self.assertIn("at least", self.expect_error(5, "run", "abc", "-m", self.crumb, "-n", "3", "-j", schema))

    def test_context_overflow_is_an_error(self):
        error = self.expect_error(5, "run", "word " * 300, "-m", self.crumb, "-c", "64", "-q")
        self.assertIn("64", error)

    def test_full_and_closed_outputs(self):
        args = [BINARY, "run", "hi", "-m", self.crumb, "-n", "8", "--ignore-eos"]
        with open("/dev/full", "wb") as full:
            done = self.expect(4, *args[1:], stdout=full)
        self.assertIn(b"crumb: error: cannot write", done.stderr)
        env = clean_environment(self.folder)
        closed = subprocess.run(["sh", "-c", 'exec "$0" "$@" >&-', *args], stderr=subprocess.PIPE, env=env, timeout=60)
        self.assertEqual(closed.returncode, 4)
        self.assertIn(b"crumb: error: cannot write", closed.stderr)
        reader, writer = os.pipe()
        os.close(reader)
        broken = subprocess.run(args + ["-q"], stdout=writer, stderr=subprocess.PIPE, env=env, timeout=60)
        os.close(writer)
        self.assertNotEqual(broken.returncode, 0)
        self.assertEqual(broken.stderr, b"")

    def chat(self, text, *args, code=0):
        return self.expect(code, "chat", "-m", self.crumb, "-n", "8", "--temp", "0", "--ignore-eos", *args,
                           stdin=text.encode())

    def test_chat_by_lines(self):
        saved = self.path("saved.json")
        self.chat(f'/system be brief\nfirst\n"""two\nlines"""\nlong \\\nline\n//slash\n/undo\n/save {saved}\n')
        with open(saved, encoding="utf-8") as file:
            messages = json.load(file)["messages"]
        self.assertEqual([m["role"] for m in messages], ["system"] + ["user", "assistant"] * 3)
        self.assertEqual([m["content"] for m in messages if m["role"] == "user"], ["first", "two\nlines", "long \nline"])
        # A saved conversation goes on exactly as the living one did.
        more = self.path("more.json")
        self.chat(f"/load {saved}\nnext\n/save {more}\n")
        living = self.path("living.json")
        self.chat(f'/system be brief\nfirst\n"""two\nlines"""\nlong \\\nline\nnext\n/save {living}\n')
        with open(more, encoding="utf-8") as a, open(living, encoding="utf-8") as b:
            self.assertEqual(json.load(a), json.load(b))

    def test_chat_output(self):
        done = self.chat("hello\n")
        self.assertEqual(done.stdout.count(b"\n"), done.stdout.rstrip(b"\n").count(b"\n") + 1)
        stderr = done.stderr.decode()
        self.assertIn("/help for commands", stderr)
        self.assertRegex(stderr, r"\[8 tok · first [\d.]+ s · [\d.]+ tok/s · ctx \d+/1024 · seed \d+ · cut at the token limit\]")
        self.assertNotIn("\033", stderr)
        self.assertEqual(self.chat("hello\n", "-q").stderr, b"")
        self.assertIn(b"\033[2m", self.chat("hello\n", "--color", "on").stderr)

    def test_chat_commands_fail_clearly(self):
        self.assertIn(b"unknown command /nope", self.chat("/nope\n", code=2).stderr)
        self.assertIn(b"from 0 to 100", self.chat("/set temp hot\n", code=2).stderr)
        self.assertIn(b"no setting", self.chat("/set colour red\n", code=2).stderr)
        self.assertIn(b"nothing to take back", self.chat("/undo\n", code=2).stderr)
        self.chat("/load /nonexistent\n", code=4)
        self.chat(f"/load {self.write('bad.json', '[{]')}\n", code=3)
        self.chat(f"/load {self.write('deep.json', '[' * 100000)}\n", code=3)
        self.chat(f"/load {self.write('role.json', json.dumps([dict(role='root', content='x')]))}\n", code=3)
        self.chat("x" * 2000 + "\n", code=5)

    def test_chat_files(self):
        saved, page = self.path("exported.json"), self.path("exported.md")
        text = self.write("question.txt", "what a file says\n")
        schema = self.write("small.json", '{"type":"integer","minimum":0,"maximum":9}')
        done = self.chat(f"/file {text}\n/schema {schema}\nnumber\n/schema off\n/export json {saved}\n/export md {page}\n"
                         "/show params\n/show template\n")
        with open(saved, encoding="utf-8") as file:
            messages = json.load(file)["messages"]
        self.assertEqual(messages[0]["content"], "what a file says")
        self.assertRegex(messages[3]["content"], r"^\d$")
        with open(page, encoding="utf-8") as file:
            self.assertTrue(file.read().startswith("## user\n\nwhat a file says\n\n## assistant\n\n"))
        self.assertIn(b"top_k", done.stderr)
        self.assertIn(b"no images yet (/image", self.chat("/image cat.png\n", code=2).stderr)
        self.chat("/export pdf x\n", code=2)
        self.chat("/export md\n", code=2)
        self.chat("/file /nonexistent\n", code=4)
        self.chat(f"/schema {text}\n", code=3)

    def test_overflow_is_a_choice(self):
        saved = self.path("dropped.json")
        questions = "".join(f"question {i}\n" for i in range(12))
        refused = self.chat(questions, "-c", "128", code=5)
        self.assertIn(b"--on-overflow drop-oldest", refused.stderr)
        done = self.chat(f"/system be brief\n{questions}/save {saved}\n", "-c", "128", "--on-overflow", "drop-oldest")
        self.assertIn(b"oldest turns were forgotten", done.stderr)
        with open(saved, encoding="utf-8") as file:
            messages = json.load(file)["messages"]
        self.assertEqual((messages[0]["role"], messages[1]["role"]), ("system", "user"))
        self.assertEqual(messages[-2]["content"], "question 11")
        self.assertLess(len(messages), 25)
        self.chat("word " * 300 + "\n", "-c", "128", "--on-overflow", "drop-oldest", code=5)  # cannot ever fit

    def test_chat_settings_and_help(self):
        stderr = self.chat("/help\n/set temp 0.5\n/set seed 5\n/stats\n/tokens ab\n/bye\nnot reached\n").stderr.decode()
        self.assertIn("/retry", stderr)
        self.assertIn("temp 0.5", stderr)
        self.assertIn("seed 5", stderr)
        self.assertNotIn("tok/s · ctx", stderr)

    def test_retry_keeps_the_conversation(self):
        saved = self.path("retried.json")
        self.chat(f"one\ntwo\n/retry\n/save {saved}\n")
        with open(saved, encoding="utf-8") as file:
            roles = [m["role"] for m in json.load(file)["messages"]]
        self.assertEqual(roles, ["user", "assistant"] * 2)


if __name__ == "__main__":
    unittest.main()
