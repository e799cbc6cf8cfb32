"""chat on a real terminal, driven through tmux."""
import json
import os
import re
import shutil
import subprocess
import time
import unittest

from support import BINARY, MAKE_TINY, CliTest, clean_environment

WAIT = 60
SPEED = re.compile(r"\[\d+ tok · first ")


# libedit 3.1 itself leaks two small strings at exit; without frame pointers LeakSanitizer cannot tell whose
# they are, so they cannot be suppressed by name. Every other test of the binary looks for leaks.
LEAKS = {"ASAN_OPTIONS": "detect_leaks=0"}


@unittest.skipUnless(shutil.which("tmux"), "tmux is not installed")
class Terminal(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Slow enough that an answer of a full context is still going on when Ctrl-C comes.
        cls.slow = cls.path("slow.gguf")
        subprocess.run([MAKE_TINY, cls.slow, "16", "256", "16384"], check=True, timeout=120)

    def setUp(self):
        self.starts = 0
        self.socket = None

    def tearDown(self):
        if self.socket:
            subprocess.run(["tmux", "-S", self.socket, "kill-server"], stderr=subprocess.DEVNULL, check=False)

    def tmux(self, *args, **options):
        environment = clean_environment(self.folder, TERM="xterm-256color", EDITOR="sed -i -e s/first/changed/",
                                        **LEAKS)
        return subprocess.run(["tmux", "-S", self.socket, *args], check=True, stdout=subprocess.PIPE, timeout=WAIT,
                              env=environment, **options).stdout.decode()

    def start(self, *args):
        # A server that is being killed still holds its socket: every start has its own.
        self.starts += 1
        self.socket = self.path(f"{self._testMethodName}-{self.starts}.sock")
        # The answers go to a file, so that random text does not fill the screen.
        self.answer_file = self.path(f"{self._testMethodName}-{self.starts}.answers")
        command = " ".join(["'" + BINARY + "'", "chat", *(f"'{a}'" for a in args), ">", "'" + self.answer_file + "'"])
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "50", "sh", "-c",
                  "trap : INT; " + command + "; echo exit code $?; cat")
        self.wait(lambda screen: screen.rstrip().endswith(">>>"))

    def screen(self):
        return self.tmux("capture-pane", "-p", "-S", "-200")

    def wait(self, condition):
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            screen = self.screen()
            if condition(screen):
                return screen
            time.sleep(0.05)
        self.fail("timed out; the screen was:\n" + screen)
        return ""

    def type(self, *keys):
        self.tmux("send-keys", *keys)

    def line(self, text):
        self.tmux("send-keys", "-l", text)
        self.type("Enter")

    def answers(self, n):
        return self.wait(lambda screen: len(SPEED.findall(screen)) == n and screen.rstrip().endswith(">>>"))

    def transcript(self, name):
        path = self.path(name)
        self.line(f"/save {path}")
        self.wait(lambda screen: f"to {path}" in screen.replace("\n", ""))
        with open(path, encoding="utf-8") as file:
            return json.load(file)["messages"]

    def test_paste_undo_and_editing(self):
        self.start("-m", self.crumb, "-n", "4", "--temp", "0", "--ignore-eos")
        self.tmux("load-buffer", "-", input=b"pasted one\npasted two\n\tthree")
        self.tmux("paste-buffer", "-p")
        time.sleep(0.3)
        self.assertEqual(len(SPEED.findall(self.screen())), 0)  # the line feeds did not send it
        self.type("Enter")
        self.answers(1)
        self.tmux("send-keys", "-l", "wrold")
        self.type("BSpace", "BSpace", "BSpace", "BSpace")
        self.tmux("send-keys", "-l", "örld")
        self.type("C-j")
        self.line("second line")
        self.answers(2)
        messages = self.transcript("edit.json")
        self.assertEqual([m["content"] for m in messages if m["role"] == "user"],
                         ["pasted one\npasted two\n\tthree", "wörld\nsecond line"])
        self.line("/undo")
        self.wait(lambda screen: "2 messages left" in screen)
        self.assertEqual(len(self.transcript("undone.json")), 2)
        self.type("C-d")
        self.wait(lambda screen: "exit code 0" in screen)

    def test_continue_and_edit(self):
        self.start("-m", self.crumb, "-n", "4", "--temp", "0", "--ignore-eos")
        self.line("/continue")
        self.wait(lambda screen: "the last message is not an answer" in screen)
        self.line("the first question")
        self.assertRegex(self.answers(1), r"\n\d+% >>>\s*$")  # how much of the context is used
        short = self.transcript("short.json")
        self.line("/continue")
        self.answers(2)
        long = self.transcript("long.json")
        self.assertEqual([m["role"] for m in long], ["user", "assistant"])
        self.assertTrue(long[1]["content"].startswith(short[1]["content"]))
        self.assertGreater(len(long[1]["content"]), len(short[1]["content"]))
        self.line("/edit")
        self.answers(3)
        edited = self.transcript("edited.json")
        self.assertEqual([m["role"] for m in edited], ["user", "assistant"])
        self.assertEqual(edited[0]["content"], "the changed question")
        self.line("/edit")  # the editor finds nothing to change now
        self.wait(lambda screen: "unchanged, nothing was sent" in screen)
        self.assertEqual(self.transcript("same.json"), edited)
        self.line("/bye")
        self.wait(lambda screen: "exit code 0" in screen)

    def test_another_model(self):
        self.start("-m", self.crumb, "-n", "4", "--temp", "0", "--ignore-eos")
        self.line("one")
        self.answers(1)
        self.line("/model nowhere.crumb")
        self.wait(lambda screen: "crumb: error:" in screen)
        self.line("two")
        self.answers(2)
        self.line("/bench")
        self.wait(lambda screen: re.search(r"pp128 +[\d.]+ tok/s", screen) and re.search(r"tg32 +[\d.]+ tok/s", screen))
        self.line(f"/model {self.gguf}")
        self.wait(lambda screen: "F32 (F32)" in screen)
        self.line("three")
        self.answers(3)
        messages = self.transcript("models.json")
        self.assertEqual([m["content"] for m in messages if m["role"] == "user"], ["one", "two", "three"])
        # As a process that has had this model only answers.
        before, fresh = self.write("before.json", json.dumps(messages[:4])), self.path("fresh.json")
        self.expect(0, "chat", "-m", self.gguf, "--temp", "0", "--ignore-eos", "-n", "4", "--load", before,
                    stdin=f"three\n/save {fresh}\n".encode())
        with open(fresh, encoding="utf-8") as file:
            self.assertEqual(json.load(file)["messages"], messages)
        self.line("/bye")
        self.wait(lambda screen: "exit code 0" in screen)

    def test_interrupt_then_follow_up(self):
        self.start("-m", self.slow, "--temp", "0", "--ignore-eos")
        self.line("first question")
        self.wait(lambda screen: os.path.getsize(self.answer_file) > 20)
        self.type("C-c")
        self.assertIn("· stopped]", self.answers(1))
        self.line("/set predict 6")
        self.line("follow up")
        self.assertNotIn("stopped", self.answers(2).split("follow up")[1])
        messages = self.transcript("stopped.json")
        self.assertEqual([m["role"] for m in messages], ["user", "assistant"] * 2)
        self.assertTrue(messages[1]["content"])
        # The same conversation read by a fresh process gives the same follow-up: the cache was sound.
        before, fresh = self.write("before.json", json.dumps(messages[:2])), self.path("fresh.json")
        self.expect(0, "chat", "-m", self.slow, "--temp", "0", "--ignore-eos", "-n", "6", "--load", before,
                    stdin=f"follow up\n/save {fresh}\n".encode())
        with open(fresh, encoding="utf-8") as file:
            self.assertEqual(json.load(file)["messages"], messages)
        self.type("C-c")
        self.wait(lambda screen: "Ctrl-C again or Ctrl-D leaves" in screen)
        self.type("C-c")
        self.wait(lambda screen: "exit code 0" in screen)

    def test_history_across_restarts(self):
        self.start("-m", self.crumb, "-n", "2", "--ignore-eos")
        self.line("remember me")
        self.answers(1)
        self.line(" but not this")
        self.answers(2)
        self.line("/bye")
        self.wait(lambda screen: "exit code 0" in screen)
        history = os.path.join(self.folder, "state/crumb/history")
        self.assertEqual(os.stat(history).st_mode & 0o777, 0o600)
        with open(history, encoding="utf-8") as file:
            self.assertNotIn("not", file.read())
        self.tearDown()
        self.start("-m", self.crumb, "-n", "2", "--ignore-eos")
        self.type("Up", "Up")
        self.wait(lambda screen: screen.rstrip().endswith(">>> remember me"))
        self.type("C-c")  # drops the line typed so far
        self.wait(lambda screen: screen.rstrip().endswith(">>>"))
        self.type("C-d")
        self.wait(lambda screen: "exit code 0" in screen)

    def test_conversations_are_kept(self):
        self.start("-m", self.crumb, "-n", "4", "--temp", "0", "--ignore-eos")
        self.line("first")
        self.answers(1)
        self.type("C-d")
        screen = self.wait(lambda screen: "exit code 0" in screen)
        name = re.search(r"--resume (\S+)", screen).group(1)
        path = os.path.join(self.folder, f"state/crumb/sessions/{name}.json")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.assertEqual(os.stat(os.path.dirname(path)).st_mode & 0o777, 0o700)
        self.tearDown()
        self.start("-m", self.crumb, "-n", "4", "--temp", "0", "--ignore-eos", "--resume", "last")
        self.assertIn("2 messages from", self.screen())
        self.line("second")
        self.answers(1)
        self.line("/bye")
        self.wait(lambda screen: f"--resume {name}" in screen and "exit code 0" in screen)
        with open(path, encoding="utf-8") as file:
            messages = json.load(file)["messages"]
        self.assertEqual([m["content"] for m in messages if m["role"] == "user"], ["first", "second"])
        self.expect_error(2, "chat", "-m", self.crumb, "--resume", "../history")

    def test_mistakes_do_not_end_it(self):
        self.start("-m", self.crumb, "-n", "2", "-c", "64", "--ignore-eos", "--no-history")
        self.line("/nope")
        self.wait(lambda screen: "unknown command /nope" in screen)
        self.line("many words " * 20)
        self.wait(lambda screen: "crumb: error:" in screen.split("unknown command")[1])
        self.line("hi")
        self.answers(1)
        self.line("/bye")
        self.wait(lambda screen: "exit code 0" in screen)


if __name__ == "__main__":
    unittest.main()
