"""Manual pages and completions: every option of --help is in both, and bash completes them."""
import os
import re
import shutil
import subprocess
import unittest

from support import BINARY, CliTest, clean_environment

# Asks the completion function what it offers for the words of a command line.
DRIVER = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_crumb crumb "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}" 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


class Pages(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.verbs = re.findall(r"^  (\w+) ", cls.run_crumb("--help").stdout.decode(), re.M)
        cls.commands = []
        for verb in cls.verbs:
            # Verbs with several commands list them.
            inner = re.findall(r"^  (\w+) ", cls.run_crumb(verb, "--help").stdout.decode(), re.M) if verb in ("eval", "search") else []
            cls.commands += [[verb, one] for one in inner] or [[verb]]
        cls.pages = cls.path("pages")
        os.mkdir(cls.pages)
        cls.run_crumb("man", "--output", cls.pages)
        cls.scripts = {}
        for shell in ["bash", "zsh", "fish"]:
            cls.scripts[shell] = cls.path(shell)
            with open(cls.scripts[shell], "wb") as file:
                file.write(cls.run_crumb("completion", shell).stdout)

    def help_options(self, command):
        text = self.expect(0, *command, "--help").stdout.decode()
        # The names at the start of a line: "  -m,--model FILE  the model".
        names = [name for line in re.findall(r"^  (-[^ ]+)", text, re.M) for name in line.split(",")]
        self.assertIn("--help", names, text)
        return names

    def complete(self, *words):
        done = subprocess.run(["bash", "-c", DRIVER, "bash", self.scripts["bash"], "crumb", *words], capture_output=True,
                              cwd=self.folder, env=clean_environment(self.folder), timeout=60, check=True)
        return [line for line in done.stdout.decode().split("\n") if line]

    def test_every_option_is_everywhere(self):
        texts = []
        for shell in ["fish", "zsh"]:
            with open(self.scripts[shell], encoding="utf-8") as file:
                texts.append(file.read())
        fish, zsh = texts
        self.assertGreater(len(self.commands), 20)
        for command in self.commands:
            with open(f"{self.pages}/crumb-{command[0]}.1", encoding="utf-8") as file:
                page = file.read()
            offered = self.complete(*command, "-")
            for name in self.help_options(command):
                self.assertIn("\\fB" + name.replace("-", "\\-") + "\\fR", page, command)
                self.assertIn(name, offered, command)
                self.assertIn(name, zsh)
                self.assertIn((" -l " if name.startswith("--") else " -s ") + name.lstrip("-") + " ", fish)

    def test_bash_completes(self):
        self.assertEqual(self.complete("qua"), ["quantize"])
        self.assertEqual(set(self.verbs) - set(self.complete("")), set())
        self.assertEqual(self.complete("run", "--kv", ""), ["i8", "f16", "f32"])
        self.assertEqual(self.complete("run", "--kv", "=", "f1"), ["f16"])
        self.assertIn("tiny.gguf", self.complete("run", "-m", "ti"))
        self.assertIn("tiny.gguf", self.complete("inspect", "ti"))
        self.assertEqual(self.complete("run", "--temp", ""), [])
        self.assertIn("ppl", self.complete("eval", ""))
        self.assertEqual(self.complete("eval", "kl", "--bas"), ["--base"])
        self.assertIn("--system", self.complete("--sys"))  # options alone are those of chat
        self.assertIn("-np", self.complete("serve", "-n"))
        self.write("with space.crumb", "x")
        self.assertIn("with space.crumb", self.complete("run", "-m", "with"))

    def test_scripts_parse(self):
        for shell in ["bash", "zsh", "fish"]:
            if shutil.which(shell):
                subprocess.run([shell, "-n", self.scripts[shell]], check=True, timeout=60)
        self.expect_error(2, "completion", "csh")

    @unittest.skipUnless(shutil.which("groff"), "groff is not installed")
    def test_pages_are_sound(self):
        names = sorted(os.listdir(self.pages))
        self.assertEqual(names, sorted(["crumb.1"] + [f"crumb-{verb}.1" for verb in self.verbs]))
        for name in names:
            done = subprocess.run(["groff", "-man", "-Tutf8", "-K", "utf8", "-ww", "-z", f"{self.pages}/{name}"],
                                  capture_output=True, timeout=60, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, b""), name)
        self.assertIn(b"CRUMB_API_KEY", self.expect(0, "man").stdout)
        self.assertIn(b"crumb", self.expect(0, "man", "run").stdout)
        self.expect_error(2, "man", "nope")


if __name__ == "__main__":
    unittest.main()
